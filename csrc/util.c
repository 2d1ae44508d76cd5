/* util.c: time, descriptors, the gate. */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_openat2
#define SYS_openat2 437 /* the same on all architectures */
#endif

static int64_t clock_ns(clockid_t clock) {
    struct timespec now;
    (void)clock_gettime(clock, &now); /* cannot fail for these clocks */
    return (int64_t)now.tv_sec * AS_SECOND + now.tv_nsec;
}

int64_t as_monotonic(void) { return clock_ns(CLOCK_MONOTONIC); }

int64_t as_realtime(void) { return clock_ns(CLOCK_REALTIME); }

int64_t as_after(int64_t when, int64_t duration) {
    if (when == AS_FOREVER || duration == AS_FOREVER || duration > INT64_MAX - when) {
        return AS_FOREVER;
    }
    return when + duration;
}

int64_t as_earlier(int64_t a, int64_t b) {
    return a == AS_FOREVER || (b != AS_FOREVER && b < a) ? b : a;
}

bool as_due(int64_t deadline, int64_t now) { return deadline != AS_FOREVER && now >= deadline; }

struct pollfd as_pollfd(int fd, short events) {
    return (struct pollfd){.fd = fd, .events = events};
}

void as_wake(int eventfd) {
    uint64_t one = 1;
    /* EAGAIN: the counter is full, so it is readable already. */
    ssize_t written = write(eventfd, &one, sizeof one);
    (void)written;
}

void as_close(int *fd) {
    if (*fd >= 0) {
        (void)close(*fd); /* on Linux the descriptor is gone whatever close says */
        *fd = -1;
    }
}

static int make_pipe(int ends[2]) {
    if (pipe2(ends, O_CLOEXEC) < 0) {
        ends[0] = ends[1] = -1;
        return -errno;
    }
    /* Only the read end: the write end is the script's, who expects to block. */
    return fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
}

int as_pipes(int out[4]) {
    out[2] = out[3] = -1;
    int result = make_pipe(out);
    if (result == 0) {
        result = make_pipe(out + 2);
    }
    for (int i = 0; result < 0 && i < 4; i++) {
        as_close(&out[i]);
    }
    return result;
}

/* struct open_how of linux/openat2.h, as of Linux 5.6; this system's headers may be older. */
struct open_how_5_6 {
    uint64_t flags, mode, resolve;
};

int as_open_plain(const char *path, uint64_t flags) {
    enum { NO_SYMLINKS = 1 << 2 };
    struct open_how_5_6 how = {.flags = flags | O_CLOEXEC, .resolve = NO_SYMLINKS};
    long fd = syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
    return fd < 0 ? -errno : (int)fd;
}

int as_open_directory(const char *path) { return as_open_plain(path, O_PATH | O_DIRECTORY); }

bool as_is_own(const struct stat *status) {
    return status->st_uid == 0 || status->st_uid == geteuid();
}

int as_is_own_directory(const char *path, as_identity *identity) {
    struct stat status = {0};
    int fd = as_open_directory(path);
    bool own = fd >= 0 && fstat(fd, &status) == 0 && as_is_own(&status);
    as_close(&fd);
    *identity = (as_identity){status.st_dev, status.st_ino};
    return own;
}

int as_has_own_directories(const as_identity *identity, const char *paths, uint32_t count) {
    struct stat status;
    if (stat(paths, &status) < 0 || status.st_dev != identity->device ||
        status.st_ino != identity->inode) {
        return false;
    }
    for (uint32_t i = 1; i < count; i++) {
        paths += strlen(paths) + 1;
        if (lstat(paths, &status) < 0 || !S_ISDIR(status.st_mode) || !as_is_own(&status)) {
            return false;
        }
    }
    return true;
}

struct as_gate {
    sem_t permits;
};

as_gate *as_gate_new(unsigned permits) {
    as_gate *gate = malloc(sizeof *gate);
    if (gate && sem_init(&gate->permits, 0, permits) < 0) {
        free(gate);
        return NULL;
    }
    return gate;
}

void as_gate_free(as_gate *gate) {
    if (gate) {
        (void)sem_destroy(&gate->permits);
        free(gate);
    }
}

int as_gate_acquire(as_gate *gate, int64_t timeout) {
    if (sem_trywait(&gate->permits) == 0) {
        return 0;
    }
    if (timeout == 0) {
        return AS_TIMEOUT;
    }
    int64_t until = as_after(as_realtime(), timeout); /* sem_timedwait knows no other clock */
    struct timespec when = {.tv_sec = until / AS_SECOND, .tv_nsec = until % AS_SECOND};
    if ((until == AS_FOREVER ? sem_wait(&gate->permits) : sem_timedwait(&gate->permits, &when)) ==
        0) {
        return 0;
    }
    return errno == EINTR ? AS_INTERRUPTED : AS_TIMEOUT;
}

void as_gate_release(as_gate *gate) { (void)sem_post(&gate->permits); }
