/*
 * floor.c: what the kernel alone takes, as the floor that the library is measured against.
 *
 *     floor spawn COUNT THREADS PROGRAM [ARG...]   vfork + setsid + execve + waitpid, COUNT times
 *     floor copy BYTES LENGTH TARGET               a pipe's bytes, read and written to TARGET; they come as
 *                                                  from gen, as many whole lines of LENGTH as fit in 64 KiB
 *     floor splice BYTES LENGTH TARGET             the same without a copy to user space
 *
 * Each prints one line of JSON: {"ns": total, "each": [ns, ...], "lines": 0}; `each` only for one thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 384 * 1024, PIPE_SIZE = 1024 * 1024, WRITE_SIZE = 64 * 1024 };

static int64_t now(void) {
    struct timespec t;
    if (clock_gettime(CLOCK_MONOTONIC, &t) < 0) {
        abort();
    }
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

_Noreturn static void fail(const char *what) {
    (void)fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* ---- processes ---- */

typedef struct {
    atomic_long left;
    char **argv;
    int64_t *each;
} work;

static void spawn_one(char **argv) {
    pid_t pid = vfork();
    if (pid == 0) {
        (void)setsid();
        (void)execv(argv[0], argv);
        _exit(127);
    }
    int status;
    if (pid < 0 || waitpid(pid, &status, 0) != pid) {
        fail(argv[0]);
    }
    if (status != 0) {
        (void)fprintf(stderr, "floor: %s ended with status %d\n", argv[0], status);
        exit(1);
    }
}

static void *spawn_many(void *argument) {
    work *shared = argument;
    long left;
    while ((left = atomic_fetch_sub(&shared->left, 1)) > 0) {
        int64_t began = now();
        spawn_one(shared->argv);
        shared->each[left - 1] = now() - began;
    }
    return NULL;
}

static void spawn(long count, long threads, char **argv) {
    work shared = {.argv = argv, .each = calloc((size_t)count, sizeof(int64_t))};
    pthread_t *others = calloc((size_t)threads, sizeof *others);
    if (!shared.each || !others) {
        fail("calloc");
    }
    atomic_init(&shared.left, count);
    int64_t began = now();
    for (long i = 1; i < threads; i++) {
        if ((errno = pthread_create(&others[i], NULL, spawn_many, &shared)) != 0) {
            fail("pthread_create");
        }
    }
    (void)spawn_many(&shared);
    for (long i = 1; i < threads; i++) {
        (void)pthread_join(others[i], NULL);
    }
    (void)printf("{\"ns\": %" PRId64 ", \"each\": [", now() - began);
    for (long i = 0; threads == 1 && i < count; i++) {
        (void)printf("%s%" PRId64, i ? ", " : "", shared.each[i]);
    }
    (void)printf("], \"lines\": 0}\n");
    free(others);
    free(shared.each);
}

/* ---- pipes ---- */

static void fill_pipe(int fd, int64_t bytes, int64_t length) {
    static char chunk[WRITE_SIZE];
    int64_t size = length > 0 && length < WRITE_SIZE ? WRITE_SIZE / length * length : WRITE_SIZE;
    memset(chunk, 'x', sizeof chunk);
    while (bytes > 0) {
        ssize_t n = write(fd, chunk, (size_t)(bytes < size ? bytes : size));
        if (n < 0) {
            _exit(1);
        }
        bytes -= n;
    }
    _exit(0);
}

static ssize_t copy_some(int from, int to) {
    static char chunk[CHUNK];
    ssize_t n = read(from, chunk, sizeof chunk);
    for (ssize_t done = 0; done < n;) {
        ssize_t written = write(to, chunk + done, (size_t)(n - done));
        if (written < 0) {
            fail("write");
        }
        done += written;
    }
    return n;
}

static ssize_t splice_some(int from, int to) {
    return splice(from, NULL, to, NULL, PIPE_SIZE, SPLICE_F_MOVE);
}

static void drain(int64_t bytes, int64_t length, const char *target, ssize_t (*some)(int, int)) {
    int ends[2];
    /* Not O_APPEND, which splice refuses. */
    int to = open(target, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (to < 0 || pipe2(ends, O_CLOEXEC) < 0 || fcntl(ends[0], F_SETPIPE_SZ, PIPE_SIZE) < 0) {
        fail(target);
    }
    int64_t began = now(), total = 0;
    pid_t pid = fork();
    if (pid < 0) {
        fail("fork");
    }
    if (pid == 0) {
        (void)close(ends[0]);
        fill_pipe(ends[1], bytes, length);
    }
    (void)close(ends[1]);
    ssize_t n;
    while ((n = some(ends[0], to)) > 0) {
        total += n;
    }
    int status;
    if (n < 0 || waitpid(pid, &status, 0) != pid || status != 0 || total != bytes) {
        fail("pipe");
    }
    (void)printf("{\"ns\": %" PRId64 ", \"each\": [], \"lines\": 0}\n", now() - began);
    (void)close(ends[0]);
    (void)close(to);
}

int main(int argc, char **argv) {
    if (argc >= 5 && strcmp(argv[1], "spawn") == 0) {
        spawn(atol(argv[2]), atol(argv[3]), argv + 4);
    } else if (argc == 5 && strcmp(argv[1], "copy") == 0) {
        drain(atoll(argv[2]), atoll(argv[3]), argv[4], copy_some);
    } else if (argc == 5 && strcmp(argv[1], "splice") == 0) {
        drain(atoll(argv[2]), atoll(argv[3]), argv[4], splice_some);
    } else {
        (void)fprintf(stderr, "usage: floor spawn COUNT THREADS PROGRAM [ARG...]\n"
                              "       floor copy|splice BYTES LENGTH TARGET\n");
        return 2;
    }
    return 0;
}
