/* agentscripts/_exec: turns a freshly spawned child into a script with default signals.
 *
 *     _exec STATUS_FD CGROUP_PROCS PROGRAM ARG0 [ARG...]
 *
 * It becomes PROGRAM, which sees ARG0 as its own name. CGROUP_PROCS, unless empty, is the
 * cgroup.procs file of the group to join first. STATUS_FD closes without a byte when PROGRAM
 * runs; otherwise it gets "ERRNO STEP", STEP being "cgroup" or "exec", and the exit status
 * is 127.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { FAILED = 127 };

_Noreturn static void fail(int status_fd, const char *step) {
    /* When this fails as well, the exit status is all that is left to tell. */
    (void)dprintf(status_fd, "%d %s", errno, step);
    _exit(FAILED);
}

static int parse_fd(const char *text) {
    char *end = NULL;
    long value = strtol(text, &end, 10);
    if (end == text || *end != '\0' || value < 0 || value > INT_MAX) {
        return -1;
    }
    return (int)value;
}

/* exec keeps ignored signals ignored and blocked ones blocked: nohup and a host's mask would
 * reach the script. */
static int reset_signals(void) {
    struct sigaction action = {.sa_handler = SIG_DFL};
    for (int signo = 1; signo < NSIG; signo++) {
        if (signo == SIGKILL || signo == SIGSTOP) {
            continue;
        }
        /* EINVAL: glibc keeps 32 and 33 to itself. */
        if (sigaction(signo, &action, NULL) != 0 && errno != EINVAL) {
            return -1;
        }
    }
    sigset_t none;
    if (sigemptyset(&none) != 0) {
        return -1;
    }
    return sigprocmask(SIG_SETMASK, &none, NULL);
}

/* "0" stands for the writing process. The descriptor ends with exec. */
static int join_cgroup(const char *procs) {
    int fd = open(procs, O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
        return -1;
    }
    return write(fd, "0", 1) == 1 ? 0 : -1;
}

int main(int argc, char **argv) {
    if (argc < 5) {
        (void)fprintf(stderr, "usage: _exec STATUS_FD CGROUP_PROCS PROGRAM ARG0 [ARG...]\n");
        return FAILED;
    }
    int status_fd = parse_fd(argv[1]);
    if (status_fd < 0 || fcntl(status_fd, F_SETFD, FD_CLOEXEC) != 0) {
        (void)fprintf(stderr, "_exec: STATUS_FD is \"%s\", not an open descriptor\n", argv[1]);
        return FAILED;
    }
    const char *cgroup_procs = argv[2];
    if (cgroup_procs[0] != '\0' && join_cgroup(cgroup_procs) != 0) {
        fail(status_fd, "cgroup");
    }
    if (reset_signals() != 0) {
        fail(status_fd, "exec");
    }
    (void)execve(argv[3], argv + 4, environ);
    fail(status_fd, "exec");
}
