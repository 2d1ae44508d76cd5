/* spawn.c: what a started process has, what a failure leaves, and starts beside forks. */
#include "child.h"

#include <sys/resource.h>
#include <sys/syscall.h>

typedef struct {
    const char *words; /* programs, directories, arguments */
    uint32_t programs, directories, arguments;
    int stdin_fd;
    const char *cgroup_procs;
} command;

static command command_of(const char *words, uint32_t programs, uint32_t arguments) {
    return (command){.words = words,
                     .programs = programs,
                     .directories = 1,
                     .arguments = arguments,
                     .stdin_fd = open("/dev/null", O_RDONLY | O_CLOEXEC)};
}

static int spawn(as_starts *starts, const command *it, as_child *out) {
    return as_spawn(starts, it->words, it->programs, it->directories, it->arguments, 0,
                    it->stdin_fd, it->cgroup_procs, false, out);
}

/* What a script prints, up to its end. */
static size_t output_of(child *c, char *text, size_t room) {
    size_t size = 0;
    ssize_t n = 1;
    while (n > 0) {
        struct pollfd ready = {.fd = c->process.stdout_fd, .events = POLLIN};
        CHECK_EQUAL(poll(&ready, 1, 60000), 1);
        n = read(c->process.stdout_fd, text + size, room - 1 - size);
        CHECK(n >= 0);
        size += (size_t)n;
    }
    text[size] = '\0';
    child_end(c);
    return size;
}

static void on_signal(int number) { (void)number; }

/* R6: signals that the host ignores, handles or blocks are default ones, libc's own included. */
static void default_signals(void) {
    char text[4096];
    struct sigaction ignored = {.sa_handler = SIG_IGN}, handled = {.sa_handler = on_signal};
    struct {
        void (*handler)(int);
        unsigned long flags, restorer, mask;
    } raw = {.handler = SIG_IGN};
    sigset_t all, old, now;
    CHECK_EQUAL(sigaction(SIGHUP, &ignored, NULL), 0);
    CHECK_EQUAL(sigaction(SIGRTMAX, &ignored, NULL), 0);
    CHECK_EQUAL(sigaction(SIGUSR1, &handled, NULL), 0);
    CHECK_EQUAL(syscall(SYS_rt_sigaction, 32, &raw, NULL, (size_t)8), 0);
    CHECK_EQUAL(sigfillset(&all), 0);
    CHECK_EQUAL(pthread_sigmask(SIG_BLOCK, &all, &old), 0);
    child c = child_start("exec cat /proc/self/status");
    CHECK_EQUAL(pthread_sigmask(SIG_SETMASK, &old, &now), 0);
    CHECK_EQUAL(sigismember(&now, SIGTERM), 1);
    (void)output_of(&c, text, sizeof text);
    CHECK(strstr(text, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"));
    CHECK_EQUAL(signal(SIGHUP, SIG_DFL) == SIG_IGN, 1);
    CHECK_EQUAL(signal(SIGRTMAX, SIG_DFL) == SIG_IGN, 1);
    CHECK_EQUAL(signal(SIGUSR1, SIG_DFL) == on_signal, 1);
}

/* R6: a session of its own, and no descriptor but its streams. */
static void nothing_inherited(void) {
    char text[4096], expected[100];
    int leaky = open("/dev/zero", O_RDONLY); /* not O_CLOEXEC */
    child c = child_start("cut -d' ' -f5,6 /proc/$$/stat; ls /proc/$$/fd");
    int pid = c.process.pid;
    (void)snprintf(expected, sizeof expected, "%d %d\n0\n1\n2\n", pid, pid);
    size_t size = output_of(&c, text, sizeof text);
    CHECK_BYTES(text, size, expected, strlen(expected));
    as_close(&leaky);
}

/* R4: the paths are tried in turn, and argument 0 is the caller's. */
static void paths(void) {
    char text[100];
    child c = {0};
    as_starts *starts = as_starts_new();
    command it = command_of("/nowhere/cat\0/etc/passwd/cat\0/bin/cat\0/\0name\0/proc/self/cmdline",
                            3, 2);
    CHECK_EQUAL(spawn(starts, &it, &c.process), 0);
    size_t size = output_of(&c, text, sizeof text);
    CHECK_BYTES(text, size, "name\0/proc/self/cmdline", 24);
    as_close(&it.stdin_fd);
    as_starts_free(starts);
}

static void check_failure(const command *it, int error, int step) {
    as_starts *starts = as_starts_new();
    as_child out;
    int before = dup(0);
    CHECK_EQUAL(spawn(starts, it, &out), -error);
    CHECK_EQUAL(out.step, step);
    CHECK_EQUAL(waitpid(-1, NULL, WNOHANG), -1);
    int after = dup(0);
    CHECK_EQUAL(after, before + 1);
    as_close(&after);
    as_close(&before);
    as_starts_free(starts);
}

/* R6, K2: a failure is an errno and a step, and leaves neither a child nor a descriptor. */
static void failures(void) {
    command it = command_of("/nowhere/program\0/\0name", 1, 1);
    check_failure(&it, ENOENT, AS_EXECUTING);
    it.words = "/etc/passwd\0/nowhere\0/\0name";
    it.programs = 2;
    check_failure(&it, EACCES, AS_EXECUTING); /* says more than that the last one is missing */
    it.words = "/bin/true\0/nowhere\0name";
    it.programs = 1;
    check_failure(&it, ENOENT, AS_ENTERING);
    it.words = "/bin/true\0/nowhere\0/etc/passwd\0name";
    it.directories = 2;
    check_failure(&it, ENOTDIR, AS_ENTERING);
    it.cgroup_procs = "/nowhere/cgroup.procs";
    check_failure(&it, ENOENT, AS_JOINING);
    as_close(&it.stdin_fd);
    it.cgroup_procs = NULL;
    check_failure(&it, EBADF, AS_FORKING);
}

/* R6: the first directory that is there; one that is there and closed is an error. */
static void directories(void) {
    as_starts *starts = as_starts_new();
    command it = command_of("/bin/pwd\0/nowhere\0/etc/passwd\0/usr\0/\0pwd", 1, 1);
    child c = {0};
    char text[100];
    it.directories = 4;
    CHECK_EQUAL(spawn(starts, &it, &c.process), 0);
    CHECK_EQUAL(c.process.entered, 2);
    CHECK_EQUAL(output_of(&c, text, sizeof text), 5);
    CHECK(memcmp(text, "/usr\n", 5) == 0);
    as_close(&it.stdin_fd);
    as_starts_free(starts);
}

/* R3: wherever descriptors run out. */
static void no_descriptors(void) {
    command it = command_of("/bin/true\0/\0true", 1, 1);
    as_starts *starts = as_starts_new();
    as_child out = {0};
    struct rlimit old, few;
    int next = dup(0), spare = 0, result = -EMFILE;
    (void)close(next);
    CHECK_EQUAL(getrlimit(RLIMIT_NOFILE, &old), 0);
    few = old;
    for (; result < 0; spare++) {
        few.rlim_cur = (rlim_t)(next + spare);
        CHECK_EQUAL(setrlimit(RLIMIT_NOFILE, &few), 0);
        result = spawn(starts, &it, &out);
        CHECK_EQUAL(setrlimit(RLIMIT_NOFILE, &old), 0);
        CHECK(result == 0 || result == -EMFILE);
        int after = dup(0);
        CHECK(result == 0 || after == next);
        (void)close(after);
    }
    CHECK_EQUAL(spare, 6); /* four ends and a pidfd */
    child c = {.process = out};
    child_end(&c);
    as_close(&it.stdin_fd);
    as_starts_free(starts);
}

/* ---- side by side ---- */

enum { THREADS = 4, STARTS = 20 };

typedef struct {
    as_starts *starts;
    atomic_int left;
} crowd;

static void *start_often(void *crowd_pointer) {
    crowd *all = crowd_pointer;
    command it = command_of("/bin/sh\0/\0sh\0-c\0echo hello", 1, 3);
    for (int i = 0; i < STARTS; i++) {
        char text[16];
        child c = {0};
        CHECK_EQUAL(spawn(all->starts, &it, &c.process), 0);
        size_t size = output_of(&c, text, sizeof text);
        CHECK_BYTES(text, size, "hello\n", 6);
    }
    as_close(&it.stdin_fd);
    atomic_fetch_sub(&all->left, 1);
    return NULL;
}

/* K5: threads start side by side, while children are forked that live on and hold no pipe. */
static void starts_and_forks(void) {
    crowd it = {.starts = as_starts_new()};
    pthread_t threads[THREADS];
    int forked[1000], count = 0;
    atomic_init(&it.left, THREADS);
    for (int i = 0; i < THREADS; i++) {
        CHECK_EQUAL(pthread_create(&threads[i], NULL, start_often, &it), 0);
    }
    while (atomic_load(&it.left) > 0 && count < 1000) {
        CHECK_EQUAL(as_starts_hold(it.starts, 600 * AS_SECOND), 0);
        int pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            as_starts_begin_anew(it.starts);
            (void)pause();
            _exit(0);
        }
        as_starts_resume(it.starts);
        forked[count++] = pid;
    }
    for (int i = 0; i < THREADS; i++) {
        CHECK_EQUAL(pthread_join(threads[i], NULL), 0);
    }
    for (int i = 0; i < count; i++) {
        CHECK_EQUAL(kill(forked[i], SIGKILL), 0);
        CHECK_EQUAL(waitpid(forked[i], NULL, 0), forked[i]);
    }
    as_starts_free(it.starts);
    as_starts_free(NULL);
}

CHECK_MAIN(CHECK_TEST(default_signals), CHECK_TEST(nothing_inherited), CHECK_TEST(paths),
           CHECK_TEST(failures), CHECK_TEST(directories), CHECK_TEST(no_descriptors),
           CHECK_TEST(starts_and_forks))
