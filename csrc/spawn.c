/* spawn.c: how a script's process begins.
 *
 * vfork by hand: the child runs in this process's memory, on a stack of its own, while the calling
 * thread waits for its exec; no page tables are copied, and what fails is told in that memory. The
 * child makes system calls and nothing else: no lock, no allocation, no function of libc that a
 * sanitizer or a cancellation might come into. All signals stay blocked until it has none of the host's
 * handlers left, for these would run in the host's memory.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A sanitizer would take the child's stack for a part of the parent's frame. */
#define CHILD __attribute__((no_sanitize("address", "thread", "undefined")))

#ifdef __SANITIZE_THREAD__
/* Its clone takes the child for a fork's, and leaves the parent's thread in a state of ignoring all. */
int __clone(int (*function)(void *), void *stack, int flags, void *argument, ...);
#define clone __clone
#endif

enum {
    STACK = 16 * 1024,
    LISTING = 1024,
    SIGNAL_SET = NSIG / 8, /* bytes of the kernel's sigset_t, which is smaller than libc's */
    FAILED = 127,
    FIRST_OTHER = 3,
};

/* ---- starts and forks ---- */

struct as_starts {
    pthread_rwlock_t lock; /* each start holds it shared, a fork alone */
    _Atomic int forking;   /* the thread that holds it alone; 0: none does */
};

static int starts_init(as_starts *starts) {
    atomic_init(&starts->forking, 0);
    pthread_rwlockattr_t attributes;
    int result = pthread_rwlockattr_init(&attributes);
    if (result == 0) {
#ifdef __GLIBC__ /* whose forks would wait for as long as there is always a start under way */
        (void)pthread_rwlockattr_setkind_np(&attributes,
                                            PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
#endif
        result = pthread_rwlock_init(&starts->lock, &attributes);
        (void)pthread_rwlockattr_destroy(&attributes);
    }
    return result;
}

as_starts *as_starts_new(void) {
    as_starts *starts = malloc(sizeof *starts);
    if (starts && starts_init(starts) != 0) {
        free(starts);
        return NULL;
    }
    return starts;
}

void as_starts_free(as_starts *starts) {
    if (starts) {
        (void)pthread_rwlock_destroy(&starts->lock);
        free(starts);
    }
}

/* glibc has a function for it since 2.30. */
static int own_thread(void) { return (int)syscall(SYS_gettid); }

int as_starts_hold(as_starts *starts, int64_t timeout) {
    int64_t until = as_realtime() + timeout; /* pthread_rwlock_timedwrlock knows no other clock */
    struct timespec when = {.tv_sec = until / AS_SECOND, .tv_nsec = until % AS_SECOND};
    if (pthread_rwlock_timedwrlock(&starts->lock, &when) != 0) {
        return AS_TIMEOUT;
    }
    atomic_store(&starts->forking, own_thread());
    return 0;
}

void as_starts_resume(as_starts *starts) {
    if (atomic_load(&starts->forking) == own_thread()) {
        atomic_store(&starts->forking, 0);
        (void)pthread_rwlock_unlock(&starts->lock);
    }
}

/* The lock's owner is a thread of the parent, so it cannot be unlocked. */
void as_starts_begin_anew(as_starts *starts) { (void)starts_init(starts); }

/* ---- the child ---- */

typedef struct {
    char **programs, **directories, **arguments, **variables; /* each ends with NULL */
    const char *cgroup_procs;
    int die_with_parent;
    int streams[3];
    pid_t parent;
    int entered; /* which of the directories, or the last that was tried */
    int step;
    int error; /* 0: the exec went well */
} start;

CHILD static void give_up(start *s, int step) {
    s->step = step;
    s->error = errno;
    for (;;) {
        (void)syscall(SYS_exit_group, FAILED);
    }
}

/* exec keeps ignored signals ignored and blocked ones blocked: nohup and a host's mask would reach the
   script. Past libc, for it hides two signals that another libc's threads may have left ignored. */
CHILD static void reset_signals(void) {
    static const char defaults[64] = {0}; /* whatever the order of the kernel's struct is */
    for (int number = 1; number < NSIG; number++) {
        (void)syscall(SYS_rt_sigaction, number, defaults, NULL, (size_t)SIGNAL_SET);
    }
}

CHILD static int join_cgroup(const char *procs) {
    long fd = syscall(SYS_openat, AT_FDCWD, procs, O_WRONLY | O_CLOEXEC);
    return fd >= 0 && syscall(SYS_write, fd, "0", 1) == 1 ? 0 : -1; /* "0": who writes it */
}

/* The signal belongs to the end of the thread that starts the script, and that one supervises it. A
   host that ended before has sent none: then the parent is another one, or 0 outside of the namespace. */
CHILD static int die_with(pid_t parent) {
    if (syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0) {
        return -1;
    }
    return syscall(SYS_getppid) == parent ? 0 : -1;
}

/* A host that has closed its standard streams may have got these numbers for ours. */
CHILD static int set_streams(start *s) {
    for (int i = 0; i < FIRST_OTHER; i++) {
        if (s->streams[i] < FIRST_OTHER) {
            s->streams[i] = (int)syscall(SYS_fcntl, s->streams[i], F_DUPFD_CLOEXEC, FIRST_OTHER);
        }
        if (s->streams[i] < 0) {
            return -1;
        }
    }
    for (int i = 0; i < FIRST_OTHER; i++) {
        if (syscall(SYS_dup3, s->streams[i], i, 0) < 0) {
            return -1;
        }
    }
    return 0;
}

CHILD static int number_of(const char *name) {
    int number = 0;
    for (; *name >= '0' && *name <= '9'; name++) {
        number = number * 10 + (*name - '0');
    }
    return *name == '\0' ? number : -1; /* "." and ".." */
}

/* As close_range does, which is forbidden in some containers, and came with Linux 5.9. */
CHILD static int close_listed(const start *s) {
    _Alignas(8) char entries[LISTING]; /* of struct linux_dirent64, which no header has */
    enum { LENGTH_AT = 16, NAME_AT = 19 };
    (void)syscall(SYS_close, s->streams[0]); /* so that there is a descriptor for the directory */
    long directory = syscall(SYS_openat, AT_FDCWD, "/proc/self/fd", O_RDONLY | O_DIRECTORY);
    long size;
    while ((size = syscall(SYS_getdents64, directory, entries, sizeof entries)) > 0) {
        for (long at = 0; at < size;) {
            int fd = number_of(entries + at + NAME_AT);
            if (fd >= FIRST_OTHER && fd != directory) {
                (void)syscall(SYS_close, fd);
            }
            at += *(const unsigned short *)(const void *)(entries + at + LENGTH_AT);
        }
    }
    (void)syscall(SYS_close, directory);
    return size < 0 ? -1 : 0;
}

CHILD static int close_others(const start *s) {
    return syscall(SYS_close_range, FIRST_OTHER, ~0U, 0) == 0 ? 0 : close_listed(s);
}

CHILD static bool is_out_of_reach(int error) {
    return error == ENOENT || error == ENOTDIR || error == EACCES || error == ELOOP ||
           error == ENAMETOOLONG;
}

CHILD static int enter(start *s) {
    int result = -1;
    for (int i = 0; result < 0 && s->directories[i]; i++) {
        s->entered = i;
        result = (int)syscall(SYS_chdir, s->directories[i]);
        if (result < 0 && !is_out_of_reach(errno)) {
            break;
        }
    }
    return result;
}

/* As execvpe does: the errno that says most is that of a program that is there. */
CHILD static void run_program(const start *s) {
    int found = 0;
    for (char **program = s->programs; *program; program++) {
        (void)syscall(SYS_execve, *program, s->arguments, s->variables);
        if (errno != ENOENT && errno != ENOTDIR && found == 0) {
            found = errno;
        }
    }
    errno = found ? found : errno;
}

CHILD static int become(void *argument) {
    static const char none[SIGNAL_SET] = {0};
    start *s = argument;
    reset_signals();
    (void)syscall(SYS_setsid); /* cannot fail for a new process */
    if (s->cgroup_procs && join_cgroup(s->cgroup_procs) < 0) {
        give_up(s, AS_JOINING);
    }
    if (s->die_with_parent && die_with(s->parent) < 0) {
        give_up(s, AS_FORKING);
    }
    if (set_streams(s) < 0 || close_others(s) < 0) {
        give_up(s, AS_FORKING);
    }
    if (enter(s) < 0) {
        give_up(s, AS_ENTERING);
    }
    (void)syscall(SYS_rt_sigprocmask, SIG_SETMASK, none, NULL, (size_t)SIGNAL_SET);
    run_program(s);
    give_up(s, AS_EXECUTING);
    return FAILED;
}

/* ---- the parent ---- */

static const char *list_words(char **list, const char *text, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        list[i] = (char *)(uintptr_t)text;
        text += strlen(text) + 1;
    }
    list[count] = NULL;
    return text;
}

/* False: no memory. s->programs is to be freed. */
static bool list_all_words(start *s, const char *text, uint32_t programs, uint32_t directories,
                           uint32_t arguments, uint32_t variables) {
    size_t count = (size_t)programs + directories + arguments + variables + 4;
    s->programs = malloc(count * sizeof *s->programs);
    if (!s->programs) {
        return false;
    }
    s->directories = s->programs + programs + 1;
    s->arguments = s->directories + directories + 1;
    s->variables = s->arguments + arguments + 1;
    text = list_words(s->programs, text, programs);
    text = list_words(s->directories, text, directories);
    text = list_words(s->arguments, text, arguments);
    (void)list_words(s->variables, text, variables);
    return true;
}

/* The pid, or -1 with errno. Returns when the child has become the script, or has failed. */
static int start_child(start *s, int *pidfd) {
    /* Not a local one: what is called below it would touch another page of each waiting thread's. */
    char *stack = malloc(STACK);
    if (!stack) {
        return -1;
    }
    char all[SIGNAL_SET], old[SIGNAL_SET];
    memset(all, -1, sizeof all);
    (void)syscall(SYS_rt_sigprocmask, SIG_SETMASK, all, old, sizeof all);
    int pid = clone(become, stack + STACK, CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, s,
                    pidfd);
    int error = errno;
    (void)syscall(SYS_rt_sigprocmask, SIG_SETMASK, old, NULL, sizeof old);
    free(stack);
    errno = error;
    return pid;
}

static void wait_for(int pidfd) {
    siginfo_t info;
    while (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED) < 0 && errno == EINTR) {
    }
}

/* Between the making of the pipes and the closing of their write ends. */
static int spawn_between(start *s, as_child *out) {
    int ends[4];
    int result = as_pipes(ends);
    if (result < 0) {
        return result;
    }
    s->streams[1] = ends[1];
    s->streams[2] = ends[3];
    out->pid = start_child(s, &out->pidfd);
    result = out->pid < 0 ? -errno : -s->error;
    out->step = s->step;
    out->entered = s->entered;
    as_close(&ends[1]);
    as_close(&ends[3]);
    if (result < 0) {
        if (out->pid >= 0) {
            wait_for(out->pidfd);
            as_close(&out->pidfd);
        }
        as_close(&ends[0]);
        as_close(&ends[2]);
    }
    out->stdout_fd = ends[0];
    out->stderr_fd = ends[2];
    return result;
}

int as_spawn(as_starts *starts, const char *words, uint32_t programs, uint32_t directories,
             uint32_t arguments, uint32_t variables, int stdin_fd, const char *cgroup_procs,
             int die_with_parent, as_child *out) {
    start s = {.cgroup_procs = cgroup_procs,
               .die_with_parent = die_with_parent,
               .streams = {stdin_fd},
               .parent = getpid(),
               .step = AS_FORKING};
    *out = (as_child){.pidfd = -1, .step = AS_FORKING};
    if (!list_all_words(&s, words, programs, directories, arguments, variables)) {
        return -ENOMEM;
    }
    (void)pthread_rwlock_rdlock(&starts->lock);
    int result = spawn_between(&s, out);
    (void)pthread_rwlock_unlock(&starts->lock);
    free(s.programs);
    return result;
}
