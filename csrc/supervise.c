/*
 * supervise.c: one call for a script's whole life, without the GIL (K1-K7).
 *
 *   phase     until                                      then
 *   RUNNING   the leader exits                           LINGERING
 *             the deadline, or a cancel                  STOPPING (stop signal to the tree)
 *   LINGERING the pipes are at their end                 DRAINING: exited
 *             wait_delay, or a cancel                    DRAINING: pipes open
 *   STOPPING  the tree is gone                           DRAINING: timed out, or cancelled
 *             kill_delay                                 KILLING (SIGKILL to the tree)
 *   KILLING   the tree is gone, or one second            DRAINING
 *   DRAINING  the pipes hold nothing more                ENDED
 *
 * One poll covers output, exit, cancel, deadlines and room in the queue.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SMALL_READ 4096
#define LARGE_READ ((size_t)128 * 1024)
#define BUSY_READ 32768 /* a read of this size earns a pipe of BUSY_PIPE */
#define BUSY_PIPE (1024 * 1024)
#define KEEP_PERMIT (2 * AS_MILLISECOND)
#define GRACE (AS_SECOND / 2000) /* most processes obey within it: then one scan is enough */
#define KILL_AGAIN (5 * AS_MILLISECOND)
#define LOOK_AGAIN (50 * AS_MILLISECOND)

enum phase { NEW, RUNNING, LINGERING, STOPPING, KILLING, DRAINING, ENDED };

typedef struct {
    int fd;          /* open until as_run_finish: who holds its other end is asked before */
    bool ended;      /* nothing more is read */
    bool hung_up;    /* no writer is left */
    bool busy;       /* the last read filled its buffer */
    bool large;      /* the pipe has its large size */
    size_t to_drain; /* DRAINING: more than the pipe held comes from a writer that lives on */
} stream;

struct as_run {
    _Atomic int references;
    _Atomic int cancel;
    _Atomic int state;
    int wake; /* an eventfd: cancelled, room in the queue, delivered */
    bool has_logger;
    as_limits limits;
    as_queue queue;
    pthread_mutex_t tail_lock; /* guards tail */
    as_tail tail;

    /* All below belongs to the thread in as_run_supervise. */
    as_job job;
    enum phase phase;
    stream streams[2];
    int pidfd;
    bool exited, has_permit, kill_now;
    as_tree tree;
    bool swept; /* the stop signal has been sent to the whole tree */
    bool tree_gone;
    int64_t began, phase_end, next_sweep;
    int64_t room_deadline; /* the queue is full until then; 0: it is not */
    char *scratch;         /* LARGE_READ, for bytes that no queue takes */
    char *log_rest;        /* what the log's target had no room for */
    size_t log_rest_size, log_rest_room;
    int64_t log_deadline; /* when to drop log_rest */
    bool log_stuck;
    int64_t counted_lines; /* where no logger is */
    bool in_line[2];
    bool finished;
    as_ends *errors; /* stderr's first and last lines; NULL before the first */
    as_outcome outcome;
};

/* ---- a run's making and end ---- */

as_run *as_run_new(as_pool *pool, const as_limits *limits) {
    as_run *run = calloc(1, sizeof *run);
    if (!run) {
        return NULL;
    }
    run->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int error = run->wake < 0 ? errno : pthread_mutex_init(&run->tail_lock, NULL);
    if (error != 0) {
        as_close(&run->wake);
        free(run);
        errno = error;
        return NULL;
    }
    run->references = 1;
    run->limits = *limits;
    run->has_logger = pool != NULL;
    run->job.signal_fd = -1;
    run->pidfd = run->streams[0].fd = run->streams[1].fd = -1;
    if (pool) {
        as_queue_init(&run->queue, pool, run, run->wake, limits);
    }
    return run;
}

static void close_descriptors(as_run *run) {
    as_close(&run->streams[0].fd);
    as_close(&run->streams[1].fd);
    as_close(&run->pidfd);
    as_tree_free(&run->tree);
}

void as_run_retain(as_run *run) { atomic_fetch_add(&run->references, 1); }

void as_run_release(as_run *run) {
    if (atomic_fetch_sub(&run->references, 1) != 1) {
        return;
    }
    close_descriptors(run);
    as_close(&run->wake);
    as_queue_free(&run->queue);
    as_tail_free(&run->tail);
    (void)pthread_mutex_destroy(&run->tail_lock);
    free(run->scratch);
    free(run->log_rest);
    free(run->errors);
    free(run);
}

void as_run_free(as_run *run) {
    if (run) {
        as_run_release(run);
    }
}

as_queue *as_run_queue(as_run *run) { return &run->queue; }

void as_run_cancel(as_run *run, int how) {
    int now = atomic_load(&run->cancel);
    while (now < how && !atomic_compare_exchange_weak(&run->cancel, &now, how)) {
    }
    as_wake(run->wake);
}

int as_run_snapshot(as_run *run, char *line, size_t size, size_t *length) {
    const char *text;
    pthread_mutex_lock(&run->tail_lock);
    *length = as_tail_lines(&run->tail, 1, &text);
    *length = *length < size ? *length : size;
    memcpy(line, text, *length);
    pthread_mutex_unlock(&run->tail_lock);
    return atomic_load(&run->state);
}

size_t as_run_tail(as_run *run, char *out, size_t size) {
    const char *text;
    pthread_mutex_lock(&run->tail_lock);
    size_t length = as_tail_lines(&run->tail, AS_TAIL_LINES, &text);
    if (length > size) {
        text += length - size;
        length = size;
    }
    memcpy(out, text, length);
    pthread_mutex_unlock(&run->tail_lock);
    return length;
}

_Static_assert(AS_STDERR_SIZE == 2 * AS_ENDS_LINES * (AS_ENDS_BYTES + 1), "room for all lines");

int64_t as_run_stderr(const as_run *run, char *text, size_t *size) {
    return as_ends_copy(run->errors, text, size);
}

/* ---- output ---- */

static void log_failed(as_run *run, int error) {
    if (error && !run->outcome.log_errno) {
        run->outcome.log_errno = error;
    }
}

/* Keeps what a full pipe or terminal did not take; the script is held back until it is gone. */
static void keep_for_log(as_run *run, const char *p, size_t n, int64_t now) {
    if (n > run->log_rest_room) {
        char *larger = realloc(run->log_rest, n);
        if (!larger) {
            log_failed(run, ENOMEM);
            return;
        }
        run->log_rest = larger;
        run->log_rest_room = n;
    }
    /* p may be in log_rest: then n is no more than its room, and it was not moved. */
    memmove(run->log_rest, p, n); /* NOLINT(clang-analyzer-unix.Malloc) */
    run->log_rest_size = n;
    run->log_deadline = as_after(now, run->limits.stall_timeout);
    if (run->phase == DRAINING) {
        run->log_deadline = as_earlier(run->log_deadline, as_after(now, run->limits.flush_timeout));
    }
}

static void write_log(as_run *run, const char *p, size_t n, int64_t now) {
    int error = 0;
    size_t done = as_logfile_write(run->job.log, p, n, &error);
    log_failed(run, error);
    if (done > 0) {
        run->log_stuck = false;
    }
    if (done < n && run->log_stuck) {
        log_failed(run, EAGAIN);
    } else if (done < n) {
        keep_for_log(run, p + done, n - done, now);
    }
}

static void retry_log(as_run *run, int64_t now) {
    size_t n = run->log_rest_size;
    run->log_rest_size = 0;
    if (run->log_deadline != AS_FOREVER && now >= run->log_deadline) {
        run->log_stuck = true;
    }
    write_log(run, run->log_rest, n, now);
}

/* Records bytes that were read: they lie in the queue already when `queued`. */
static void record(as_run *run, int index, const char *p, size_t n, bool queued, int64_t now) {
    run->outcome.output_bytes += (int64_t)n;
    pthread_mutex_lock(&run->tail_lock);
    as_tail_push(&run->tail, index, p, n);
    pthread_mutex_unlock(&run->tail_lock);
    if (index == 1) {
        as_ends_push(&run->errors, p, n);
    }
    write_log(run, p, n, now);
    run->in_line[index] = p[n - 1] != '\n';
    if (queued) {
        as_queue_commit(&run->queue, index, n);
    } else if (run->has_logger) {
        as_queue_drop(&run->queue, index, p, n);
    } else {
        run->counted_lines += (int64_t)as_lines_count(p, n);
    }
}

/* The queue has no room, or no room in time: NULL and what to do. */
static char *queue_place(as_run *run, int index, size_t *size, bool *drop, int64_t now) {
    bool ended = run->phase == DRAINING;
    char *place = as_queue_reserve(&run->queue, index, ended, size, &run->room_deadline);
    *drop = !place && run->room_deadline != AS_FOREVER && now >= run->room_deadline;
    if (place || *drop) {
        run->room_deadline = 0;
    }
    return place;
}

/* One read of a stream that is readable. A script's first bytes, and those of a quiet one whose lines
   nobody wants, go by way of the stack: most scripts never make a buffer. */
static void read_stream(as_run *run, int index, int64_t now) {
    stream *s = &run->streams[index];
    char small[SMALL_READ], *place = small;
    size_t size = sizeof small;
    bool queued = false, drop = !run->has_logger, first = run->outcome.output_bytes == 0;
    if (run->has_logger && !first) {
        place = queue_place(run, index, &size, &drop, now);
        queued = place != NULL;
        if (!queued && !drop) {
            return;
        }
    }
    if (drop && (s->busy || !place)) {
        run->scratch = run->scratch ? run->scratch : malloc(LARGE_READ);
    }
    if (drop && (s->busy || !place) && run->scratch) {
        place = run->scratch;
        size = LARGE_READ;
    }
    place = place ? place : small;
    size = size < LARGE_READ ? size : LARGE_READ;
    ssize_t got = read(s->fd, place, size);
    if (got <= 0) {
        bool empty = errno == EAGAIN;
        s->ended = got == 0 || (empty ? run->phase == DRAINING : errno != EINTR);
        return;
    }
    size_t n = (size_t)got;
    if (first && run->has_logger) {
        char *copy = queue_place(run, index, &size, &drop, now);
        queued = copy != NULL;
        place = copy ? memcpy(copy, place, n) : place;
    }
    record(run, index, place, n, queued, now);
    s->busy = n == size || n >= BUSY_READ;
    if (n >= BUSY_READ && !s->large) {
        /* Fails where the user has no pipe pages left: then it stays as it is. */
        (void)fcntl(s->fd, F_SETPIPE_SZ, BUSY_PIPE);
        s->large = true;
    }
    if (run->phase == DRAINING) {
        s->to_drain -= n < s->to_drain ? n : s->to_drain;
        s->ended = s->to_drain == 0;
    }
}

/* ---- the phases ---- */

static bool at_end(const as_run *run) {
    return run->streams[0].ended && run->streams[1].ended && run->log_rest_size == 0;
}

static void set_phase(as_run *run, enum phase phase, int64_t now, int64_t duration) {
    run->phase = phase;
    run->phase_end = as_after(now, duration);
    run->next_sweep = AS_FOREVER;
}

static void drain(as_run *run, int status, int64_t now) {
    run->outcome.status = status;
    run->outcome.ended = now;
    for (int i = 0; i < 2; i++) {
        stream *s = &run->streams[i];
        int size = s->hung_up ? -1 : fcntl(s->fd, F_GETPIPE_SZ);
        s->to_drain = size < 0 ? SIZE_MAX : (size_t)size;
    }
    set_phase(run, DRAINING, now, AS_FOREVER);
    run->room_deadline = 0; /* flush_timeout may come before it, here and for the log */
    if (run->log_rest_size) {
        run->log_deadline = as_earlier(run->log_deadline, as_after(now, run->limits.flush_timeout));
    }
    atomic_store(&run->state, AS_DELIVERING);
}

static void stop(as_run *run, int status, int64_t now) {
    run->outcome.status = status;
    atomic_store(&run->state, AS_STOPPING);
    as_tree_begin(&run->tree, run->job.census, run->job.child.pid, run->pidfd, run->job.cgroup_fd,
                  run->job.run_id);
    as_tree_signal_group(&run->tree, run->job.stop_signal);
    as_tree_signal_group(&run->tree, SIGCONT); /* a stopped process must get it too */
    set_phase(run, STOPPING, now, run->kill_now ? 0 : run->job.kill_delay);
    run->next_sweep = as_after(now, GRACE);
}

static void kill_cgroup(const as_run *run) {
    int fd = run->job.cgroup_fd < 0
                 ? -1
                 : openat(run->job.cgroup_fd, "cgroup.kill", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t written = write(fd, "1", 1); /* Linux 5.14; the sweep kills them too */
        (void)written;
        as_close(&fd);
    }
}

static bool all_watched(const as_tree *tree) {
    for (size_t i = 0; i < tree->count; i++) {
        if (tree->members[i].pidfd < 0) {
            return false;
        }
    }
    return true;
}

/* Only the first sweep sends the stop signal: what a trap starts later, to clean up, is left alone
   until SIGKILL. */
static void sweep(as_run *run, int64_t now) {
    bool killing = run->phase == KILLING;
    int signal = killing ? SIGKILL : run->swept ? 0 : run->job.stop_signal;
    if (killing) {
        kill_cgroup(run);
    }
    bool conclusive = run->exited; /* else the leader may fork behind the scan's back */
    int alive = as_tree_sweep(&run->tree, signal);
    run->swept = run->swept || (alive >= 0 && !run->tree.untold);
    run->tree_gone = alive == 0 && conclusive;
    bool missed = alive > 0 && (size_t)alive > run->tree.count;
    if (killing && missed) {
        run->next_sweep = now;
    } else if (killing || missed) {
        run->next_sweep = as_after(now, KILL_AGAIN);
    } else if (alive < 0 || !all_watched(&run->tree)) {
        run->next_sweep = as_after(now, LOOK_AGAIN);
    } else {
        run->next_sweep = AS_FOREVER; /* until those that are watched have ended */
    }
}

static void note_survivors(as_run *run) {
    as_outcome *out = &run->outcome;
    out->survivor_count = 0;
    if (!run->exited) {
        out->survivors[out->survivor_count++] = run->job.child.pid;
    }
    for (size_t i = 0; i < run->tree.count && out->survivor_count < AS_SURVIVORS; i++) {
        out->survivors[out->survivor_count++] = run->tree.members[i].pid;
    }
}

static bool no_writer(const stream *s) { return s->ended || s->hung_up; }

static bool no_writers(const as_run *run) {
    return no_writer(&run->streams[0]) && no_writer(&run->streams[1]);
}

/* The last poll may be older than the leader's exit, or none may have been yet. */
static void look_for_hang_ups(as_run *run) {
    struct pollfd fds[2] = {{.fd = run->streams[0].fd}, {.fd = run->streams[1].fd}};
    (void)poll(fds, 2, 0);
    for (int i = 0; i < 2; i++) {
        run->streams[i].hung_up = run->streams[i].hung_up || (fds[i].revents & POLLHUP);
    }
}

static bool due(int64_t deadline, int64_t now) { return deadline != AS_FOREVER && now >= deadline; }

static bool held_back(const as_run *run) { return run->room_deadline != 0 || run->log_rest_size; }

/* Reads what the pipes hold, and waits for nothing. */
static bool is_about_to_end(const as_run *run) {
    return run->phase == ENDED || (run->phase == DRAINING && !held_back(run));
}

static int64_t permit_deadline(const as_run *run) {
    return run->has_permit ? run->began + KEEP_PERMIT : AS_FOREVER;
}

static void give_permit_back(as_run *run, int64_t now) {
    if (due(permit_deadline(run), now)) {
        as_gate_release(run->job.gate);
        run->has_permit = false;
    }
}

/* What the time and the events so far demand. */
static void step(as_run *run, int64_t now) {
    const as_job *job = &run->job;
    int cancel = atomic_load(&run->cancel);
    run->kill_now = cancel == AS_CANCEL_KILL;
    if (run->phase == RUNNING) {
        if (run->exited) {
            look_for_hang_ups(run);
            set_phase(run, LINGERING, now, job->wait_delay);
        } else if (cancel) {
            stop(run, AS_CANCELLED, now);
        } else if (due(job->deadline, now)) {
            stop(run, AS_TIMED_OUT, now);
        }
    }
    if (run->phase == LINGERING) {
        if (no_writers(run)) {
            drain(run, AS_EXITED, now);
        } else if (cancel || due(run->phase_end, now)) {
            /* A script that starts has a copy of the pipes until its exec: it is not meant. */
            as_starts_settle(job->starts);
            look_for_hang_ups(run);
            drain(run, no_writers(run) ? AS_EXITED : AS_PIPES_OPEN, now);
        }
    }
    if (run->phase == STOPPING || run->phase == KILLING) {
        if (run->phase == STOPPING && (run->kill_now || due(run->phase_end, now))) {
            set_phase(run, KILLING, now, AS_SECOND);
            sweep(run, now);
        } else if (due(run->next_sweep, now)) {
            sweep(run, now);
        }
        if (run->tree_gone || (run->phase == KILLING && due(run->phase_end, now))) {
            if (!run->tree_gone) {
                note_survivors(run);
            }
            drain(run, run->outcome.status, now);
        }
    }
    if (run->phase == DRAINING && at_end(run)) {
        set_phase(run, ENDED, now, AS_FOREVER);
    }
    if (!is_about_to_end(run)) {
        give_permit_back(run, now);
    }
}

/* ---- poll ---- */

enum { STDOUT, STDERR, LEADER, WAKE, CANCEL, LOG, SIGNAL, MEMBERS };

static struct pollfd want(int fd, short events) {
    return (struct pollfd){.fd = fd, .events = events};
}

static nfds_t collect(const as_run *run, struct pollfd *fds) {
    bool reading = !held_back(run);
    for (int i = 0; i < 2; i++) {
        const stream *s = &run->streams[i];
        /* While the script is held back only the hang-up is of interest, and that once. */
        bool wanted = !s->ended && (reading || !s->hung_up);
        fds[i] = want(wanted ? s->fd : -1, reading ? POLLIN : 0);
    }
    fds[LEADER] = want(run->exited ? -1 : run->pidfd, POLLIN);
    fds[WAKE] = want(run->wake, POLLIN);
    bool may_cancel = run->phase == RUNNING || run->phase == LINGERING;
    fds[CANCEL] = want(may_cancel ? run->job.cancel_fd : -1, POLLIN);
    fds[LOG] = want(run->log_rest_size ? as_logfile_fd(run->job.log) : -1, POLLOUT);
    fds[SIGNAL] = want(run->job.signal_fd, POLLIN);
    nfds_t count = MEMBERS;
    for (size_t i = 0; i < run->tree.count; i++) {
        if (run->tree.members[i].pidfd >= 0) {
            fds[count++] = want(run->tree.members[i].pidfd, POLLIN);
        }
    }
    return count;
}

static int64_t next_deadline(const as_run *run) {
    if (is_about_to_end(run)) {
        return 0;
    }
    int64_t next = run->phase == RUNNING ? run->job.deadline : run->phase_end;
    next = as_earlier(next, as_earlier(run->next_sweep, permit_deadline(run)));
    if (run->room_deadline != 0) {
        next = as_earlier(next, run->room_deadline);
    }
    return run->log_rest_size ? as_earlier(next, run->log_deadline) : next;
}

/* Waits for an event or the deadline. 0 or -errno: then nothing is known of the descriptors. */
static int wait_until(struct pollfd *fds, nfds_t count, int64_t deadline) {
    struct timespec timeout, *limit = NULL;
    if (deadline != AS_FOREVER) {
        int64_t left = deadline - as_monotonic();
        left = left > 0 ? left : 0;
        timeout = (struct timespec){.tv_sec = left / AS_SECOND, .tv_nsec = left % AS_SECOND};
        limit = &timeout;
    }
    if (ppoll(fds, count, limit, NULL) >= 0) {
        return 0;
    }
    int error = errno;
    if (error !=
        EINTR) { /* ENOMEM, or more descriptors than RLIMIT_NOFILE: not as fast as it goes */
        (void)poll(NULL, 0, 10);
    }
    return -error;
}

/* All watched processes of the tree have ended: look again at once. */
static void watch_members(as_run *run, const struct pollfd *fds, nfds_t count, int64_t now) {
    bool watched = !run->exited;
    for (nfds_t i = MEMBERS; i < count; i++) {
        if (fds[i].revents) {
            for (size_t k = 0; k < run->tree.count; k++) {
                if (run->tree.members[k].pidfd == fds[i].fd) {
                    as_close(&run->tree.members[k].pidfd);
                }
            }
        } else {
            watched = true;
        }
    }
    if (!watched) {
        run->next_sweep = now;
    }
}

static void handle(as_run *run, const struct pollfd *fds, nfds_t count, int64_t now) {
    if (fds[LEADER].revents) {
        run->exited = true;
        run->outcome.exited = now;
    }
    if (fds[WAKE].revents) {
        uint64_t value;
        ssize_t got = read(run->wake, &value, sizeof value);
        (void)got;
        run->room_deadline = 0;
    }
    if (fds[CANCEL].revents) {
        as_run_cancel(run, AS_CANCEL_STOP);
    }
    if (run->log_rest_size && (fds[LOG].revents || due(run->log_deadline, now))) {
        retry_log(run, now);
    }
    if (run->room_deadline != 0 && due(run->room_deadline, now)) {
        run->room_deadline = 0;
    }
    for (int i = 0; i < 2; i++) {
        stream *s = &run->streams[i];
        if (fds[i].revents & POLLHUP) {
            s->hung_up = true;
        }
        if (fds[i].revents & POLLIN) {
            if (!held_back(run)) { /* the other stream may just have filled the queue */
                read_stream(run, i, now);
            }
        } else if ((fds[i].events & POLLIN) && (fds[i].revents || run->phase == DRAINING)) {
            s->ended = true; /* hung up and empty, or nothing to drain: no read needed */
        }
    }
    if (run->phase == STOPPING || run->phase == KILLING) {
        watch_members(run, fds, count, now);
    }
}

/* ---- the call ---- */

static void finish_counting(as_run *run) {
    if (!run->has_logger) {
        run->counted_lines += run->in_line[0] + run->in_line[1];
    }
    pthread_mutex_lock(&run->tail_lock);
    as_tail_finish(&run->tail);
    pthread_mutex_unlock(&run->tail_lock);
}

/* By the pidfd, so never another child that has got the number. The host may ignore SIGCHLD or wait for
   every child: then only the kernel's copy of the status is left (K6). */
static void reap(as_run *run) {
    as_outcome *out = &run->outcome;
    struct rusage usage = {0};
    siginfo_t info = {0};
    int status;
    if (!run->exited || out->reaped) {
        return;
    }
    out->reaped = 1;
    /* glibc's waitid keeps the system call's fifth argument to itself. */
    while (syscall(SYS_waitid, P_PIDFD, run->pidfd, &info, WEXITED, &usage) < 0 && errno == EINTR) {
    }
    if (info.si_pid == run->job.child.pid) {
        out->exit_known = 1;
        out->exit_code = info.si_code == CLD_EXITED ? info.si_status : -info.si_status;
        out->cpu_ns = (int64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * AS_SECOND +
                      (int64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000;
        /* vfork: the peak counts from the host's own memory on, until the exec; see execve in
           fs/exec.c, setmax_mm_hiwater_rss. Only what is above it is the script's. */
        struct rusage host;
        bool above = getrusage(RUSAGE_SELF, &host) == 0 && usage.ru_maxrss > host.ru_maxrss;
        out->max_rss = above ? (int64_t)usage.ru_maxrss * 1024 : 0;
    } else if (as_pidfd_exit_status(run->pidfd, &status)) {
        out->exit_known = 1;
        out->exit_code = WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
    }
}

static void begin(as_run *run, const as_job *job) {
    run->job = *job;
    run->pidfd = job->child.pidfd;
    run->streams[0].fd = job->child.stdout_fd;
    run->streams[1].fd = job->child.stderr_fd;
    run->has_permit = job->gate != NULL;
    run->began = as_monotonic();
    set_phase(run, RUNNING, run->began, AS_FOREVER);
}

int as_run_supervise(as_run *run, const as_job *job, as_outcome *outcome) {
    struct pollfd fds[MEMBERS + AS_TREE_FDS];
    if (run->phase == NEW) {
        begin(run, job);
    }
    while (step(run, as_monotonic()), run->phase != ENDED) {
        nfds_t count = collect(run, fds);
        int result = wait_until(fds, count, next_deadline(run));
        if (result == 0) {
            handle(run, fds, count, as_monotonic());
        }
        if (result == -EINTR || fds[SIGNAL].revents) {
            return AS_INTERRUPTED;
        }
    }
    finish_counting(run);
    reap(run);
    as_close(&run->pidfd);
    as_tree_free(&run->tree);
    *outcome = run->outcome;
    return 0;
}

int as_run_note(as_run *run, as_logfile *log, const char *text, size_t size) {
    int error = 0;
    if (as_logfile_in_line(log)) {
        (void)as_logfile_write(log, "\n", 1, &error);
    }
    (void)as_logfile_write(log, text, size, &error);
    for (int i = 0; run->has_logger && i < 2; i++) {
        if (run->in_line[i]) {
            as_queue_end_line(&run->queue, i); /* else that line would come after the note */
            run->in_line[i] = false;
        }
    }
    if (run->has_logger && !as_queue_note(&run->queue, text, size)) {
        return -ENOBUFS;
    }
    return -error;
}

int as_run_finish(as_run *run, as_delivery *delivery) {
    *delivery = (as_delivery){.lines = run->counted_lines};
    if (!run->finished) {
        run->finished = true;
        close_descriptors(run);
        if (run->has_logger) {
            as_queue_finish(&run->queue);
        }
    }
    while (run->has_logger) {
        int64_t deadline;
        struct pollfd fds[] = {want(run->wake, POLLIN), want(run->job.signal_fd, POLLIN)};
        if (as_queue_delivered(&run->queue, &deadline)) {
            break;
        }
        int64_t now = as_monotonic();
        if (due(deadline, now)) {
            as_queue_abandon(&run->queue);
            break;
        }
        give_permit_back(run, now);
        if (wait_until(fds, 2, as_earlier(deadline, permit_deadline(run))) == -EINTR ||
            fds[1].revents) {
            return AS_INTERRUPTED;
        }
        if (fds[0].revents) {
            uint64_t value;
            ssize_t got = read(run->wake, &value, sizeof value);
            (void)got;
        }
    }
    if (run->has_logger) {
        as_queue_counts(&run->queue, delivery);
    }
    delivery->kept_permit = run->has_permit;
    return 0;
}
