/* supervise.c: scripts from their start to the end of their tree and their output. */
#include "child.h"

#include <semaphore.h>
#include <sys/resource.h>
#include <sys/time.h>

/* ---- one supervised script ---- */

typedef struct {
    child script;
    as_pool *pool; /* NULL: no logger */
    pthread_t logger;
    check_buffer lines[AS_STREAMS];
    sem_t *first_line; /* posted at the first batch */
    int log_fd;
    as_logfile *log;
    as_census *census;
    as_run *run;
    as_rules rules;
    as_gate *gate;
    int cancel_fd, cgroup_fd, signal_fd;
    int64_t deadline;
    as_outcome outcome;
    as_delivery delivery;
    int interrupted;
} show;

static void *serve(void *show_pointer) {
    show *s = show_pointer;
    as_batch batch = {0};
    while (as_pool_next(s->pool, &batch) == 0) {
        if (batch.lines > 0) {
            check_append(&s->lines[batch.stream], batch.text, batch.size);
            check_append(&s->lines[batch.stream], "\n", 1);
            if (s->first_line) {
                (void)sem_post(s->first_line);
            }
        }
    }
    return NULL;
}

/* A log in a file that has no name. */
static void make_log(show *s) {
    s->log_fd = open(".", O_TMPFILE | O_RDWR | O_APPEND | O_CLOEXEC, 0600);
    CHECK(s->log_fd >= 0);
    int fd = fcntl(s->log_fd, F_DUPFD_CLOEXEC, 0);
    s->log = as_logfile_new(fd, -1, "", AS_FOREVER, 1, 1000, &(as_identity){0});
    CHECK(s->log);
}

static void prepare(show *s, const char *script, bool with_logger) {
    *s = (show){.census = as_census_new(),
                .pool = with_logger ? as_pool_new() : NULL,
                .cancel_fd = -1,
                .cgroup_fd = -1,
                .signal_fd = -1,
                .deadline = AS_FOREVER};
    make_log(s);
    s->rules = (as_rules){.pool = s->pool,
                          .census = s->census,
                          .max_line = 1000,
                          .stall_timeout = AS_FOREVER,
                          .wait_delay = AS_FOREVER,
                          .kill_delay = AS_FOREVER,
                          .stop_signal = SIGHUP};
    s->run = as_run_new(&s->rules, with_logger, AS_FOREVER);
    CHECK(s->run && s->census);
    s->script = child_start(script);
}

/* After a change of the rules. */
static void renew(show *s, int64_t flush_timeout) {
    as_run_free(s->run);
    s->run = as_run_new(&s->rules, s->pool != NULL, flush_timeout);
    CHECK(s->run);
}

static void supervise(show *s) {
    int result;
    while ((result = as_run_supervise(s->run, &s->script.process, s->log, s->gate, s->script.run_id,
                                      s->cgroup_fd, s->cancel_fd, s->signal_fd, s->deadline,
                                      &s->outcome)) == AS_INTERRUPTED) {
        s->interrupted++;
    }
    CHECK_EQUAL(result, 0);
}

static void finish(show *s) {
    if (s->pool) {
        CHECK_EQUAL(pthread_create(&s->logger, NULL, serve, s), 0);
    }
    while (as_run_finish(s->run, &s->delivery) == AS_INTERRUPTED) {
    }
    if (s->pool) {
        as_pool_close(s->pool);
        CHECK_EQUAL(pthread_join(s->logger, NULL), 0);
    }
}

static void end_show(show *s) {
    as_run_free(s->run);
    as_pool_free(s->pool);
    as_census_free(s->census);
    as_logfile_free(s->log);
    as_close(&s->log_fd);
    for (int stream = 0; stream < AS_STREAMS; stream++) {
        check_clear(&s->lines[stream]);
    }
}

static void check_log(const show *s, const char *expected) {
    char found[4096];
    ssize_t size = pread(s->log_fd, found, sizeof found, 0);
    CHECK(size >= 0);
    CHECK_BYTES(found, (size_t)size, expected, strlen(expected));
}

static void check_lines(const show *s, int stream, const char *expected) {
    CHECK_BYTES(s->lines[stream].at, s->lines[stream].size, expected, strlen(expected));
}

/* Runs a script that ends by itself; its exit code. */
static int exit_code_of(const char *script) {
    show s;
    prepare(&s, script, false);
    supervise(&s);
    finish(&s);
    CHECK_EQUAL(s.outcome.status, AS_EXITED);
    CHECK_EQUAL(s.outcome.exit_known, 1);
    CHECK_EQUAL(s.outcome.reaped, 1);
    CHECK_EQUAL(waitpid(s.script.process.pid, NULL, WNOHANG), -1);
    end_show(&s);
    return s.outcome.exit_code;
}

/* ---- scripts that end by themselves ---- */

/* L3, L5: both streams reach the file, the logger and the tail. */
static void echo(void) {
    show s;
    char tail[100];
    prepare(&s, "echo hello; echo oops >&2; printf rest", true);
    supervise(&s);
    finish(&s);
    CHECK_EQUAL(s.outcome.status, AS_EXITED);
    CHECK_EQUAL(s.outcome.exit_code, 0);
    CHECK_EQUAL(s.outcome.output_bytes, 15);
    CHECK_EQUAL(s.outcome.log_errno, 0);
    CHECK_EQUAL(s.outcome.survivor_count, 0);
    CHECK(s.outcome.max_rss >= 0 && s.outcome.cpu_ns >= 0);
    CHECK(s.outcome.ended <= as_monotonic());
    CHECK_EQUAL(s.delivery.lines, 3);
    CHECK_EQUAL(s.delivery.dropped, 0);
    check_lines(&s, 0, "hello\nrest\n");
    check_lines(&s, 1, "oops\n");
    size_t size = as_run_tail(s.run, tail, sizeof tail);
    CHECK_EQUAL(size, 16);
    CHECK(tail[size - 1] == '\n');
    CHECK_EQUAL(as_run_tail(s.run, tail, 5), 5);
    end_show(&s);
}

/* R7: exit codes as they are, signals as negative numbers. */
static void exit_codes(void) {
    CHECK_EQUAL(exit_code_of("exit 0"), 0);
    CHECK_EQUAL(exit_code_of("exit 3"), 3);
    CHECK_EQUAL(exit_code_of("exit 255"), 255);
    CHECK_EQUAL(exit_code_of("kill -9 $$"), -9);
    CHECK_EQUAL(exit_code_of("kill -TERM $$"), -15);
}

/* L3: what no logger wants is counted and written all the same. */
static void much_output(void) {
    show s;
    prepare(&s,
            "head -c 1048576 /dev/zero | tr '\\0' '\\n'; printf x; head -c 1000000 /dev/zero >&2",
            false);
    supervise(&s);
    finish(&s);
    CHECK_EQUAL(s.outcome.status, AS_EXITED);
    CHECK_EQUAL(s.outcome.output_bytes, 1048576 + 1 + 1000000);
    CHECK_EQUAL(lseek(s.log_fd, 0, SEEK_END), s.outcome.output_bytes);
    CHECK_EQUAL(s.delivery.lines, 1048576 + 2);
    end_show(&s);
}

/* L3: a log that takes no more is told of and holds up nothing. */
static void log_fails(void) {
    show s;
    int ends[2];
    CHECK(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
    prepare(&s, "echo hello", true);
    CHECK_EQUAL(pipe2(ends, O_CLOEXEC), 0);
    (void)close(ends[0]);
    as_logfile_free(s.log);
    s.log = as_logfile_new(ends[1], -1, "", AS_FOREVER, 1, 1000, &(as_identity){0});
    supervise(&s);
    finish(&s);
    CHECK_EQUAL(s.outcome.log_errno, EPIPE);
    CHECK_EQUAL(s.outcome.exit_code, 0);
    check_lines(&s, 0, "hello\n");
    end_show(&s);
}

static void *drain_pipe(void *buffer_and_fd) {
    struct {
        int fd;
        check_buffer all;
    } *drain = buffer_and_fd;
    char chunk[5000];
    for (ssize_t got; (got = read(drain->fd, chunk, sizeof chunk)) > 0;) {
        check_append(&drain->all, chunk, (size_t)got);
    }
    return NULL;
}

/* L3: a log that is a full pipe holds the script back until it is read; no byte is lost. */
static void log_is_full(void) {
    struct {
        int fd;
        check_buffer all;
    } drain = {0};
    show s;
    int ends[2];
    pthread_t reader;
    prepare(&s, "head -c 1000000 /dev/zero; echo end", false);
    CHECK_EQUAL(pipe2(ends, O_CLOEXEC), 0);
    as_logfile_free(s.log);
    s.log = as_logfile_new(ends[1], -1, "", AS_FOREVER, 1, 1000, &(as_identity){0});
    drain.fd = ends[0];
    CHECK_EQUAL(pthread_create(&reader, NULL, drain_pipe, &drain), 0);
    supervise(&s);
    finish(&s);
    CHECK_EQUAL(s.outcome.log_errno, 0);
    end_show(&s);
    CHECK_EQUAL(pthread_join(reader, NULL), 0);
    CHECK_EQUAL(drain.all.size, 1000004);
    CHECK(memcmp(drain.all.at + 1000000, "end\n", 4) == 0);
    check_clear(&drain.all);
    (void)close(ends[0]);
}

typedef struct {
    as_starts *starts;
    sem_t held, over;
} fork_that_waits;

static void *hold_starts(void *fork_pointer) {
    fork_that_waits *f = fork_pointer;
    CHECK_EQUAL(as_starts_hold(f->starts, AS_SECOND), 0);
    CHECK_EQUAL(sem_post(&f->held), 0);
    while (sem_wait(&f->over) < 0) {
    }
    as_starts_resume(f->starts);
    return NULL;
}

/* K5: wait_delay 0 is no reason to take a closed pipe for an open one, or to wait for starts, which
   here are held up. */
static void no_wait_delay(void) {
    fork_that_waits f = {.starts = as_starts_new()};
    pthread_t holder;
    CHECK_EQUAL(sem_init(&f.held, 0, 0), 0);
    CHECK_EQUAL(sem_init(&f.over, 0, 0), 0);
    CHECK_EQUAL(pthread_create(&holder, NULL, hold_starts, &f), 0);
    while (sem_wait(&f.held) < 0) {
    }
    int64_t began = as_monotonic();
    for (int i = 0; i < 100; i++) {
        show s;
        prepare(&s, "exit 0", false);
        s.rules.wait_delay = 0;
        s.rules.starts = f.starts;
        renew(&s, AS_FOREVER);
        supervise(&s);
        CHECK_EQUAL(s.outcome.status, AS_EXITED);
        finish(&s);
        end_show(&s);
    }
    CHECK(as_monotonic() - began < 60 * AS_SECOND); /* not a second each */
    CHECK_EQUAL(sem_post(&f.over), 0);
    CHECK_EQUAL(pthread_join(holder, NULL), 0);
    CHECK_EQUAL(sem_destroy(&f.held), 0);
    CHECK_EQUAL(sem_destroy(&f.over), 0);
    as_starts_free(f.starts);
}

/* K6: a host that ignores SIGCHLD: the child may be over, and gone, before supervision begins. */
static void ignored_sigchld(void) {
    show s;
    CHECK(signal(SIGCHLD, SIG_IGN) != SIG_ERR);
    prepare(&s, "echo hello; exit 3", false);
    child_wait_gone(s.script.process.pid);
    while (kill(s.script.process.pid, 0) == 0) {
        (void)sched_yield();
    }
    s.rules.wait_delay = 0;
    renew(&s, AS_FOREVER);
    supervise(&s);
    CHECK_EQUAL(s.outcome.status, AS_EXITED);
    CHECK(!s.outcome.exit_known || s.outcome.exit_code == 3); /* Linux 6.15 keeps it */
    check_log(&s, "hello\n");
    finish(&s);
    end_show(&s);

    prepare(&s, "read x; exit 3", false);
    s.deadline = as_monotonic() + 60 * AS_SECOND;
    supervise(&s);
    CHECK_EQUAL(s.outcome.status, AS_EXITED);
    CHECK_EQUAL(s.outcome.reaped, 1);
    CHECK(!s.outcome.exit_known || s.outcome.exit_code == 3);
    finish(&s);
    end_show(&s);
    CHECK(signal(SIGCHLD, SIG_DFL) != SIG_ERR);
}

typedef struct {
    int pid;
    long delay; /* nanoseconds after its exit */
} reaping;

static void *reap_soon(void *reaping_pointer) {
    const reaping *r = reaping_pointer;
    const struct timespec delay = {.tv_nsec = r->delay};
    siginfo_t info;
    if (waitid(P_PID, (id_t)r->pid, &info, WEXITED | WNOWAIT) == 0) { /* else the core was faster */
        (void)nanosleep(&delay, NULL);
        (void)waitpid(r->pid, NULL, 0);
    }
    return NULL;
}

/* K6: a host that waits for all its children may take the script's status in the middle of a sweep. */
static void reaped_during_a_sweep(void) {
    for (int i = 0; i < 40; i++) {
        show s;
        pthread_t host;
        prepare(&s, "trap 'exit 3' HUP; while :; do sleep 0.005; done", false);
        reaping r = {s.script.process.pid, i * 10000};
        CHECK_EQUAL(pthread_create(&host, NULL, reap_soon, &r), 0);
        s.deadline = as_monotonic() + 10 * AS_MILLISECOND;
        s.rules.kill_delay = 600 * AS_SECOND;
        renew(&s, AS_FOREVER);
        supervise(&s);
        finish(&s);
        CHECK_EQUAL(pthread_join(host, NULL), 0);
        CHECK_EQUAL(s.outcome.status, AS_TIMED_OUT);
        end_show(&s);
    }
}

/* ---- deadlines and cancels ---- */

/* K1: the deadline stops the script; its status and output are kept. */
static void deadline(void) {
    show s;
    prepare(&s, "trap 'echo bye; exit 5' HUP; echo $$; while :; do sleep 0.01; done", false);
    s.deadline = as_monotonic() + 200 * AS_MILLISECOND;
    supervise(&s);
    finish(&s);
    CHECK_EQUAL(s.outcome.status, AS_TIMED_OUT);
    CHECK(s.outcome.ended >= s.deadline);
    if (s.outcome.exit_code !=
        -SIGHUP) { /* so it is on a machine too busy to set the trap in time */
        CHECK_EQUAL(s.outcome.exit_code, 5);
    }
    CHECK_EQUAL(s.outcome.survivor_count, 0);
    end_show(&s);
}

/* K1: a deadline that has passed already, and a script that stopped itself. */
static void past_deadline(void) {
    show s;
    prepare(&s, "kill -STOP $$; exec sleep 600", false);
    s.deadline = 0;
    supervise(&s);
    finish(&s);
    CHECK_EQUAL(s.outcome.status, AS_TIMED_OUT);
    CHECK_EQUAL(s.outcome.exit_code, -SIGHUP);
    end_show(&s);
}

/* K5: a script that ended in time has done so, however late the call looks. */
static void ended_before_the_deadline(void) {
    for (int cancelled = 0; cancelled < 2; cancelled++) {
        show s;
        siginfo_t info;
        prepare(&s, "exit 3", false);
        CHECK_EQUAL(waitid(P_PID, (id_t)s.script.process.pid, &info, WEXITED | WNOWAIT), 0);
        if (cancelled) {
            as_run_cancel(s.run, AS_CANCEL_STOP);
        } else {
            s.deadline = 0;
        }
        supervise(&s);
        finish(&s);
        CHECK_EQUAL(s.outcome.status, AS_EXITED);
        CHECK_EQUAL(s.outcome.exit_code, 3);
        end_show(&s);
    }
}

typedef struct {
    show *s;
    sem_t ready;
    int how;
} canceller;

static void *cancel_when_ready(void *canceller_pointer) {
    canceller *c = canceller_pointer;
    char line[100] = "";
    size_t length = 0;
    do {
        (void)sched_yield();
        (void)as_run_snapshot(c->s->run, line, sizeof line, &length);
    } while (length == 0);
    as_run_cancel(c->s->run, c->how);
    return NULL;
}

/* Cancels a script once it has printed a line. */
static void supervise_and_cancel(show *s, int how) {
    canceller c = {.s = s, .how = how};
    pthread_t thread;
    CHECK_EQUAL(pthread_create(&thread, NULL, cancel_when_ready, &c), 0);
    supervise(s);
    CHECK_EQUAL(pthread_join(thread, NULL), 0);
    CHECK_EQUAL(s->outcome.status, AS_CANCELLED);
    CHECK_EQUAL(s->outcome.survivor_count, 0);
}

/* The number in the log's last line. */
static int logged_number(const show *s) {
    char text[100] = "";
    CHECK(pread(s->log_fd, text, sizeof text - 1, 0) > 0);
    return atoi(text);
}

/* K1: a cancel from another thread is the stop signal. */
static void cancel(void) {
    show s;
    prepare(&s, "trap 'exit 4' HUP; echo 1; while :; do sleep 0.01; done", false);
    supervise_and_cancel(&s, AS_CANCEL_STOP);
    finish(&s);
    CHECK_EQUAL(s.outcome.exit_code, 4);
    end_show(&s);
}

/* K1, K2: what ignores the stop signal is killed after kill_delay, in a session of its own too. */
static void stubborn_child(void) {
    show s;
    prepare(&s, "trap '' HUP TERM; setsid sh -c 'echo $$; exec sleep 600' & exec sleep 600", false);
    s.rules.kill_delay = 50 * AS_MILLISECOND;
    renew(&s, AS_FOREVER);
    supervise_and_cancel(&s, AS_CANCEL_STOP);
    CHECK_EQUAL(s.outcome.exit_code, -SIGKILL);
    CHECK(child_is_gone(logged_number(&s)));
    finish(&s);
    end_show(&s);
}

/* K1: a second cancel kills at once, whatever kill_delay is. */
static void kill_at_once(void) {
    show s;
    prepare(&s, "trap '' HUP TERM; (setsid sh -c 'echo $$; exec sleep 600' &); exec sleep 600",
            false);
    supervise_and_cancel(&s, AS_CANCEL_KILL);
    CHECK_EQUAL(s.outcome.exit_code, -SIGKILL);
    CHECK(child_is_gone(logged_number(&s)));
    finish(&s);
    end_show(&s);
}

/* K1: who asks for less later does not take that back. */
static void kill_stays_kill(void) {
    show s;
    prepare(&s, "trap '' HUP; echo up; exec sleep 600", false);
    struct pollfd up = as_pollfd(s.script.process.stdout_fd, POLLIN);
    CHECK_EQUAL(poll(&up, 1, -1), 1);
    as_run_cancel(s.run, AS_CANCEL_KILL);
    as_run_cancel(s.run, AS_CANCEL_STOP);
    supervise(&s);
    CHECK_EQUAL(s.outcome.status, AS_CANCELLED);
    CHECK_EQUAL(s.outcome.exit_code, -SIGKILL);
    finish(&s);
    end_show(&s);
}

/* K1: a token's descriptor cancels too, and stays as it was. */
static void cancel_descriptor(void) {
    show s;
    int ends[2];
    prepare(&s, "exec sleep 600", false);
    CHECK_EQUAL(pipe2(ends, O_CLOEXEC), 0);
    CHECK_EQUAL(write(ends[1], "x", 1), 1);
    s.cancel_fd = ends[0];
    supervise(&s);
    CHECK_EQUAL(s.outcome.status, AS_CANCELLED);
    CHECK_EQUAL(s.outcome.exit_code, -SIGHUP);
    finish(&s);
    end_show(&s);
    struct pollfd still = {.fd = ends[0], .events = POLLIN};
    CHECK_EQUAL(poll(&still, 1, 0), 1);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

typedef struct {
    int pidfd;
    struct rlimit limit;
} restorer;

static void *restore_when_gone(void *restorer_pointer) {
    const restorer *r = restorer_pointer;
    struct pollfd gone = {.fd = r->pidfd, .events = POLLIN};
    CHECK_EQUAL(poll(&gone, 1, 60000), 1);
    CHECK_EQUAL(setrlimit(RLIMIT_NOFILE, &r->limit), 0);
    return NULL;
}

/* K1, R3: while descriptors are short the tree is not taken for gone; its stop signal comes later. */
static void cancel_without_descriptors(void) {
    show s;
    restorer r;
    pthread_t thread;
    prepare(&s, "(setsid sh -c 'echo $$; exec sleep 600' &); exec sleep 600", false);
    int pid = child_read_number(&s.script);
    r.pidfd = as_pidfd_open(s.script.process.pid);
    int next = dup(0);
    CHECK(r.pidfd >= 0 && next >= 0);
    (void)close(next);
    CHECK_EQUAL(getrlimit(RLIMIT_NOFILE, &r.limit), 0);
    CHECK_EQUAL(pthread_create(&thread, NULL, restore_when_gone, &r), 0);
    struct rlimit few = r.limit;
    few.rlim_cur = (rlim_t)next;
    CHECK_EQUAL(setrlimit(RLIMIT_NOFILE, &few), 0);
    as_run_cancel(s.run, AS_CANCEL_STOP);
    supervise(&s);
    CHECK_EQUAL(pthread_join(thread, NULL), 0);
    CHECK_EQUAL(s.outcome.status, AS_CANCELLED);
    CHECK(child_is_gone(pid));
    as_close(&r.pidfd);
    finish(&s);
    end_show(&s);
}

/* ---- pipes that stay open ---- */

/* K5: a background process that holds the pipes ends the run after wait_delay, and lives on. */
static void pipes_open(void) {
    show s;
    prepare(&s, "sleep 600 & echo $!", true);
    s.rules.wait_delay = 50 * AS_MILLISECOND;
    renew(&s, AS_FOREVER);
    s.deadline = as_monotonic() + 600 * AS_SECOND;
    supervise(&s);
    CHECK_EQUAL(s.outcome.status, AS_PIPES_OPEN);
    CHECK_EQUAL(s.outcome.exit_code, 0);
    int pid = logged_number(&s);
    CHECK(!child_is_gone(pid));
    CHECK_EQUAL(as_run_note(s.run, s.log, "note\n", 5), 0);
    finish(&s);
    CHECK_EQUAL(s.delivery.lines, 1);
    check_lines(&s, 2, "note\n");
    CHECK_EQUAL(kill(pid, SIGKILL), 0);
    end_show(&s);
}

/* K5: a process that redirected its output is no reason to wait. */
static void redirected(void) {
    show s;
    prepare(&s, "sleep 600 >/dev/null 2>&1 & echo $!", false);
    supervise(&s);
    CHECK_EQUAL(s.outcome.status, AS_EXITED);
    CHECK_EQUAL(kill(logged_number(&s), SIGKILL), 0);
    finish(&s);
    end_show(&s);
}

/* K5: what is in the pipe when the wait ends is recorded, more is not waited for. */
static void endless_writer(void) {
    show s;
    prepare(&s, "echo $$; (exec yes) & exit 0", false);
    s.rules.wait_delay = 20 * AS_MILLISECOND;
    renew(&s, AS_FOREVER);
    supervise(&s);
    CHECK_EQUAL(s.outcome.status, AS_PIPES_OPEN);
    finish(&s); /* closes the pipes: the next write ends the writer */
    CHECK_EQUAL(lseek(s.log_fd, 0, SEEK_END), s.outcome.output_bytes);
    end_show(&s);
}

/* L3: a note begins a line of its own in the file. */
static void note_after_unfinished_line(void) {
    show s;
    prepare(&s, "printf unfinished", true);
    supervise(&s);
    CHECK_EQUAL(as_run_note(s.run, s.log, "note\n", 5), 0);
    finish(&s);
    check_log(&s, "unfinished\nnote\n");
    check_lines(&s, 0, "unfinished\n");
    check_lines(&s, 2, "note\n");
    end_show(&s);
}

/* ---- signals, permits, failures ---- */

static void on_alarm(int number) { (void)number; }

/* R8: each signal brings control back, and the call goes on where it was. */
static void interrupted(void) {
    show s;
    struct itimerval often = {{0, 5000}, {0, 5000}}, never = {0};
    struct sigaction action = {.sa_handler = on_alarm};
    CHECK_EQUAL(sigaction(SIGALRM, &action, NULL), 0);
    prepare(&s, "echo one; sleep 0.2; echo two", true);
    CHECK_EQUAL(setitimer(ITIMER_REAL, &often, NULL), 0);
    supervise(&s);
    finish(&s);
    CHECK_EQUAL(setitimer(ITIMER_REAL, &never, NULL), 0);
    CHECK(s.interrupted > 0);
    CHECK_EQUAL(s.outcome.exit_code, 0);
    check_lines(&s, 0, "one\ntwo\n");
    check_log(&s, "one\ntwo\n");
    end_show(&s);
}

/* The permit comes back during a script that takes its time, or is kept to its end. */
static void permits(void) {
    for (int quick = 0; quick < 2; quick++) {
        show s;
        as_gate *gate = as_gate_new(1);
        CHECK_EQUAL(as_gate_acquire(gate, 0), 0);
        prepare(&s, quick ? "exit 0" : "exec sleep 0.1", false);
        s.gate = gate;
        if (quick) {
            child_wait_gone(s.script.process.pid);
        }
        supervise(&s);
        CHECK_EQUAL(as_gate_acquire(gate, 0), quick ? AS_TIMEOUT : 0);
        finish(&s);
        CHECK_EQUAL(s.delivery.kept_permit, quick);
        end_show(&s);
        as_gate_free(gate);
    }
}

/* A permit does not stay with a run that waits for the end of a background process. */
static void permit_of_open_pipes(void) {
    show s;
    as_gate *gate = as_gate_new(1);
    CHECK_EQUAL(as_gate_acquire(gate, 0), 0);
    prepare(&s, "sleep 0.1 & exit 0", false);
    s.gate = gate;
    child_wait_gone(s.script.process.pid);
    supervise(&s);
    CHECK_EQUAL(s.outcome.status, AS_EXITED);
    CHECK_EQUAL(as_gate_acquire(gate, 0), 0);
    finish(&s);
    CHECK_EQUAL(s.delivery.kept_permit, 0);
    end_show(&s);
    as_gate_free(gate);
}

static void *serve_with_permit(void *show_pointer) {
    show *s = show_pointer;
    CHECK_EQUAL(as_gate_acquire(s->gate, 30 * AS_SECOND), 0);
    return serve(s);
}

/* L6: nor with one that waits for its logger: this one takes nothing until it has the permit. */
static void permit_of_slow_logger(void) {
    show s;
    as_gate *gate = as_gate_new(1);
    CHECK_EQUAL(as_gate_acquire(gate, 0), 0);
    prepare(&s, "echo one", true);
    s.gate = gate;
    supervise(&s);
    CHECK_EQUAL(pthread_create(&s.logger, NULL, serve_with_permit, &s), 0);
    while (as_run_finish(s.run, &s.delivery) == AS_INTERRUPTED) {
    }
    CHECK_EQUAL(s.delivery.kept_permit, 0);
    as_pool_close(s.pool);
    CHECK_EQUAL(pthread_join(s.logger, NULL), 0);
    check_lines(&s, 0, "one\n");
    end_show(&s);
    as_gate_free(gate);
}

/* L6, K1: a logger that is stuck for ever does not keep the deadline from its work, and the rest is
   given up after flush_timeout. */
static void stuck_logger(void) {
    show s;
    as_batch held = {0};
    prepare(&s, "echo first; exec yes", true);
    s.rules.stall_timeout = 20 * AS_MILLISECOND;
    renew(&s, 20 * AS_MILLISECOND);
    s.deadline = as_monotonic() + 300 * AS_MILLISECOND;
    supervise(&s);
    CHECK_EQUAL(as_pool_next(s.pool, &held), 0);
    CHECK_EQUAL(as_run_finish(s.run, &s.delivery), 0);
    CHECK_EQUAL(s.outcome.status, AS_TIMED_OUT);
    CHECK(s.delivery.dropped > 0 && s.delivery.lines > s.delivery.dropped);
    CHECK_EQUAL(lseek(s.log_fd, 0, SEEK_END), s.outcome.output_bytes);
    as_pool_close(s.pool);
    CHECK_EQUAL(as_pool_next(s.pool, &held), AS_CLOSED);
    end_show(&s);
}

static int open_descriptors(void) {
    int count = 0;
    for (int fd = 0; fd < 1024; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

static void *run_some(void *unused) {
    (void)unused;
    for (int i = 0; i < 20; i++) {
        CHECK_EQUAL(exit_code_of("echo $$; exit 2"), 2);
    }
    return NULL;
}

/* S2: many runs side by side leave no descriptor. */
static void side_by_side(void) {
    pthread_t threads[8];
    int before = open_descriptors();
    for (int i = 0; i < 8; i++) {
        CHECK_EQUAL(pthread_create(&threads[i], NULL, run_some, NULL), 0);
    }
    for (int i = 0; i < 8; i++) {
        CHECK_EQUAL(pthread_join(threads[i], NULL), 0);
    }
    CHECK_EQUAL(open_descriptors(), before);
}

CHECK_MAIN(CHECK_TEST(echo), CHECK_TEST(exit_codes), CHECK_TEST(much_output), CHECK_TEST(log_fails),
           CHECK_TEST(log_is_full), CHECK_TEST(no_wait_delay), CHECK_TEST(ignored_sigchld),
           CHECK_TEST(reaped_during_a_sweep), CHECK_TEST(deadline), CHECK_TEST(past_deadline),
           CHECK_TEST(ended_before_the_deadline), CHECK_TEST(cancel), CHECK_TEST(stubborn_child),
           CHECK_TEST(kill_at_once), CHECK_TEST(kill_stays_kill), CHECK_TEST(cancel_descriptor),
           CHECK_TEST(cancel_without_descriptors), CHECK_TEST(pipes_open), CHECK_TEST(redirected),
           CHECK_TEST(endless_writer), CHECK_TEST(note_after_unfinished_line),
           CHECK_TEST(interrupted), CHECK_TEST(permits), CHECK_TEST(permit_of_open_pipes),
           CHECK_TEST(permit_of_slow_logger), CHECK_TEST(stuck_logger), CHECK_TEST(side_by_side))
