/*
 * supervise.c: one call for a script's whole life, without the GIL (K1-K7).
 *
 *   phase     until                                      then
 *   RUNNING   the leader exits                           LINGERING
 *             the deadline, or a cancel                  STOPPING (stop signal to the tree)
 *   LINGERING the pipes are at their end                 DRAINING: exited
 *             wait_delay, or a cancel                    LAST_LOOK
 *   LAST_LOOK the pipes are at their end                 DRAINING: exited
 *             a tenth of a second                        DRAINING: pipes open
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
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define KEEP_PERMIT (2 * AS_MILLISECOND)
#define GRACE (AS_SECOND / 2000) /* most processes obey within it: then one scan is enough */
#define KILL_AGAIN (5 * AS_MILLISECOND)
#define LOOK_AGAIN (50 * AS_MILLISECOND)
/* Who starts a process, here or elsewhere in the host, has it hold copies of all pipes until its exec. */
#define UNTIL_EXEC (100 * AS_MILLISECOND)

enum phase { NEW, RUNNING, LINGERING, LAST_LOOK, STOPPING, KILLING, DRAINING, ENDED };

struct as_run {
    _Atomic int references;
    _Atomic int cancel;
    _Atomic int state;
    int wake; /* an eventfd: cancelled, room in the queue, delivered */
    as_output output;

    /* All below belongs to the thread in as_run_supervise. */
    as_rules rules;
    int pid, pidfd;
    int cgroup_fd, cancel_fd, signal_fd;
    char run_id[AS_RUN_ID_LENGTH + 1];
    int64_t deadline;
    as_gate *gate;
    enum phase phase;
    bool exited, has_permit, kill_now;
    as_tree tree;
    bool swept; /* the stop signal has been sent to the whole tree */
    int64_t began, phase_end, next_sweep, pause;
    bool finished;
    as_outcome outcome;
};

/* ---- a run's making and end ---- */

as_run *as_run_new(const as_rules *rules, uint64_t key, int64_t flush_timeout) {
    as_limits limits = {key, rules->max_line, rules->stall_timeout, flush_timeout};
    as_pool *pool = key ? rules->pool : NULL;
    as_run *run = calloc(1, sizeof *run);
    if (!run) {
        return NULL;
    }
    run->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int error = run->wake < 0 ? -errno
                              : as_output_init(&run->output, pool, run, run->wake, &limits);
    if (error != 0) {
        as_close(&run->wake);
        free(run);
        errno = -error;
        return NULL;
    }
    run->references = 1;
    run->rules = *rules;
    run->signal_fd = run->pidfd = -1;
    return run;
}

static void close_descriptors(as_run *run) {
    as_output_close(&run->output);
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
    as_output_free(&run->output);
    free(run);
}

void as_run_free(as_run *run) {
    if (run) {
        as_run_release(run);
    }
}

as_queue *as_run_queue(as_run *run) { return &run->output.queue; }

void as_run_cancel(as_run *run, int how) {
    int now = atomic_load(&run->cancel);
    while (now < how && !atomic_compare_exchange_weak(&run->cancel, &now, how)) {
    }
    as_wake(run->wake);
}

int as_run_snapshot(as_run *run, char *line, size_t size, size_t *length) {
    *length = as_output_last_line(&run->output, line, size);
    return atomic_load(&run->state);
}

size_t as_run_tail(as_run *run, char *out, size_t size) {
    return as_output_tail(&run->output, out, size);
}

_Static_assert(AS_STDERR_SIZE == 2 * AS_ENDS_LINES * (AS_ENDS_BYTES + 1), "room for all lines");

int64_t as_run_stderr(const as_run *run, char *text, size_t *size) {
    return as_ends_copy(run->output.errors, text, size);
}

/* ---- the phases ---- */

static void set_phase(as_run *run, enum phase phase, int64_t now, int64_t duration) {
    run->phase = phase;
    run->phase_end = as_after(now, duration);
    run->next_sweep = AS_FOREVER;
}

static void drain(as_run *run, int status, int64_t now) {
    run->outcome.status = status;
    run->outcome.ended = now;
    as_output_drain(&run->output, status == AS_TIMED_OUT || status == AS_CANCELLED, now);
    as_tree_free(&run->tree);
    set_phase(run, DRAINING, now, AS_FOREVER);
    atomic_store(&run->state, AS_DELIVERING);
}

static void stop(as_run *run, int status, int64_t now) {
    run->outcome.status = status;
    atomic_store(&run->state, AS_STOPPING);
    as_signal_group(run->pid, run->pidfd, run->rules.stop_signal);
    as_signal_group(run->pid, run->pidfd, SIGCONT); /* a stopped process must get it too */
    as_tree_begin(&run->tree, run->rules.census, run->pid, run->pidfd, run->cgroup_fd, run->run_id);
    set_phase(run, STOPPING, now, run->rules.kill_delay);
    run->next_sweep = as_after(now, GRACE);
    run->pause = GRACE;
}

static void kill_cgroup(const as_run *run) {
    int fd = run->cgroup_fd < 0 ? -1 : openat(run->cgroup_fd, "cgroup.kill", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t written = write(fd, "1", 1); /* Linux 5.14; the sweep kills them too */
        (void)written;
        as_close(&fd);
    }
}

/* Only the first sweep sends the stop signal: what a trap starts later, to clean up, is left alone
   until SIGKILL. */
static void sweep(as_run *run) {
    bool killing = run->phase == KILLING;
    int signal = killing ? SIGKILL : run->swept ? 0 : run->rules.stop_signal;
    if (killing) {
        kill_cgroup(run);
    }
    int alive = as_tree_sweep(&run->tree, signal);
    run->swept = run->swept || (alive >= 0 && !run->tree.untold);
    int64_t now = as_monotonic();
    bool missed = alive > 0 && (size_t)alive > run->tree.count;
    if (killing && missed) {
        run->next_sweep = now;
    } else if (missed) {
        run->next_sweep = as_after(now, run->pause);
        run->pause = as_earlier(2 * run->pause, KILL_AGAIN);
    } else if (killing) {
        run->next_sweep = as_after(now, KILL_AGAIN);
    } else if (alive < 0 || run->tree.watched < run->tree.count) {
        run->next_sweep = as_after(now, LOOK_AGAIN);
    } else {
        run->next_sweep = AS_FOREVER; /* until those that are watched have ended */
    }
}

static void note_survivors(as_run *run) {
    as_outcome *out = &run->outcome;
    out->survivor_count = 0;
    if (!run->exited) {
        out->survivors[out->survivor_count++] = run->pid;
    }
    for (size_t i = 0; i < run->tree.listed && out->survivor_count < AS_SURVIVORS; i++) {
        out->survivors[out->survivor_count++] = run->tree.members[i].pid;
    }
}

static bool is_tree_gone(const as_run *run) {
    return run->tree.ending && run->exited && run->tree.watched == 0;
}

/* Reads what the pipes hold, and waits for nothing. */
static bool is_about_to_end(const as_run *run) {
    return run->phase == ENDED || (run->phase == DRAINING && !as_output_held_back(&run->output));
}

static int64_t permit_deadline(const as_run *run) {
    return run->has_permit ? run->began + KEEP_PERMIT : AS_FOREVER;
}

static void give_permit_back(as_run *run, int64_t now) {
    if (as_due(permit_deadline(run), now)) {
        as_gate_release(run->gate);
        run->has_permit = false;
    }
}

static void note_exit(as_run *run, int64_t now) {
    run->exited = true;
    run->outcome.exited = now;
}

/* What the time and the events so far demand. */
static void step(as_run *run, int64_t now) {
    int cancel = atomic_load(&run->cancel);
    run->kill_now = cancel == AS_CANCEL_KILL;
    if (run->phase == RUNNING) {
        /* Python may have kept this thread since before the exit, by the handler of a signal. */
        if (!run->exited && (cancel || as_due(run->deadline, now)) && as_has_ended(run->pidfd)) {
            note_exit(run, now);
        }
        if (run->exited) {
            as_output_look_for_hang_ups(&run->output);
            set_phase(run, LINGERING, now, run->rules.wait_delay);
        } else if (cancel) {
            stop(run, AS_CANCELLED, now);
        } else if (as_due(run->deadline, now)) {
            stop(run, AS_TIMED_OUT, now);
        }
    }
    if (run->phase == LINGERING && !as_output_no_writers(&run->output) &&
        (cancel || as_due(run->phase_end, now))) {
        as_starts *ours = run->rules.starts; /* may take longer */
        if (ours) {
            (void)as_starts_hold(ours, AS_SECOND);
            as_starts_resume(ours);
        }
        as_output_look_for_hang_ups(&run->output);
        set_phase(run, LAST_LOOK, as_monotonic(), UNTIL_EXEC);
    }
    if (run->phase == LINGERING || run->phase == LAST_LOOK) {
        if (as_output_no_writers(&run->output)) {
            drain(run, AS_EXITED, now);
        } else if (run->phase == LAST_LOOK && as_due(run->phase_end, now)) {
            drain(run, AS_PIPES_OPEN, now);
        }
    }
    if (run->phase == STOPPING || run->phase == KILLING) {
        if (run->phase == STOPPING && (run->kill_now || as_due(run->phase_end, now))) {
            set_phase(run, KILLING, now, AS_SECOND);
            sweep(run);
        } else if (as_due(run->next_sweep, now)) {
            sweep(run);
        }
        if (is_tree_gone(run)) {
            drain(run, run->outcome.status, now);
        } else if (run->phase == KILLING && as_due(run->phase_end, now)) {
            note_survivors(run);
            drain(run, run->outcome.status, now);
        }
    }
    if (run->phase == DRAINING && as_output_at_end(&run->output)) {
        set_phase(run, ENDED, now, AS_FOREVER);
    }
    if (!is_about_to_end(run)) {
        give_permit_back(run, now);
    }
}

/* ---- poll ---- */

enum { LEADER = AS_OUTPUT_FDS, WAKE, CANCEL, SIGNAL, MEMBERS }; /* after the output's */

static nfds_t collect(const as_run *run, struct pollfd *fds) {
    as_output_pollfds(&run->output, fds);
    fds[LEADER] = as_pollfd(run->exited ? -1 : run->pidfd, POLLIN);
    fds[WAKE] = as_pollfd(run->wake, POLLIN);
    bool may_cancel = run->phase == RUNNING || run->phase == LINGERING;
    fds[CANCEL] = as_pollfd(may_cancel ? run->cancel_fd : -1, POLLIN);
    fds[SIGNAL] = as_pollfd(run->signal_fd, POLLIN);
    nfds_t count = MEMBERS;
    for (size_t i = 0; i < run->tree.listed; i++) {
        if (run->tree.members[i].pidfd >= 0) {
            fds[count++] = as_pollfd(run->tree.members[i].pidfd, POLLIN);
        }
    }
    return count;
}

static int64_t next_deadline(const as_run *run) {
    if (is_about_to_end(run)) {
        return 0;
    }
    int64_t next = run->phase == RUNNING ? run->deadline : run->phase_end;
    next = as_earlier(next, as_earlier(run->next_sweep, permit_deadline(run)));
    return as_earlier(next, as_output_deadline(&run->output));
}

/* poll refuses more entries than RLIMIT_NOFILE, which the host may have lowered: one after the other, and
   not as fast as it goes. */
static int look_at_each(struct pollfd *fds, nfds_t count) {
    int result = poll(NULL, 0, 10);
    for (nfds_t i = 0; result >= 0 && i < count; i++) {
        fds[i].revents = 0;
        result = fds[i].fd < 0 ? 0 : poll(&fds[i], 1, 0);
    }
    return result < 0 ? -errno : 0;
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
    return error == EINTR ? -error : look_at_each(fds, count);
}

/* When all that is watched has ended, what it may have forked is looked for at once. */
static void watch_members(as_run *run, const struct pollfd *fds, nfds_t count, int64_t now) {
    bool ended = fds[LEADER].revents;
    for (nfds_t i = MEMBERS; i < count; i++) {
        ended = ended || fds[i].revents;
    }
    if (ended) {
        as_tree_forget_ended(&run->tree);
        if (run->exited && run->tree.watched == 0 && !run->tree.ending) {
            run->next_sweep = now;
        }
    }
}

static void handle(as_run *run, const struct pollfd *fds, nfds_t count, int64_t now) {
    if (fds[LEADER].revents) {
        note_exit(run, now);
    }
    if (fds[WAKE].revents) {
        uint64_t value;
        ssize_t got = read(run->wake, &value, sizeof value);
        (void)got;
        as_output_has_room(&run->output);
    }
    if (fds[CANCEL].revents) {
        as_run_cancel(run, AS_CANCEL_STOP);
    }
    as_output_handle(&run->output, fds, now);
    if (run->phase == STOPPING || run->phase == KILLING) {
        watch_members(run, fds, count, now);
    }
}

/* ---- the call ---- */

/* By the pidfd, so never another child that has got the number. The host may ignore SIGCHLD or wait for
   every child: then only the kernel's copy of the status is left (K6). */
static void reap(as_run *run) {
    as_outcome *out = &run->outcome;
    struct rusage usage = {0};
    siginfo_t info = {0};
    int status;
    if (!run->exited) {
        return;
    }
    out->reaped = 1;
    /* glibc's waitid keeps the system call's fifth argument to itself. */
    while (syscall(SYS_waitid, P_PIDFD, run->pidfd, &info, WEXITED, &usage) < 0 && errno == EINTR) {
    }
    if (info.si_pid == run->pid) {
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

int as_run_supervise(as_run *run, const as_child *child, as_logfile *log, as_gate *gate,
                     const char *run_id, int cgroup_fd, int cancel_fd, int signal_fd,
                     int64_t deadline, as_outcome *outcome) {
    struct pollfd fds[MEMBERS + AS_TREE_FDS];
    if (run->phase == NEW) {
        run->pid = child->pid;
        run->pidfd = child->pidfd;
        run->cgroup_fd = cgroup_fd;
        run->cancel_fd = cancel_fd;
        run->signal_fd = signal_fd;
        run->deadline = deadline;
        memcpy(run->run_id, run_id, AS_RUN_ID_LENGTH);
        as_output_begin(&run->output, log, child->stdout_fd, child->stderr_fd);
        run->gate = gate;
        run->has_permit = gate != NULL;
        run->began = as_monotonic();
        set_phase(run, RUNNING, run->began, AS_FOREVER);
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
    as_output_end_lines(&run->output);
    reap(run);
    as_close(&run->pidfd);
    as_tree_free(&run->tree);
    run->outcome.output_bytes = run->output.bytes;
    run->outcome.log_errno = run->output.log_errno;
    *outcome = run->outcome;
    return 0;
}

int as_run_note(as_run *run, as_logfile *log, const char *text, size_t size) {
    return as_output_note(&run->output, log, text, size);
}

int as_run_finish(as_run *run, as_delivery *delivery) {
    as_output *output = &run->output;
    *delivery = (as_delivery){.lines = output->counted_lines};
    if (!run->finished) {
        run->finished = true;
        close_descriptors(run);
        if (output->has_logger) {
            as_queue_finish(&output->queue);
        }
    }
    while (output->has_logger) {
        int64_t deadline;
        struct pollfd fds[] = {as_pollfd(run->wake, POLLIN), as_pollfd(run->signal_fd, POLLIN)};
        if (as_queue_delivered(&output->queue, &deadline)) {
            break;
        }
        int64_t now = as_monotonic();
        if (as_due(deadline, now)) {
            as_queue_abandon(&output->queue);
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
    if (output->has_logger) {
        as_queue_counts(&output->queue, delivery);
    }
    delivery->kept_permit = run->has_permit;
    return 0;
}
