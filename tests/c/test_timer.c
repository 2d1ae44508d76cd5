/* timer.c: what ends the scheduler's wait. */
#include "check.h"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

static void *wake(void *timer) {
    as_timer_wake(timer);
    return NULL;
}

/* Sets the clock to what it is: that moves it by less than a microsecond. False: not allowed. */
static bool set_clock(void) {
    struct timespec now;
    CHECK_EQUAL(clock_gettime(CLOCK_REALTIME, &now), 0);
    return clock_settime(CLOCK_REALTIME, &now) == 0;
}

static void *set_clock_soon(void *allowed) {
    struct timespec moment = {.tv_nsec = 20 *
                                         AS_MILLISECOND}; /* let it wait: either way must work */
    (void)nanosleep(&moment, NULL);
    *(bool *)allowed = set_clock();
    return NULL;
}

/* C3: the wait ends at its time and not before, at once when that has passed. */
static void on_time(void) {
    as_timer *timer = as_timer_new();
    CHECK(timer);
    int64_t when = as_realtime() + 20 * AS_MILLISECOND;
    while (as_realtime() < when) { /* more than once only if the clock is set meanwhile */
        CHECK_EQUAL(as_timer_wait(timer, when), 0);
    }
    CHECK_EQUAL(as_timer_wait(timer, when), 0);
    CHECK_EQUAL(as_timer_wait(timer, 0), 0);
    CHECK_EQUAL(as_timer_wait(timer, -5), 0);
    as_timer_free(timer);
}

/* S1: a wake counts before the wait and during it, once. */
static void woken(void) {
    as_timer *timer = as_timer_new();
    pthread_t thread;
    CHECK(timer);
    as_timer_wake(timer);
    as_timer_wake(timer);
    CHECK_EQUAL(as_timer_wait(timer, AS_FOREVER), 0);
    CHECK_EQUAL(pthread_create(&thread, NULL, wake, timer), 0);
    CHECK_EQUAL(as_timer_wait(timer, AS_FOREVER), 0);
    CHECK_EQUAL(pthread_join(thread, NULL), 0);
    as_timer_free(timer);
}

/* C3: a clock that is set ends the wait, also when that happens between two waits. */
static void clock_set(void) {
    as_timer *timer = as_timer_new();
    pthread_t thread;
    bool allowed;
    CHECK(timer);
    if (!set_clock()) {
        as_timer_free(timer);
        return; /* only root may */
    }
    int64_t later = as_realtime() + 3600 * AS_SECOND;
    CHECK_EQUAL(pthread_create(&thread, NULL, set_clock_soon, &allowed), 0);
    CHECK_EQUAL(as_timer_wait(timer, later), 0);
    CHECK_EQUAL(pthread_join(thread, NULL), 0);
    CHECK(allowed);
    CHECK(set_clock());
    CHECK_EQUAL(as_timer_wait(timer, later), 0);
    as_timer_free(timer);
}

static void no_descriptor_leaks(void) {
    int before = dup(0);
    CHECK(before >= 0);
    (void)close(before);
    as_timer_free(as_timer_new());
    as_timer_free(NULL);
    int after = dup(0);
    CHECK_EQUAL(after, before);
    (void)close(after);
}

CHECK_MAIN(CHECK_TEST(on_time), CHECK_TEST(woken), CHECK_TEST(clock_set),
           CHECK_TEST(no_descriptor_leaks))
