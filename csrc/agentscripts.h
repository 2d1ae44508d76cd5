/*
 * agentscripts.h: the whole boundary between Python and the C core.
 *
 * The compiler reads this file and so does cffi, so it holds plain declarations only.
 *
 * Conventions
 *   - a function that can fail returns 0 or a positive code of its own, or -errno;
 *   - times are nanoseconds: "monotonic" is CLOCK_MONOTONIC, "real" is CLOCK_REALTIME;
 *   - a duration or deadline of AS_FOREVER is "no limit";
 *   - every function may be called without the GIL; which threads may call it is said beside it;
 *   - a function that blocks returns AS_INTERRUPTED when a signal came meanwhile: call it again with
 *     the same arguments after Python's own handlers have run.
 */
#ifndef AGENTSCRIPTS_H
#define AGENTSCRIPTS_H

#include <stddef.h>
#include <stdint.h>

#define AS_FOREVER (-1)  /* a duration or deadline: no limit */
#define AS_INTERRUPTED 1 /* a signal came: call again */
#define AS_CLOSED 2      /* the pool needs this thread no more */
#define AS_TIMEOUT 3     /* the time given has passed */
#define AS_STREAMS 3     /* stdout, stderr, notes of the library's own */
#define AS_SURVIVORS 64  /* how many survivors are listed */
#define AS_RUN_ID_LENGTH 32
#define AS_SPARE_THREADS 4  /* so many wait in a pool */
#define AS_STDERR_SIZE 6150 /* room for what as_run_stderr copies */

/* ---- directories ------------------------------------------------------------------------------ */

/* Opens a directory (O_PATH) if there is no symbolic link on its whole path. The descriptor or -errno:
   -ELOOP, and -ENOSYS or -EPERM where the call (openat2, Linux 5.6) is missing or forbidden. */
int as_open_directory(const char *path);
typedef struct {
    uint64_t device, inode;
} as_identity;
/* Whether there is such a directory, and it belongs to this user or to root; *identity: its own. */
int as_is_own_directory(const char *path, as_identity *identity);
/* Whether the first of these paths (each with its NUL, one after the other) is this directory still, and
   the others, which are to be in it, are directories of this user's or root's. */
int as_has_own_directories(const as_identity *identity, const char *paths, uint32_t count);

/* ---- the log file: one writer per file, shared by the runs that write it --------------------- */

typedef struct as_logfile as_logfile;

/* Takes fd and dir_fd (-1: none) over, and closes them in as_logfile_free, or at once when it
   fails. max_bytes: AS_FOREVER, or where to rotate, to name.1 .. name.<backups>. *identity: of the
   file. NULL with errno set on failure. as_logfile_begin is to follow. */
as_logfile *as_logfile_new(int fd, int dir_fd, const char *name, int64_t max_bytes, int backups,
                           int64_t max_line, as_identity *identity);
/* The same for a file that never rotates, if it is there and all is as usual: no symbolic link on the whole
   path, and a regular file with one name and no right of its own, of this user's or root's. NULL: it is
   not, or something failed; nothing is open then. */
as_logfile *as_logfile_open(const char *path, int64_t max_line, as_identity *identity);
void as_logfile_free(as_logfile *log);
/* Once no other writer of the file is left: takes its size, which counts for the rotation. empty: whether
   a regular file is emptied first. 0 or -errno. */
int as_logfile_begin(as_logfile *log, int empty);
/* Of the file that is written now (another one after a rotation). Any thread. */
as_identity as_logfile_identity(as_logfile *log);
/* Whether this is that file, or the one that is about to take its place. Any thread. */
int as_logfile_writes(as_logfile *log, uint64_t device, uint64_t inode);

/* ---- the gate: how many scripts may be starting at one moment -------------------------------- */

typedef struct as_gate as_gate;

as_gate *as_gate_new(unsigned permits);
void as_gate_free(as_gate *gate);
/* 0, AS_TIMEOUT or AS_INTERRUPTED; timeout 0 only tries. */
int as_gate_acquire(as_gate *gate, int64_t timeout);
void as_gate_release(as_gate *gate);

/* ---- the census: which processes there are, read once for all runs that ask at one time ------ */

typedef struct as_census as_census;

/* NULL with errno set when there is no /proc or no memory. */
as_census *as_census_new(void);
void as_census_free(as_census *census);

/* ---- a script's process ------------------------------------------------------------------------ */

typedef struct as_starts as_starts;

/* NULL: no memory. */
as_starts *as_starts_new(void);
void as_starts_free(as_starts *starts);
/* Before a fork: waits for the starts under way, and holds up others, for a child forked meanwhile
   would keep the pipes of these scripts open. 0 or AS_TIMEOUT: a start hangs in the kernel, as on a dead
   mount, and the fork does not wait for that. */
int as_starts_hold(as_starts *starts, int64_t timeout);
/* After it, in the parent: if this thread holds up starts, they go on. */
void as_starts_resume(as_starts *starts);
/* After it, in the child. */
void as_starts_begin_anew(as_starts *starts);

enum { AS_FORKING, AS_JOINING, AS_ENTERING, AS_EXECUTING }; /* as_child.step */

typedef struct {
    int pid; /* an unreaped child that leads its own session */
    int pidfd;
    int stdout_fd; /* the pipes' read ends, O_NONBLOCK */
    int stderr_fd;
    int step;    /* where it failed: pipes and process, cgroup, directory, program */
    int entered; /* which of the directories, from 0, or the one that failed */
} as_child;

/* Starts a process with default signals, an empty mask, and no descriptor but its streams. Returns
   when it is the program. 0 or -errno; then nothing is open and no child is left. Any thread.
   words: programs (paths to try in turn, as execvpe does), directories (to try in turn, where one is
   missing or out of reach), arguments, environment, each with its NUL, one after the other.
   cgroup_procs: the cgroup.procs of the group to join first; NULL: none.
   die_with_parent: SIGKILL when the thread ends that calls this. */
int as_spawn(as_starts *starts, const char *words, uint32_t programs, uint32_t directories,
             uint32_t arguments, uint32_t variables, int stdin_fd, const char *cgroup_procs,
             int die_with_parent, as_child *out);

/* ---- the pool: runs whose lines wait for a thread that calls the logger ---------------------- */

typedef struct as_run as_run;
typedef struct as_pool as_pool;

typedef struct {
    as_run *run;              /* NULL before the first call and after the last */
    uint64_t key;             /* the run's key */
    int64_t created;          /* real: when the lines were read */
    const char *text;         /* lines joined by newlines; valid until the next as_pool_next */
    size_t size;              /* bytes of text */
    uint32_t lines;           /* how many; 0: all are delivered, flush the logger */
    uint32_t stream;          /* 0 stdout, 1 stderr, 2 a note */
    uint32_t has_nul;         /* text holds NUL bytes */
    uint32_t ascii;           /* text is known to be ASCII */
    uint32_t waiting;         /* how many threads wait in as_pool_next after this one left it */
    uint32_t carried;         /* for the core: text is the stream's carry, not the queue */
    uint32_t newline_follows; /* for the core */
    int64_t taken_at;         /* for the core */
} as_batch;

as_pool *as_pool_new(void);
void as_pool_free(as_pool *pool);
/* Ends the batch that is held, blocks for the next one. 0 or AS_CLOSED. */
int as_pool_next(as_pool *pool, as_batch *batch);
/* All threads get AS_CLOSED from as_pool_next once nothing is ready. Any thread. */
void as_pool_close(as_pool *pool);

/* ---- a run: one script's life ------------------------------------------------------------------ */

typedef struct {
    as_pool *pool;
    as_census *census;
    as_starts *starts;     /* whose children may hold the pipes until their exec; NULL: none */
    int64_t max_line;      /* bytes */
    int64_t stall_timeout; /* a logger that took longer for one batch loses lines */
    int64_t wait_delay;
    int64_t kill_delay;
    int stop_signal;
} as_rules; /* the same for many runs; what they point at outlives these */

enum { AS_EXITED, AS_TIMED_OUT, AS_CANCELLED, AS_PIPES_OPEN }; /* as_outcome.status */
enum { AS_RUNNING, AS_STOPPING, AS_DELIVERING };               /* as_snapshot.state */
enum { AS_CANCEL_NONE, AS_CANCEL_STOP, AS_CANCEL_KILL };       /* as_run_cancel's how */

typedef struct {
    int status;
    int exit_known; /* 0: another part of the process took the status away, or it still runs */
    int exit_code;  /* -N: signal N */
    int reaped;     /* 0: nobody has waited for the child yet */
    int log_errno;  /* of the first write that failed, 0: none */
    int64_t exited; /* monotonic: the script's own exit */
    int64_t ended;  /* monotonic */
    int64_t output_bytes;
    int64_t cpu_ns;  /* user and system time, the waited-for descendants included */
    int64_t max_rss; /* bytes; 0: not above the host's own, so unknown */
    uint32_t survivor_count;
    int survivors[AS_SURVIVORS];
} as_outcome;

typedef struct {
    int64_t lines; /* delivered, dropped, or only counted where no logger is */
    int64_t dropped;
    int kept_permit; /* the gate's permit is still held */
} as_delivery;

/* key: 0 when no logger wants lines. flush_timeout: a logger that took longer after the end loses the
   rest. NULL with errno set on failure. */
as_run *as_run_new(const as_rules *rules, uint64_t key, int64_t flush_timeout);
/* Nothing may use the run any more; kills nothing. */
void as_run_free(as_run *run);
/* From the child's start to the end of its tree and its output: see supervise.c. Blocks; one thread.
   0 or AS_INTERRUPTED.
   The child's descriptors are taken over, the others are not: readable, cancel_fd cancels, and signal_fd
   ends the call; -1: none. run_id: AS_RUN_ID_LENGTH hex digits. cgroup_fd: the run's own cgroup
   directory; -1: none. deadline: monotonic. gate: has a permit that is given back after 2 ms; NULL: none. */
int as_run_supervise(as_run *run, const as_child *child, as_logfile *log, as_gate *gate,
                     const char *run_id, int cgroup_fd, int cancel_fd, int signal_fd,
                     int64_t deadline, as_outcome *outcome);
/* A line of the library's own for the log file and the logger, after supervise. 0 or -errno. */
int as_run_note(as_run *run, as_logfile *log, const char *text, size_t size);
/* Closes the pipes; blocks until all lines are delivered and flushed, or the logger is given up.
   0, AS_INTERRUPTED. */
int as_run_finish(as_run *run, as_delivery *delivery);
/* Any thread, any time between new and free; takes no lock. */
void as_run_cancel(as_run *run, int how);
/* Any thread. Returns the state; copies at most size bytes of the last line, *length says how many. */
int as_run_snapshot(as_run *run, char *line, size_t size, size_t *length);
/* The last complete lines (and the unfinished ones after as_run_supervise), oldest first, newline
   after each; at most size bytes from the end. Returns the length. Any thread. */
size_t as_run_tail(as_run *run, char *text, size_t size);
/* The first 3 and the last 3 lines of stderr, 1 KiB of each at most, newline after each, into
   AS_STDERR_SIZE bytes; *size says how many. Returns how many lines there were; those after the third
   are left out where that is more than 6. After as_run_supervise, by its thread. */
int64_t as_run_stderr(const as_run *run, char *text, size_t *size);

/* ---- the timer: where the scheduler waits ------------------------------------------------------- */

typedef struct as_timer as_timer;

/* NULL with errno set on failure. */
as_timer *as_timer_new(void);
void as_timer_free(as_timer *timer);
/* Blocks until the real time is `when` (AS_FOREVER: never), the clock is set, as_timer_wake is called,
   or a signal comes. One thread. 0 or -errno. */
int as_timer_wait(as_timer *timer, int64_t when);
/* Any thread; takes no lock. A wake before the wait counts. */
void as_timer_wake(const as_timer *timer);

#endif
