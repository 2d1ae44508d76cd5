/* child.h: shell scripts as children, as the library starts them. */
#ifndef CHILD_H
#define CHILD_H

#include "check.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct {
    char run_id[AS_RUN_ID_LENGTH + 1];
    int pid;
    int out, err; /* the pipes' read ends */
} child;

static inline void child_new_id(child *c) {
    static _Atomic unsigned count;
    (void)snprintf(c->run_id, sizeof c->run_id, "%016llx%08x%08x",
                   (unsigned long long)as_realtime(), (unsigned)getpid(),
                   atomic_fetch_add(&count, 1));
}

/* Starts it in a session of its own, the id in its environment where `marked`. */
static inline child child_start_as(const char *script, const char *run_id, bool marked) {
    child c = {0};
    int ends[4];
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_t actions;
    char variable[100];
    char *argv[] = {"/bin/sh", "-c", (char *)(uintptr_t)script, NULL};
    char *environment[] = {"PATH=/usr/local/bin:/usr/bin:/bin", marked ? variable : NULL, NULL};
    if (run_id) {
        memcpy(c.run_id, run_id, sizeof c.run_id);
    } else {
        child_new_id(&c);
    }
    (void)snprintf(variable, sizeof variable, "AGENTSCRIPTS_RUN_ID=%s", c.run_id);
    CHECK_EQUAL(as_pipes(ends), 0);
    CHECK_EQUAL(posix_spawnattr_init(&attributes), 0);
    CHECK_EQUAL(posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID), 0);
    CHECK_EQUAL(posix_spawn_file_actions_init(&actions), 0);
    CHECK_EQUAL(posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0), 0);
    CHECK_EQUAL(posix_spawn_file_actions_adddup2(&actions, ends[1], 1), 0);
    CHECK_EQUAL(posix_spawn_file_actions_adddup2(&actions, ends[3], 2), 0);
    CHECK_EQUAL(posix_spawn(&c.pid, argv[0], &actions, &attributes, argv, environment), 0);
    CHECK_EQUAL(posix_spawn_file_actions_destroy(&actions), 0);
    CHECK_EQUAL(posix_spawnattr_destroy(&attributes), 0);
    as_close(&ends[1]);
    as_close(&ends[3]);
    c.out = ends[0];
    c.err = ends[2];
    return c;
}

static inline child child_start(const char *script) { return child_start_as(script, NULL, true); }

/* Waits for a line of its stdout; the number that is in it. */
static inline int child_read_number(const child *c) {
    char line[32] = "";
    for (size_t n = 0; !strchr(line, '\n');) {
        struct pollfd ready = {.fd = c->out, .events = POLLIN};
        CHECK_EQUAL(poll(&ready, 1, 60000), 1);
        CHECK(n < sizeof line - 1);
        CHECK_EQUAL(read(c->out, line + n, 1), 1);
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
    (void)kill(c->pid, SIGKILL);
    (void)waitpid(c->pid, NULL, 0);
    as_close(&c->out);
    as_close(&c->err);
}

#endif
