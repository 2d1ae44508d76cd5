/* internal.h: what the core's files share; agentscripts.h is the boundary. */
#ifndef AS_INTERNAL_H
#define AS_INTERNAL_H

#include "agentscripts.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/types.h>

#define AS_SECOND INT64_C(1000000000)
#define AS_MILLISECOND INT64_C(1000000)

int64_t as_monotonic(void);
int64_t as_realtime(void);
/* when + duration, AS_FOREVER if either is. */
int64_t as_after(int64_t when, int64_t duration);
/* The earlier of two deadlines. */
int64_t as_earlier(int64_t a, int64_t b);
bool as_due(int64_t deadline, int64_t now);
struct pollfd as_pollfd(int fd, short events);
/* The value of an eventfd is of no interest, only that it is readable. */
void as_wake(int eventfd);
void as_close(int *fd);
/* out[0], out[1]: stdout's read (O_NONBLOCK) and write end; out[2], out[3]: stderr's. 0 or -errno. */
int as_pipes(int out[4]);
/* Opens what has no symbolic link on its whole path. The descriptor or -errno. */
int as_open_plain(const char *path, uint64_t flags);
/* Whether it belongs to this user or to root. */
bool as_is_own(const struct stat *status);

/* ---- lines.c: pure functions over bytes ---- */

#define AS_BATCH_BYTES 65536
#define AS_BATCH_LINES 8192

typedef struct {
    size_t take; /* bytes used up; 0: no whole line yet */
    size_t text; /* bytes of the text, the last newline left out */
    uint32_t lines;
    uint32_t ascii; /* all of the text is known to be */
} as_cut;

/* How many newlines there are; *ascii: whether all is ASCII. */
size_t as_lines_look(const char *p, size_t n, bool *ascii);
size_t as_lines_count(const char *p, size_t n);
as_cut as_lines_cut(const char *p, size_t n, size_t max_line, uint32_t max_lines, bool final);
size_t as_lines_drop_cr(char *p, size_t n, bool newline_follows);

/* ---- pace.c: how many lines a logger gets at once ---- */

typedef struct {
    uint32_t limit; /* of the next batch */
    uint32_t lines; /* in the last one; 0: there was none */
    uint64_t took;
    bool per_send; /* a send takes about as long whatever it holds */
} as_pace;

/* A batch of so many lines, at least one, took the logger so long. */
void as_pace_note(as_pace *pace, uint32_t lines, int64_t took, int64_t stall_timeout);

/* ---- tail.c: the last lines, for results and snapshots ---- */

#define AS_TAIL_LINES 20
#define AS_TAIL_BYTES 32768

typedef struct {
    char *buffer; /* complete lines; 2 * AS_TAIL_BYTES, made when first needed */
    size_t size;
    char *partial[2]; /* the unfinished line of each stream */
    size_t partial_size[2];
    size_t partial_room[2];
} as_tail;

void as_tail_push(as_tail *tail, int stream, const char *p, size_t n);
void as_tail_finish(as_tail *tail);
size_t as_tail_lines(const as_tail *tail, int count, const char **text);
void as_tail_free(as_tail *tail);

/* The first and the last lines of one stream. */
#define AS_ENDS_LINES 3
#define AS_ENDS_BYTES 1024 /* of each line, its begin: 200 characters of UTF-8 and more */

typedef struct {
    uint64_t ended; /* complete lines so far */
    bool open;      /* the next one has begun */
    size_t size[2 * AS_ENDS_LINES];
    char line[2 * AS_ENDS_LINES][AS_ENDS_BYTES];
} as_ends;

/* Makes *ends when it is NULL; without memory it stays so. */
void as_ends_push(as_ends **ends, const char *p, size_t n);
/* A newline after each line, also after an unfinished one. Returns how many lines there were in all:
   when more than are copied, those after the first AS_ENDS_LINES are left out. */
int64_t as_ends_copy(const as_ends *ends, char *out, size_t *size);

/* ---- logfile.c ---- */

/* Writes what can be written now. Returns the bytes used up: fewer than n, maybe none, for a target that
   is full for the moment (a pipe, a terminal), and fewer, but some, for a file that is to rotate twice.
   *error: errno of a write that failed; its bytes count as used up. */
size_t as_logfile_write(as_logfile *log, const char *p, size_t n, int *error);
/* Has no rotation come before n more bytes are written. */
void as_logfile_postpone(as_logfile *log, size_t n);
/* The descriptor to poll for a target that was full; -1: a file, which never is. */
int as_logfile_fd(const as_logfile *log);
/* True when the last byte written was no newline. */
bool as_logfile_in_line(as_logfile *log);

/* ---- pool.c: the threads that call the loggers ---- */

struct as_pool {
    pthread_mutex_t lock;
    pthread_cond_t ready;
    struct as_queue *first, *last; /* queues with something to do and no owner */
    unsigned waiting;
    bool closed;
    int64_t progress_at; /* monotonic: a thread took a batch */
};

/* Lock held: lists a queue for the next thread, unless it is listed, in a thread's hands, or abandoned. */
void as_pool_put(struct as_queue *queue);
/* Lock held: takes a queue out of the list, if it is there; the list's hold on the run goes to the
   caller. */
bool as_pool_remove(struct as_queue *queue);

/* ---- queue.c: one run's output on its way to the logger ---- */

#define AS_QUEUE_BYTES 524288
#define AS_QUEUE_SPANS 1024
#define AS_QUEUE_ROOM 16384 /* less room than this is none */
#define AS_QUEUE_NOTE 2048  /* of which this much stays for a note */

typedef struct {
    int64_t created;
    uint32_t start;
    uint32_t size;
    uint8_t stream;
    uint8_t gap; /* AS_GAP_*: bytes of this stream were dropped before this span */
} as_span;

enum {
    AS_GAP_NONE,
    AS_GAP_WHOLE,
    AS_GAP_INSIDE
}; /* the gap ended: at a line's end, inside a line */

typedef struct {
    uint64_t key;
    int64_t max_line, stall_timeout, flush_timeout;
} as_limits;

/* Everything here is guarded by the pool's lock, but for the bytes that a producer has reserved and
   those that a consumer has taken. */
typedef struct as_queue {
    struct as_queue *next; /* in the pool's list of ready queues */
    as_run *run;
    as_pool *pool;
    int wake_fd; /* the run's; written when room or the end is waited for */
    as_limits limits;
    char *bytes; /* a ring; made when first needed */
    as_span *spans;
    uint32_t span_first, span_count;
    uint32_t tail;           /* where the next span's bytes go */
    char *carry[AS_STREAMS]; /* the begin of a line whose rest is in a later span */
    size_t carry_size[AS_STREAMS];
    size_t carry_taken[AS_STREAMS]; /* bytes of it that the taken batch uses up */
    uint32_t taken_start;           /* the ring's bytes that a batch holds, valid when taken_ring */
    bool taken_ring;
    uint8_t gap[AS_STREAMS]; /* dropped before whatever comes next */
    uint64_t gap_lines;      /* dropped since the last note */
    bool skip[AS_STREAMS];   /* drop up to the next newline */
    bool ready;              /* in the pool's list */
    bool owned;              /* a thread is in the consumer's part */
    bool flush_sent;
    bool waiting;        /* the producer waits for room */
    bool final;          /* nothing more will come */
    bool delivered;      /* flushed, where there was a line */
    bool abandoned;      /* no progress for flush_timeout */
    int64_t progress_at; /* monotonic: a batch was taken or given back, or the first lines came */
    as_pace pace;
    int64_t lines, dropped;
} as_queue;

as_queue *as_run_queue(as_run *run);
/* A thread that has a queue in hand keeps its run. */
void as_run_retain(as_run *run);
void as_run_release(as_run *run);

void as_queue_init(as_queue *queue, as_pool *pool, as_run *run, int wake_fd,
                   const as_limits *limits);
void as_queue_free(as_queue *queue);
/* A place for the next bytes of a stream; NULL: no room (*deadline: when to drop instead). */
char *as_queue_reserve(as_queue *queue, int stream, bool ended, size_t *room, int64_t *deadline);
void as_queue_commit(as_queue *queue, int stream, size_t n);
void as_queue_drop(as_queue *queue, int stream, const char *p, size_t n);
/* A line of the library's own, newline included. False: no room or no memory. */
bool as_queue_note(as_queue *queue, const char *text, size_t size);
/* Ends the last line of a stream, which has no newline. */
void as_queue_end_line(as_queue *queue, int stream);
void as_queue_counts(as_queue *queue, as_delivery *out);
void as_queue_finish(as_queue *queue);
/* 1: delivered; 0: not yet, *deadline says when to give up. */
int as_queue_delivered(as_queue *queue, int64_t *deadline);
void as_queue_abandon(as_queue *queue);

/* For batch.c; lock held. */

static inline as_span *as_queue_span(const as_queue *queue, uint32_t index) {
    return &queue->spans[(queue->span_first + index) % AS_QUEUE_SPANS];
}

/* Moves the tail to where the most room is; returns that room. */
uint32_t as_queue_find_room(as_queue *queue, bool move);
/* Says how many lines are missing, before the first that comes after them. */
void as_queue_note_gap(as_queue *queue);

/* ---- batch.c: whole lines out of a queue; lock held ---- */

/* Fills the batch with what comes next; false: nothing to do now. May let the lock go meanwhile. */
bool as_batch_take(as_batch *batch, as_queue *queue);
void as_batch_end(const as_batch *batch, as_queue *queue);
/* Lock not held: makes of a taken batch's bytes what Python gets. Not before they are taken, since
   as_queue_abandon counts the lines of those that are not. */
void as_batch_clean(as_batch *batch);

/* ---- output.c: what a script prints, on its way to log file, tail and queue ---- */

#define AS_OUTPUT_PIPES 2 /* stdout, stderr */
#define AS_OUTPUT_FDS 3   /* and the log file, where that is a pipe or a terminal */

typedef struct {
    int fd;          /* open until as_output_close: who holds its other end is asked before */
    bool ended;      /* nothing more is read */
    bool hung_up;    /* no writer is left */
    bool busy;       /* the last read filled its buffer */
    bool large;      /* the pipe has its large size */
    bool in_line;    /* the last byte was no newline */
    size_t to_drain; /* draining: more than the pipe held comes from a writer that lives on */
} as_stream;

typedef struct {
    as_limits limits;
    bool has_logger;
    as_queue queue;
    pthread_mutex_t tail_lock; /* guards tail */
    as_tail tail;

    /* All below belongs to the thread in as_run_supervise. */
    as_stream streams[AS_OUTPUT_PIPES];
    as_logfile *log;
    bool draining;         /* only what the pipes hold is read */
    int64_t room_deadline; /* the queue is full until then; 0: it is not */
    char *scratch;         /* for bytes that no queue takes */
    char *log_rest;        /* what the log's target had no room for */
    size_t log_rest_size, log_rest_room;
    int64_t log_deadline; /* when to drop log_rest */
    int64_t rotate_until; /* no rotation after it */
    bool log_stuck;
    int log_errno; /* of the first write that failed */
    int64_t bytes;
    int64_t counted_lines; /* where no logger is */
    as_ends *errors;       /* stderr's first and last lines; NULL before the first */
} as_output;

/* *output is zero. 0 or -errno: then there is nothing to free. */
int as_output_init(as_output *output, as_pool *pool, as_run *run, int wake_fd,
                   const as_limits *limits);
/* The streams are its own from here on. */
void as_output_begin(as_output *output, as_logfile *log, int stdout_fd, int stderr_fd);
/* Closes the streams. */
void as_output_close(as_output *output);
void as_output_free(as_output *output);
/* Both from any thread. Too little room: the begin of the line; of the tail, the end. */
size_t as_output_last_line(as_output *output, char *line, size_t size);
size_t as_output_tail(as_output *output, char *lines, size_t size);
/* The script waits: for room in the queue, or for the log's target. */
bool as_output_held_back(const as_output *output);
/* The queue may have room again. */
void as_output_has_room(as_output *output);
/* What to poll for, until when, and what to do then. */
void as_output_pollfds(const as_output *output, struct pollfd fds[AS_OUTPUT_FDS]);
int64_t as_output_deadline(const as_output *output);
void as_output_handle(as_output *output, const struct pollfd fds[AS_OUTPUT_FDS], int64_t now);
bool as_output_no_writers(const as_output *output);
/* The last poll may be older than the script's exit, or none may have been yet. */
void as_output_look_for_hang_ups(as_output *output);
/* From now on only what the pipes hold is read. in_time: a log may outgrow its limit, if to rotate over
   and over would take longer than a second. */
void as_output_drain(as_output *output, bool in_time, int64_t now);
bool as_output_at_end(const as_output *output);
/* Unfinished lines become lines of the tail, and count where no logger is. */
void as_output_end_lines(as_output *output);
int as_output_note(as_output *output, as_logfile *log, const char *text, size_t size);

/* ---- census.c: which processes there are ---- */

typedef struct {
    char *bytes;
    size_t room;
} as_text;

typedef struct {
    uint64_t started; /* clock ticks after boot */
    uint64_t inode;   /* in /proc; 0: unknown */
    size_t ids;       /* where its run ids are in the listing's; 0: none */
    int pid, parent, group, session;
    bool dead;
    bool exiting;  /* it runs no more of its program, so it does not fork */
    bool member;   /* for who has the listing */
    bool unmarked; /* likewise: a member by its parent alone */
} as_process;

typedef struct {
    as_process *list; /* by pid; of one known from before, only who it is and whether it is dead */
    size_t count;
    const char *ids;
    bool complete; /* no process can have slipped through */
} as_listing;

/* Takes the census's lock, also when it fails, until as_census_end. The listing began after the call
   did, and has the run ids of processes that started at `since` or later. 0 or -errno. */
int as_census_begin(as_census *census, uint64_t since, as_listing *out);
void as_census_end(as_census *census);
as_process *as_process_find(as_process *list, size_t count, int pid);
/* How a process is now, but for its run ids. Needs no lock, as little as as_process_ids. False: there is
   none, or as_out_of_resources. */
bool as_process_read(const as_census *census, int pid, as_process *out);
/* The run ids in a process's environment; NULL: none, or it is gone, or not ours to read, or, with
   EAGAIN, it has been in the middle of an exec for a millisecond. */
const char *as_process_ids(const as_census *census, int pid, as_text *buffer);
/* Of a file that could not be read: the process may be there all the same. */
bool as_out_of_resources(void);
/* Makes room in an array for what is needed, and twice that. False: no memory, nothing changed. */
bool as_grow(void *array, size_t *room, size_t needed, size_t size);

/* ---- tree.c: which of them are a run's ---- */

#define AS_TREE_FDS 64

typedef struct {
    int pid;
    int pidfd; /* -1: it could not be had */
} as_member;

typedef struct {
    as_census *census;
    const char *run_id;
    int leader, leader_fd, cgroup_fd;
    bool leader_ours; /* unreaped, so its number is its own */
    bool untold;      /* the last sweep could not signal all that it found */
    bool ending;      /* it met nothing but what can fork no more, and has a pidfd of each */
    uint64_t since;   /* the leader's start, in clock ticks after boot; 0: unknown */
    size_t count;     /* how many besides the leader were alive at the last sweep */
    /* Of those, as many as there is room for. Who has a pidfd stays a member until that says that it has
       ended: before, its parent may be gone, and its environment with its memory. */
    as_member members[AS_TREE_FDS];
    size_t listed, watched; /* watched: those with a pidfd */
} as_tree;

/* To a leader's process group. */
void as_signal_group(int leader, int leader_fd, int signal);
void as_tree_begin(as_tree *tree, as_census *census, int leader, int leader_fd, int cgroup_fd,
                   const char *run_id);
/* Finds what is alive besides the leader and signals it: SIGKILL all, and the group, also when it
   fails; 0 none; else those outside the group, and SIGCONT after. Returns how many there are or
   may be, or -errno. */
int as_tree_sweep(as_tree *tree, int signal);
/* Forgets the members whose pidfd says that they have ended. */
void as_tree_forget_ended(as_tree *tree);
void as_tree_free(as_tree *tree);
int as_pidfd_open(int pid);
/* Whether the process is dead, reaped or not. */
bool as_has_ended(int pidfd);
/* The exit status kept by the kernel (Linux 6.15). */
bool as_pidfd_exit_status(int pidfd, int *status);

#endif
