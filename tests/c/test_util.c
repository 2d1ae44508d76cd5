/* util.c: time, descriptors, the gate. */
#include "check.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* AS_FOREVER is later than all else, and no sum overflows. */
static void deadlines(void) {
    CHECK_EQUAL(as_after(5, 7), 12);
    CHECK_EQUAL(as_after(5, 0), 5);
    CHECK_EQUAL(as_after(AS_FOREVER, 7), AS_FOREVER);
    CHECK_EQUAL(as_after(5, AS_FOREVER), AS_FOREVER);
    CHECK_EQUAL(as_after(5, INT64_MAX - 5), INT64_MAX);
    CHECK_EQUAL(as_after(5, INT64_MAX - 4), AS_FOREVER);
    CHECK_EQUAL(as_earlier(3, 4), 3);
    CHECK_EQUAL(as_earlier(4, 3), 3);
    CHECK_EQUAL(as_earlier(AS_FOREVER, 3), 3);
    CHECK_EQUAL(as_earlier(3, AS_FOREVER), 3);
    CHECK_EQUAL(as_earlier(AS_FOREVER, AS_FOREVER), AS_FOREVER);
}

/* K1: as_run_cancel may come any number of times: a wake never blocks. */
static void waking(void) {
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    uint64_t value = UINT64_MAX - 1; /* the most it counts to */
    CHECK_EQUAL(write(fd, &value, sizeof value), sizeof value);
    as_wake(fd);
    CHECK_EQUAL(read(fd, &value, sizeof value), sizeof value);
    as_wake(fd);
    CHECK_EQUAL(read(fd, &value, sizeof value), sizeof value);
    CHECK_EQUAL(value, 1);
    as_close(&fd);
    CHECK_EQUAL(fd, -1);
    as_close(&fd);
}

/* R6, L3: the reader never blocks, the script's end does, and none of the four is inherited. */
static void pipes(void) {
    int ends[4];
    CHECK_EQUAL(as_pipes(ends), 0);
    for (int i = 0; i < 4; i++) {
        CHECK_EQUAL(fcntl(ends[i], F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
        CHECK_EQUAL(fcntl(ends[i], F_GETFL) & O_NONBLOCK, i % 2 == 0 ? O_NONBLOCK : 0);
    }
    for (int stream = 0; stream < 2; stream++) {
        char byte = 0;
        CHECK_EQUAL(write(ends[2 * stream + 1], "x", 1), 1);
        CHECK_EQUAL(read(ends[2 * stream], &byte, 1), 1);
        CHECK_EQUAL(byte, 'x');
    }
    for (int i = 0; i < 4; i++) {
        as_close(&ends[i]);
    }
}

/* R3: where descriptors run out, none is left open. */
static void no_descriptors(void) {
    struct rlimit old, few;
    int ends[4], next = dup(0);
    CHECK(next >= 0);
    (void)close(next);
    CHECK_EQUAL(getrlimit(RLIMIT_NOFILE, &old), 0);
    for (rlim_t more = 0; more < 4; more++) {
        few = old;
        few.rlim_cur = (rlim_t)next + more;
        CHECK_EQUAL(setrlimit(RLIMIT_NOFILE, &few), 0);
        int result = as_pipes(ends);
        CHECK_EQUAL(setrlimit(RLIMIT_NOFILE, &old), 0);
        CHECK_EQUAL(result, -EMFILE);
        for (int i = 0; i < 4; i++) {
            CHECK_EQUAL(ends[i], -1);
        }
    }
    int after = dup(0);
    CHECK_EQUAL(after, next);
    (void)close(after);
}

static void on_signal(int number) { (void)number; }

static void handle(int number, void (*handler)(int)) {
    struct sigaction action = {.sa_handler = handler};
    CHECK_EQUAL(sigaction(number, &action, NULL), 0);
}

/* The gate gives as many permits as it has. */
static void gate(void) {
    as_gate *it = as_gate_new(2);
    CHECK(it);
    CHECK_EQUAL(as_gate_acquire(it, 0), 0);
    CHECK_EQUAL(as_gate_acquire(it, AS_SECOND), 0);
    CHECK_EQUAL(as_gate_acquire(it, 0), AS_TIMEOUT);
    int64_t before = as_realtime();
    CHECK_EQUAL(as_gate_acquire(it, AS_MILLISECOND), AS_TIMEOUT);
    CHECK(as_realtime() - before >= AS_MILLISECOND);
    as_gate_release(it);
    CHECK_EQUAL(as_gate_acquire(it, 0), 0);
    as_gate_free(it);
    as_gate_free(NULL);
}

static void *acquire_forever(void *gate_pointer) {
    return (void *)(intptr_t)as_gate_acquire(gate_pointer, AS_FOREVER);
}

/* AS_FOREVER is no limit here either. */
static void gate_without_limit(void) {
    as_gate *it = as_gate_new(0);
    pthread_t thread;
    void *result;
    CHECK(it);
    CHECK_EQUAL(pthread_create(&thread, NULL, acquire_forever, it), 0);
    as_gate_release(it);
    CHECK_EQUAL(pthread_join(thread, &result), 0);
    CHECK_EQUAL((intptr_t)result, 0);
    CHECK_EQUAL(pthread_create(&thread, NULL, acquire_forever, it), 0);
    struct timespec moment = {.tv_nsec = 20 *
                                         AS_MILLISECOND}; /* let it wait: either way must work */
    (void)nanosleep(&moment, NULL);
    as_gate_release(it);
    CHECK_EQUAL(pthread_join(thread, &result), 0);
    CHECK_EQUAL((intptr_t)result, 0);
    as_gate_free(it);
}

/* R8: a signal handler ends the wait, so that Python's own handler gets its turn. */
static void gate_interrupted(void) {
    as_gate *it = as_gate_new(0);
    timer_t timer;
    struct itimerspec soon = {.it_value = {.tv_nsec = AS_MILLISECOND},
                              .it_interval = {.tv_nsec = AS_MILLISECOND}};
    CHECK(it);
    handle(SIGALRM, on_signal);
    CHECK_EQUAL(timer_create(CLOCK_MONOTONIC, NULL, &timer), 0);
    CHECK_EQUAL(timer_settime(timer, 0, &soon, NULL), 0);
    CHECK_EQUAL(as_gate_acquire(it, 100 * AS_SECOND), AS_INTERRUPTED);
    (void)timer_delete(timer);
    handle(SIGALRM, SIG_DFL);
    as_gate_free(it);
}

CHECK_MAIN(CHECK_TEST(deadlines), CHECK_TEST(waking), CHECK_TEST(pipes), CHECK_TEST(no_descriptors),
           CHECK_TEST(gate), CHECK_TEST(gate_interrupted), CHECK_TEST(gate_without_limit))
