/*
 * tree.c: makes a tree of processes from a description, and bystanders that get no signal.
 *
 *   tree FIFO PROGRAM     all of them have FIFO open to write, so it has a writer as long as one lives;
 *                         each does one character of PROGRAM after the other:
 *     (...)  a child does what is between; the process itself goes on after it
 *     D      goes on in a child and ends: a double fork in "(D...)"
 *     s g    a session, a process group of its own
 *     i      ignores the signals that ask to end
 *     h      when asked to end, goes on in a child that ignores that, and ends
 *     e      executes itself
 *     o      writes its number
 *     T      goes on in another thread, its first one ends
 *     pN     pauses for N times 5 ms
 *     z x    stops itself, ends
 *     fN bN  for ever, each N ms: goes on in a child and ends; has a child that ends at once
 *     mN     as long as N times 0.1 s, gets no signal; status 0 when it and its children did not
 *     its end, or ")": sleeps
 *   tree nursery PERIOD   a child each PERIOD µs that must not get a signal; till stdin's end
 *   tree init COMMAND...  executes it, adopts and reaps its orphans, ends with its status
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LIFE 60 /* seconds after which all is over, whatever was missed */

static const char *fifo;
static const int asking[] = {SIGHUP, SIGTERM, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2};

static void pause_for(long microseconds) {
    struct timespec left = {.tv_sec = microseconds / 1000000,
                            .tv_nsec = microseconds % 1000000 * 1000};
    while (nanosleep(&left, &left) < 0 && errno == EINTR) {
    }
}

static void ask(void (*handler)(int)) {
    for (size_t i = 0; i < sizeof asking / sizeof *asking; i++) {
        (void)signal(asking[i], handler);
    }
}

/* Where there is no number left for a child the parent goes on alone. */
static pid_t fork_or_not(void) {
    pid_t pid = fork();
    if (pid == 0) {
        alarm(LIFE);
    }
    return pid;
}

static void go_on_in_a_child(void) {
    if (fork_or_not() > 0) {
        _exit(0);
    }
}

static void on_asked(int signal) {
    (void)signal;
    ask(SIG_IGN);
    go_on_in_a_child();
}

static const char *end_of(const char *p) {
    for (int depth = 0; *p && (*p != ')' || depth > 0); p++) {
        depth += (*p == '(') - (*p == ')');
    }
    return p;
}

static void execute(const char *p) {
    char rest[4096], path[4096];
    (void)snprintf(rest, sizeof rest, "%.*s", (int)(end_of(p) - p), p);
    ssize_t size = readlink("/proc/self/exe", path, sizeof path - 1);
    path[size > 0 ? size : 0] = 0;
    char *arguments[] = {(char *)"tree", (char *)fifo, rest, NULL};
    execv(path, arguments);
    _exit(127);
}

/* ---- those that must not get a signal ---- */

static void block_all(void) {
    sigset_t all;
    sigfillset(&all);
    (void)sigprocmask(SIG_SETMASK, &all, NULL);
}

/* Reports the signals that came; returns whether there was one. */
static bool got_signal(const char *who) {
    sigset_t pending;
    bool got = false;
    (void)sigpending(&pending);
    for (int signal = 1; signal < NSIG; signal++) {
        if (signal != SIGCHLD && signal != SIGALRM && sigismember(&pending, signal) == 1) {
            (void)dprintf(2, "%s %d got signal %d\n", who, getpid(), signal);
            got = true;
        }
    }
    return got;
}

/* Waits for a child, or with WNOHANG for one that has changed; returns whether it fared badly. */
static bool fared_badly(const char *who, int options, bool *none) {
    siginfo_t info = {0};
    *none = waitid(P_ALL, 0, &info, WEXITED | WSTOPPED | WCONTINUED | options) < 0 ||
            info.si_pid == 0;
    if (*none || (info.si_code == CLD_EXITED && info.si_status == 0)) {
        return false;
    }
    (void)dprintf(2, "%s %d: code %d, status %d\n", who, info.si_pid, info.si_code, info.si_status);
    return true;
}

static bool wait_for_all(const char *who, int options) {
    bool bad = false;
    for (bool none = false; !none;) {
        bad |= fared_badly(who, options, &none);
    }
    return bad;
}

static void be_left_alone(long microseconds) {
    block_all();
    pause_for(microseconds);
    bool bad = wait_for_all("peaceful child", 0);
    _exit(got_signal("peaceful process") || bad);
}

static int nursery(long period) {
    unsigned long born = 0;
    bool bad = false;
    block_all();
    for (struct pollfd stdin_end = {.fd = 0, .events = POLLIN}; poll(&stdin_end, 1, 0) == 0;) {
        born++;
        pid_t pid = fork();
        if (pid == 0) {
            alarm(LIFE);
            if (born % 3 == 0) {
                (void)setsid();
            }
            if (born % 2 == 0 && fork() == 0) { /* whose parent may have an old number */
                be_left_alone(born % 8 == 0 ? 50000 : 3000);
            }
            be_left_alone(born % 16 == 0 ? 400000 : 5000);
        }
        pause_for(period);
        bad |= wait_for_all("bystander", WNOHANG);
    }
    bad |= wait_for_all("bystander", 0);
    bad |= got_signal("nursery");
    (void)printf("%lu\n", born);
    return bad;
}

static int init(char **command) {
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    pid_t child = fork();
    if (child == 0) {
        execvp(command[0], command);
        _exit(127);
    }
    for (int status;;) {
        pid_t ended = wait(&status);
        if (ended == child || (ended < 0 && errno != EINTR)) {
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        }
    }
}

/* ---- a tree's process ---- */

static void perform(const char *p);

static void *in_thread(void *p) {
    perform(p);
    return NULL;
}

static long number(const char **p) { return *++*p - '0'; }

static void perform(const char *p) {
    pthread_t thread;
    for (; *p && *p != ')'; p++) {
        switch (*p) {
        case '(':
            if (fork_or_not() != 0) {
                p = end_of(p + 1);
            }
            break;
        case 'D':
            go_on_in_a_child();
            break;
        case 's':
            (void)setsid();
            break;
        case 'g':
            (void)setpgid(0, 0);
            break;
        case 'i':
            ask(SIG_IGN);
            break;
        case 'h':
            ask(on_asked);
            break;
        case 'e':
            execute(p + 1);
            break;
        case 'o':
            (void)dprintf(1, "%d\n", getpid());
            break;
        case 'T':
            if (pthread_create(&thread, NULL, in_thread, (void *)(p + 1)) == 0) {
                pthread_exit(NULL);
            }
            break;
        case 'p':
            pause_for(number(&p) * 5000);
            break;
        case 'z':
            (void)raise(SIGSTOP);
            break;
        case 'x':
            _exit(0);
        case 'f':
            for (long n = number(&p), rounds = 0; rounds < LIFE * 1000 / n; rounds++) {
                go_on_in_a_child();
                pause_for(n * 1000);
            }
            _exit(0);
        case 'b':
            (void)signal(SIGCHLD, SIG_IGN);
            for (long n = number(&p);; pause_for(n * 1000)) {
                if (fork() == 0) {
                    _exit(0);
                }
            }
        case 'm':
            be_left_alone(number(&p) * 100000);
            break;
        default:
            (void)dprintf(2, "no action is called %c\n", *p);
            _exit(2);
        }
    }
    for (;;) {
        (void)pause();
    }
}

int main(int count, char **argument) {
    if (count > 2 && strcmp(argument[1], "init") == 0) {
        return init(argument + 2);
    }
    if (count == 3 && strcmp(argument[1], "nursery") == 0) {
        return nursery(atol(argument[2]));
    }
    if (count != 3) {
        return 2;
    }
    fifo = argument[1];
    if (open(fifo, O_WRONLY | O_NONBLOCK) < 0) { /* across an exec, too */
        return 3;
    }
    alarm(LIFE);
    perform(argument[2]);
}
