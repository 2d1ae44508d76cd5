/*
 * victim.c: what is to be ended.
 *
 *     victim stamp FILE         on SIGHUP or SIGTERM, writes the wall clock's nanoseconds to FILE
 *     victim tree COUNT OWN     COUNT children (OWN 1: each in a session of its own), then "ready"
 */
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int stamp(const char *path) {
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGHUP);
    (void)sigaddset(&set, SIGTERM);
    /* Blocked and waited for: no handler's cost, no call that is interrupted. */
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0 || sigwaitinfo(&set, NULL) < 0) {
        return 1;
    }
    struct timespec t;
    (void)clock_gettime(CLOCK_REALTIME, &t);
    FILE *file = fopen(path, "w");
    if (!file) {
        return 1;
    }
    (void)fprintf(file, "%" PRId64 "\n", (int64_t)t.tv_sec * 1000000000 + t.tv_nsec);
    return fclose(file) == 0 ? 0 : 1;
}

static int tree(long count, int own) {
    for (long i = 0; i < count; i++) {
        pid_t pid = fork();
        if (pid < 0) {
            return 1;
        }
        if (pid == 0) {
            if (own) {
                (void)setsid();
            }
            (void)pause();
            _exit(0);
        }
    }
    (void)printf("ready\n");
    (void)fflush(stdout);
    return pause();
}

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "stamp") == 0) {
        return stamp(argv[2]);
    }
    if (argc == 4 && strcmp(argv[1], "tree") == 0) {
        return tree(atol(argv[2]), atoi(argv[3]));
    }
    (void)fprintf(stderr, "usage: victim stamp FILE\n       victim tree COUNT OWN\n");
    return 2;
}
