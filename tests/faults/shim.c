/* shim.c: makes one system call fail, once (LD_PRELOAD; glibc).
 *
 * fault_arm says which: the nth call of that name from now on, made by the core (the address range of
 * its text), or by all that is not the core. A call that fails is not made, but for close, which on
 * Linux closes whatever it says, and a wait that finds no child. Counts the core's memory blocks, too.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PUBLIC __attribute__((visibility("default")))
/* A script's process runs in the host's memory until its exec, on a small stack, without libc. */
#define CALLER ((uintptr_t)__builtin_return_address(0))

static uintptr_t core_begin, core_end;
static char armed_name[32];
static int armed_error;
static bool armed_core, armed_for_good;
static _Atomic int countdown; /* calls up to the one that fails; 0: none */
static _Atomic int hits;
static _Atomic long blocks;

/* ---- for the test's Python ---- */

PUBLIC void fault_core(uintptr_t begin, uintptr_t end) {
    core_begin = begin;
    core_end = end;
}

/* core: whether the core's calls are meant, or all others. for_good: all calls after it fail, too. */
PUBLIC void fault_arm(const char *name, int error, int nth, int core, int for_good) {
    atomic_store(&countdown, 0);
    (void)strncpy(armed_name, name, sizeof armed_name - 1);
    armed_error = error;
    armed_core = core != 0;
    armed_for_good = for_good != 0;
    atomic_store(&hits, 0);
    atomic_store(&countdown, nth);
}

/* Returns how many calls failed. */
PUBLIC int fault_disarm(void) {
    atomic_store(&countdown, 0);
    return atomic_load(&hits);
}

PUBLIC long fault_blocks(void) { return atomic_load(&blocks); }

/* ---- the decision ---- */

static bool is_core(uintptr_t caller) { return caller >= core_begin && caller < core_end; }

static bool fails(const char *name, uintptr_t caller) {
    if (atomic_load(&countdown) == 0 || is_core(caller) != armed_core) {
        return false;
    }
    for (int i = 0; name[i] || armed_name[i]; i++) {
        if (name[i] != armed_name[i]) {
            return false;
        }
    }
    int before = atomic_load(&countdown);
    while (before > 1 && !atomic_compare_exchange_weak(&countdown, &before, before - 1)) {
    }
    if (before != 1 ||
        (!armed_for_good && !atomic_compare_exchange_strong(&countdown, &before, 0))) {
        return false;
    }
    atomic_fetch_add(&hits, 1);
    errno = armed_error;
    return true;
}

#define NEXT(type, name)                                                                           \
    static __typeof__(type) real;                                                                  \
    if (!real) {                                                                                   \
        real = (__typeof__(type))(uintptr_t)dlsym(RTLD_NEXT, name);                                \
    }

/* ---- memory ---- */

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);
extern void __libc_free(void *block);

static void *counted(void *block, uintptr_t caller) {
    if (block && is_core(caller)) {
        atomic_fetch_add(&blocks, 1);
    }
    return block;
}

PUBLIC void *malloc(size_t size) {
    return fails("malloc", CALLER) ? NULL : counted(__libc_malloc(size), CALLER);
}

PUBLIC void *calloc(size_t count, size_t size) {
    return fails("malloc", CALLER) ? NULL : counted(__libc_calloc(count, size), CALLER);
}

PUBLIC void *realloc(void *old, size_t size) {
    if (fails("malloc", CALLER)) {
        return NULL;
    }
    void *block = __libc_realloc(old, size);
    return old ? block : counted(block, CALLER);
}

PUBLIC char *strdup(const char *text) {
    size_t size = strlen(text) + 1;
    char *copy = fails("malloc", CALLER) ? NULL : counted(__libc_malloc(size), CALLER);
    return copy ? memcpy(copy, text, size) : NULL;
}

PUBLIC void free(void *block) {
    if (block && is_core(CALLER)) {
        atomic_fetch_sub(&blocks, 1);
    }
    __libc_free(block);
}

PUBLIC void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset) {
    if (fails("mmap", CALLER)) {
        return (void *)(intptr_t)-1;
    }
    return counted((void *)syscall(SYS_mmap, address, size, protection, flags, fd, offset), CALLER);
}

PUBLIC int munmap(void *address, size_t size) {
    if (is_core(CALLER)) {
        atomic_fetch_sub(&blocks, 1);
    }
    return (int)syscall(SYS_munmap, address, size);
}

/* ---- calls with plain arguments ---- */

#define WRAP(result, failed, name, parameters, arguments)                                          \
    PUBLIC result name parameters {                                                                \
        NEXT(result(*) parameters, #name)                                                          \
        return fails(#name, CALLER) ? (failed) : real arguments;                                   \
    }

/* Those that return their error. */
#define WRAP_CODE(name, parameters, arguments)                                                     \
    PUBLIC int name parameters {                                                                   \
        NEXT(int(*) parameters, #name)                                                             \
        return fails(#name, CALLER) ? armed_error : real arguments;                                \
    }

/* One name for what C calls with and without 64-bit offsets. */
#define WRAP_AS(shown, result, failed, name, parameters, arguments)                                \
    PUBLIC result name parameters {                                                                \
        NEXT(result(*) parameters, #name)                                                          \
        return fails(shown, CALLER) ? (failed) : real arguments;                                   \
    }

typedef struct pollfd pollfds;
typedef struct timespec moment;

WRAP(int, -1, pipe2, (int ends[2], int flags), (ends, flags))
WRAP(int, -1, eventfd, (unsigned count, int flags), (count, flags))
WRAP(int, -1, dup, (int fd), (fd))
WRAP(int, -1, poll, (pollfds * fds, nfds_t count, int timeout), (fds, count, timeout))
WRAP(int, -1, ppoll, (pollfds * fds, nfds_t count, const moment *limit, const sigset_t *mask),
     (fds, count, limit, mask))
WRAP(int, -1, waitid, (idtype_t type, id_t id, siginfo_t *info, int flags), (type, id, info, flags))
WRAP(int, -1, nanosleep, (const moment *wanted, moment *left), (wanted, left))
WRAP(int, -1, timerfd_create, (int clock, int flags), (clock, flags))
WRAP(int, -1, timerfd_settime,
     (int fd, int flags, const struct itimerspec *when, struct itimerspec *old),
     (fd, flags, when, old))
WRAP(int, -1, renameat, (int from_fd, const char *from, int to_fd, const char *to),
     (from_fd, from, to_fd, to))
WRAP(int, -1, unlinkat, (int fd, const char *path, int flags), (fd, path, flags))
WRAP(int, -1, unlink, (const char *path), (path))
WRAP_AS("mkdir", int, -1, mkdirat, (int fd, const char *path, mode_t mode), (fd, path, mode))
WRAP(int, -1, chmod, (const char *path, mode_t mode), (path, mode))
WRAP(int, -1, killpg, (int group, int number), (group, number))
WRAP(pid_t, -1, getsid, (pid_t pid), (pid))
WRAP(ssize_t, -1, readlink, (const char *path, char *to, size_t size), (path, to, size))
WRAP(void *, NULL, opendir, (const char *path), (path))
WRAP_AS("ftruncate", int, -1, ftruncate, (int fd, off_t size), (fd, size))
WRAP_AS("stat", int, -1, stat64, (const char *path, struct stat64 *out), (path, out))
WRAP(int, -1, stat, (const char *path, struct stat *out), (path, out))
WRAP_AS("stat", int, -1, lstat, (const char *path, struct stat *out), (path, out))
WRAP_AS("stat", int, -1, lstat64, (const char *path, struct stat64 *out), (path, out))
WRAP_AS("stat", int, -1, fstatat64, (int fd, const char *path, struct stat64 *out, int flags),
        (fd, path, out, flags))
WRAP_AS("lseek", off_t, -1, lseek, (int fd, off_t to, int whence), (fd, to, whence))
WRAP_CODE(pthread_mutex_init, (pthread_mutex_t * lock, const pthread_mutexattr_t *how), (lock, how))
WRAP_CODE(pthread_cond_init, (pthread_cond_t * condition, const pthread_condattr_t *how),
          (condition, how))
WRAP_CODE(pthread_create,
          (pthread_t * thread, const pthread_attr_t *how, void *(*run)(void *), void *argument),
          (thread, how, run, argument))

/* What is not in a file system fails otherwise, if at all. */
static bool is_kind(int fd, mode_t kind) {
    struct stat status = {0};
    return syscall(SYS_fstat, fd, &status) == 0 && (status.st_mode & S_IFMT) == kind;
}

static bool fails_for_file(const char *name, int fd, uintptr_t caller) {
    return atomic_load(&countdown) != 0 && is_kind(fd, S_IFREG) && fails(name, caller);
}

PUBLIC int close(int fd) {
    bool failed = fails_for_file("close", fd, CALLER);
    int error = errno, result = (int)syscall(SYS_close, fd);
    errno = failed ? error : errno;
    return failed ? -1 : result;
}

PUBLIC int fstat(int fd, struct stat *out) {
    return fails_for_file("fstat", fd, CALLER) ? -1 : (int)syscall(SYS_fstat, fd, out);
}

PUBLIC int fstat64(int fd, struct stat64 *out) {
    return fails_for_file("fstat", fd, CALLER) ? -1 : (int)syscall(SYS_fstat, fd, out);
}

PUBLIC ssize_t read(int fd, void *to, size_t size) {
    NEXT(ssize_t (*)(int, void *, size_t), "read")
    bool armed = atomic_load(&countdown) != 0;
    return armed && fails(is_kind(fd, S_IFIFO) ? "read_pipe" : "read", CALLER) ? -1
                                                                               : real(fd, to, size);
}

PUBLIC ssize_t write(int fd, const void *from, size_t size) {
    NEXT(ssize_t (*)(int, const void *, size_t), "write")
    return fails_for_file("write_file", fd, CALLER) ? -1 : real(fd, from, size);
}

/* ---- calls with a variable number of arguments ---- */

#define MODE(flags, mode)                                                                          \
    mode_t mode = 0;                                                                               \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                         \
        va_list list;                                                                              \
        va_start(list, flags);                                                                     \
        mode = va_arg(list, mode_t);                                                               \
        va_end(list);                                                                              \
    }

#define WRAP_OPEN(name)                                                                            \
    PUBLIC int name(const char *path, int flags, ...) {                                            \
        MODE(flags, mode)                                                                          \
        return fails("open", CALLER) ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode); \
    }

#define WRAP_OPENAT(name)                                                                          \
    PUBLIC int name(int directory, const char *path, int flags, ...) {                             \
        MODE(flags, mode)                                                                          \
        return fails("open", CALLER) ? -1                                                          \
                                     : (int)syscall(SYS_openat, directory, path, flags, mode);     \
    }

WRAP_OPEN(open)
WRAP_OPEN(open64)
WRAP_OPENAT(openat)
WRAP_OPENAT(openat64)

PUBLIC int fcntl(int fd, int command, ...) {
    va_list list;
    va_start(list, command);
    long argument = va_arg(list, long);
    va_end(list);
    return command == F_SETPIPE_SZ && fails("set_pipe_size", CALLER)
               ? -1
               : (int)syscall(SYS_fcntl, fd, command, argument);
}

PUBLIC int ioctl(int fd, unsigned long request, ...) {
    va_list list;
    va_start(list, request);
    void *argument = va_arg(list, void *);
    va_end(list);
    return fails("ioctl", CALLER) ? -1 : (int)syscall(SYS_ioctl, fd, request, argument);
}

PUBLIC int clone(int (*function)(void *), void *stack, int flags, void *argument, ...) {
    NEXT(int (*)(int (*)(void *), void *, int, void *, ...), "clone")
    va_list list;
    va_start(list, argument);
    void *pidfd = va_arg(list, void *);
    va_end(list);
    return fails("clone", CALLER) ? -1 : real(function, stack, flags, argument, pidfd);
}

static const char *name_of(long number) {
    switch (number) {
    case SYS_openat:
        return "child_open";
    case SYS_renameat2:
        return "renameat2";
    case SYS_openat2:
        return "openat2";
    case SYS_close_range:
        return "close_range";
    case SYS_fcntl:
        return "child_dup";
    case SYS_dup3:
        return "dup3";
    case SYS_chdir:
        return "chdir";
    case SYS_execve:
        return "execve";
    case SYS_getdents64:
        return "getdents64";
    case SYS_prctl:
        return "prctl";
    case SYS_waitid:
        return "wait";
    case SYS_pidfd_open:
        return "pidfd_open";
    case SYS_pidfd_send_signal:
        return "pidfd_send_signal";
    default:
        return "";
    }
}

static long (*real_syscall)(long, ...);

__attribute__((constructor)) static void find_syscall(void) {
    real_syscall = (long (*)(long, ...))(uintptr_t)dlsym(RTLD_NEXT, "syscall");
}

/* The host is killed before its script's process has asked for a signal at its end. */
static void kill_parent(void) {
    const struct timespec moment = {.tv_nsec = 1000000};
    long parent = real_syscall(SYS_getppid);
    (void)real_syscall(SYS_kill, parent, SIGKILL);
    while (real_syscall(SYS_getppid) == parent) {
        (void)real_syscall(SYS_nanosleep, &moment, NULL);
    }
}

/* The first start takes 0.1 s, the next one 0.4. */
static void wait_long(int nth) {
    const struct timespec moment = {.tv_nsec = nth == 1 ? 100000000 : 400000000};
    (void)real_syscall(SYS_nanosleep, &moment, NULL);
}

/* Also in the script's process before its exec. */
PUBLIC long syscall(long number, ...) {
    va_list list;
    va_start(list, number);
    long a = va_arg(list, long), b = va_arg(list, long), c = va_arg(list, long);
    long d = va_arg(list, long), e = va_arg(list, long), f = va_arg(list, long);
    va_end(list);
    if (!real_syscall) {
        find_syscall();
    }
    bool failed = fails(name_of(number), CALLER);
    if (failed && number == SYS_waitid &&
        armed_error == ECHILD) { /* another one has waited for it */
        (void)real_syscall(number, a, b, NULL, d, NULL, 0);
        errno = ECHILD;
    }
    if (failed && number == SYS_close_range && armed_error == 0) {
        wait_long(atomic_load(&hits));
        failed = false;
    }
    if (failed && number == SYS_prctl) {
        kill_parent();
        failed = false;
    }
    return failed ? -1 : real_syscall(number, a, b, c, d, e, f);
}
