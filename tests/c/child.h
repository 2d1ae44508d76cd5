/* child.h: shell scripts as children. */
#ifndef CHILD_H
#define CHILD_H

#include "check.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct {
    char run_id[AS_RUN_ID_LENGTH + 1];
    as_child process;
} child;

static inline void child_new_id(child *c) {
    static _Atomic unsigned count;
    (void)snprintf(c->run_id, sizeof c->run_id, "%016llx%08x%08x",
                   (unsigned long long)as_realtime(), (unsigned)getpid(),
                   atomic_fetch_add(&count, 1));
}

/* The id is in its environment where `marked`. */
static inline child child_start_as(const char *script, const char *run_id, bool marked) {
    child c = {0};
    char words[4096];
    if (run_id) {
        memcpy(c.run_id, run_id, sizeof c.run_id);
    } else {
        child_new_id(&c);
    }
    int size = snprintf(words, sizeof words,
                        "/bin/sh%c.%c/bin/sh%c-c%c%s%cPATH=/usr/local/bin:/usr/bin:/bin%c"
                        "AGENTSCRIPTS_RUN_ID=%s",
                        0, 0, 0, 0, script, 0, 0, c.run_id);
    CHECK(size > 0 && (size_t)size < sizeof words);
    as_starts *starts = as_starts_new();
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    CHECK(starts);
    CHECK_EQUAL(as_spawn(starts, words, 1, 1, 3, marked ? 2 : 1, null, NULL, false, &c.process), 0);
    as_starts_free(starts);
    as_close(&null);
    return c;
}

static inline child child_start(const char *script) { return child_start_as(script, NULL, true); }

/* Waits for a line of its stdout; the number that is in it. */
static inline int child_read_number(const child *c) {
    char line[32] = "";
    for (size_t n = 0; !strchr(line, '\n');) {
        struct pollfd ready = {.fd = c->process.stdout_fd, .events = POLLIN};
        CHECK_EQUAL(poll(&ready, 1, 60000), 1);
        CHECK(n < sizeof line - 1);
        CHECK_EQUAL(read(c->process.stdout_fd, line + n, 1), 1);
        n++;
    }
    return atoi(line);
}

/* Waits until the process is gone or a zombie, within a minute. */
static inline void child_wait_gone(int pid) {
    int pidfd = as_pidfd_open(pid);
    if (pidfd >= 0) {
        struct pollfd ready = {.fd = pidfd, .events = POLLIN};
        CHECK_EQUAL(poll(&ready, 1, 60000), 1);
        as_close(&pidfd);
    }
}

/* Gone, or a zombie. */
static inline bool child_is_gone(int pid) {
    int pidfd = as_pidfd_open(pid);
    struct pollfd ready = {.fd = pidfd, .events = POLLIN};
    bool gone = pidfd < 0 || poll(&ready, 1, 0) == 1;
    as_close(&pidfd);
    return gone;
}

static inline void child_end(child *c) {
    (void)kill(c->process.pid, SIGKILL);
    (void)waitpid(c->process.pid, NULL, 0);
    as_close(&c->process.stdout_fd);
    as_close(&c->process.stderr_fd);
    as_close(&c->process.pidfd);
}

#endif
