/*
 * output.c: what a script prints, on its way to the log file, the tail and the queue (L1-L7).
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SMALL_READ 4096
#define LARGE_READ ((size_t)128 * 1024)
#define LARGEST_READ ((size_t)384 * 1024) /* where no queue takes the memory */
#define BUSY_READ 32768                   /* a read of this size earns a pipe of BUSY_PIPE */
#define BUSY_PIPE (1024 * 1024)

/* L6: a run has 1 MiB at most; log_rest is as large as a read. */
enum {
    MEMORY = 1024 * 1024,
    LONGEST_LINE = 65536,
    QUEUE = AS_QUEUE_BYTES + AS_QUEUE_SPANS * sizeof(as_span) +
        (size_t)AS_OUTPUT_PIPES * (LONGEST_LINE + 2),
    TAIL_AND_ENDS = (size_t)3 * AS_TAIL_BYTES + sizeof(as_ends),
};
_Static_assert(QUEUE + TAIL_AND_ENDS + 2 * LARGE_READ <= MEMORY, "with a logger");
_Static_assert(TAIL_AND_ENDS + 2 * LARGEST_READ <= MEMORY, "without one");

int as_output_init(as_output *output, as_pool *pool, as_run *run, int wake_fd,
                   const as_limits *limits) {
    int error = pthread_mutex_init(&output->tail_lock, NULL);
    if (error != 0) {
        return -error;
    }
    output->limits = *limits;
    output->rotate_until = AS_FOREVER;
    output->has_logger = pool != NULL;
    output->streams[0].fd = output->streams[1].fd = -1;
    if (pool) {
        as_queue_init(&output->queue, pool, run, wake_fd, limits);
    }
    return 0;
}

void as_output_begin(as_output *output, as_logfile *log, int stdout_fd, int stderr_fd) {
    output->log = log;
    output->streams[0].fd = stdout_fd;
    output->streams[1].fd = stderr_fd;
}

void as_output_close(as_output *output) {
    as_close(&output->streams[0].fd);
    as_close(&output->streams[1].fd);
}

void as_output_free(as_output *output) {
    as_output_close(output);
    as_queue_free(&output->queue);
    as_tail_free(&output->tail);
    (void)pthread_mutex_destroy(&output->tail_lock);
    free(output->scratch);
    free(output->log_rest);
    free(output->errors);
}

/* ---- what was printed last ---- */

size_t as_output_last_line(as_output *output, char *line, size_t size) {
    const char *text;
    pthread_mutex_lock(&output->tail_lock);
    size_t length = as_tail_lines(&output->tail, 1, &text);
    length = length < size ? length : size;
    memcpy(line, text, length);
    pthread_mutex_unlock(&output->tail_lock);
    return length;
}

size_t as_output_tail(as_output *output, char *lines, size_t size) {
    const char *text;
    pthread_mutex_lock(&output->tail_lock);
    size_t length = as_tail_lines(&output->tail, AS_TAIL_LINES, &text);
    if (length > size) {
        text += length - size;
        length = size;
    }
    memcpy(lines, text, length);
    pthread_mutex_unlock(&output->tail_lock);
    return length;
}

/* ---- the log file ---- */

static void log_failed(as_output *output, int error) {
    if (error && !output->log_errno) {
        output->log_errno = error;
    }
}

static void limit_log_deadline(as_output *output, int64_t now) {
    output->log_deadline = as_earlier(output->log_deadline,
                                      as_after(now, output->limits.flush_timeout));
}

/* Keeps what a full pipe or terminal did not take; the script is held back until it is gone. */
static void keep_for_log(as_output *output, const char *p, size_t n, int64_t now) {
    if (n > output->log_rest_room) {
        char *larger = realloc(output->log_rest, n);
        if (!larger) {
            log_failed(output, ENOMEM);
            return;
        }
        output->log_rest = larger;
        output->log_rest_room = n;
    }
    /* p may be in log_rest: then n is no more than its room, and it was not moved. */
    memmove(output->log_rest, p, n); /* NOLINT(clang-analyzer-unix.Malloc) */
    output->log_rest_size = n;
    /* A file, between two of its rotations, takes more at once. */
    bool full = as_logfile_fd(output->log) >= 0;
    output->log_deadline = full ? as_after(now, output->limits.stall_timeout) : now;
    if (output->draining) {
        limit_log_deadline(output, now);
    }
}

static void write_log(as_output *output, const char *p, size_t n, int64_t now) {
    int error = 0;
    if (as_due(output->rotate_until, now)) {
        as_logfile_postpone(output->log, n); /* better a file that is too large than a late end */
    }
    size_t done = as_logfile_write(output->log, p, n, &error);
    log_failed(output, error);
    if (done > 0) {
        output->log_stuck = false;
    }
    if (done < n && output->log_stuck) {
        log_failed(output, EAGAIN);
    } else if (done < n) {
        keep_for_log(output, p + done, n - done, now);
    }
}

static void retry_log(as_output *output, int64_t now) {
    size_t n = output->log_rest_size;
    output->log_rest_size = 0;
    if (as_due(output->log_deadline, now)) {
        output->log_stuck = true;
    }
    write_log(output, output->log_rest, n, now);
}

/* ---- the streams ---- */

/* Records bytes that were read: they lie in the queue already when `queued`. */
static void record(as_output *output, int index, const char *p, size_t n, bool queued,
                   int64_t now) {
    output->bytes += (int64_t)n;
    pthread_mutex_lock(&output->tail_lock);
    as_tail_push(&output->tail, index, p, n);
    pthread_mutex_unlock(&output->tail_lock);
    if (index == 1) {
        as_ends_push(&output->errors, p, n);
    }
    write_log(output, p, n, now);
    output->streams[index].in_line = p[n - 1] != '\n';
    if (queued) {
        as_queue_commit(&output->queue, index, n);
    } else if (output->has_logger) {
        as_queue_drop(&output->queue, index, p, n);
    } else {
        output->counted_lines += (int64_t)as_lines_count(p, n);
    }
}

/* The queue has no room, or no room in time: NULL and what to do. */
static char *queue_place(as_output *output, int index, size_t *size, bool *drop, int64_t now) {
    char *place = as_queue_reserve(&output->queue, index, output->draining, size,
                                   &output->room_deadline);
    *drop = !place && as_due(output->room_deadline, now);
    if (place || *drop) {
        output->room_deadline = 0;
    }
    return place;
}

/* One read of a stream that is readable. A script's first bytes, and those of a quiet one whose lines
   nobody wants, go by way of the stack: most scripts never make a buffer. */
static void read_stream(as_output *output, int index, int64_t now) {
    as_stream *s = &output->streams[index];
    char small[SMALL_READ], *place = small;
    size_t size = sizeof small;
    size_t large = output->has_logger ? LARGE_READ : LARGEST_READ;
    bool queued = false, drop = !output->has_logger, first = output->bytes == 0;
    if (output->has_logger && !first) {
        place = queue_place(output, index, &size, &drop, now);
        queued = place != NULL;
        if (!queued && !drop) {
            return;
        }
    }
    if (drop && (s->busy || !place)) {
        output->scratch = output->scratch ? output->scratch : malloc(large);
    }
    if (drop && (s->busy || !place) && output->scratch) {
        place = output->scratch;
        size = large;
    }
    place = place ? place : small;
    size = size < large ? size : large;
    ssize_t got = read(s->fd, place, size);
    if (got <= 0) {
        bool empty = errno == EAGAIN;
        s->ended = got == 0 || (empty ? output->draining : errno != EINTR);
        return;
    }
    size_t n = (size_t)got;
    if (first && output->has_logger) {
        char *copy = queue_place(output, index, &size, &drop, now);
        queued = copy != NULL;
        place = copy ? memcpy(copy, place, n) : place;
    }
    record(output, index, place, n, queued, now);
    s->busy = n == size || n >= BUSY_READ;
    if (n >= BUSY_READ && !s->large) {
        /* Fails where the user has no pipe pages left: then it stays as it is. */
        (void)fcntl(s->fd, F_SETPIPE_SZ, BUSY_PIPE);
        s->large = true;
    }
    if (output->draining) {
        s->to_drain -= n < s->to_drain ? n : s->to_drain;
        s->ended = s->to_drain == 0;
    }
}

bool as_output_held_back(const as_output *output) {
    return output->room_deadline != 0 || output->log_rest_size > 0;
}

void as_output_has_room(as_output *output) { output->room_deadline = 0; }

void as_output_pollfds(const as_output *output, struct pollfd fds[AS_OUTPUT_FDS]) {
    bool reading = !as_output_held_back(output);
    for (int i = 0; i < AS_OUTPUT_PIPES; i++) {
        const as_stream *s = &output->streams[i];
        /* While the script is held back only the hang-up is of interest, and that once. */
        bool wanted = !s->ended && (reading || !s->hung_up);
        fds[i] = as_pollfd(wanted ? s->fd : -1, reading ? POLLIN : 0);
    }
    fds[AS_OUTPUT_PIPES] = as_pollfd(output->log_rest_size ? as_logfile_fd(output->log) : -1,
                                     POLLOUT);
}

int64_t as_output_deadline(const as_output *output) {
    int64_t next = output->room_deadline != 0 ? output->room_deadline : AS_FOREVER;
    return output->log_rest_size ? as_earlier(next, output->log_deadline) : next;
}

void as_output_handle(as_output *output, const struct pollfd fds[AS_OUTPUT_FDS], int64_t now) {
    if (output->log_rest_size &&
        (fds[AS_OUTPUT_PIPES].revents || as_due(output->log_deadline, now))) {
        retry_log(output, now);
    }
    if (output->room_deadline != 0 && as_due(output->room_deadline, now)) {
        output->room_deadline = 0;
    }
    for (int i = 0; i < AS_OUTPUT_PIPES; i++) {
        as_stream *s = &output->streams[i];
        if (fds[i].revents & POLLHUP) {
            s->hung_up = true;
        }
        if (fds[i].revents & POLLIN) {
            /* The other stream may just have filled the queue. */
            if (!as_output_held_back(output)) {
                read_stream(output, i, now);
            }
        } else if ((fds[i].events & POLLIN) && (fds[i].revents || output->draining)) {
            s->ended = true; /* hung up and empty, or nothing to drain: no read needed */
        }
    }
}

/* ---- its end ---- */

static bool no_writer(const as_stream *s) { return s->ended || s->hung_up; }

bool as_output_no_writers(const as_output *output) {
    return no_writer(&output->streams[0]) && no_writer(&output->streams[1]);
}

void as_output_look_for_hang_ups(as_output *output) {
    if (as_output_no_writers(output)) {
        return;
    }
    struct pollfd fds[AS_OUTPUT_PIPES] = {as_pollfd(output->streams[0].fd, 0),
                                          as_pollfd(output->streams[1].fd, 0)};
    (void)poll(fds, AS_OUTPUT_PIPES, 0);
    for (int i = 0; i < AS_OUTPUT_PIPES; i++) {
        as_stream *s = &output->streams[i];
        s->hung_up = s->hung_up || (fds[i].revents & POLLHUP);
    }
}

void as_output_drain(as_output *output, bool in_time, int64_t now) {
    output->draining = true;
    output->rotate_until = in_time ? now + AS_SECOND : AS_FOREVER;
    for (int i = 0; i < AS_OUTPUT_PIPES; i++) {
        as_stream *s = &output->streams[i];
        int size = s->hung_up ? -1 : fcntl(s->fd, F_GETPIPE_SZ);
        s->to_drain = size < 0 ? SIZE_MAX : (size_t)size;
    }
    output->room_deadline = 0; /* flush_timeout may come before it, here and for the log */
    if (output->log_rest_size) {
        limit_log_deadline(output, now);
    }
}

bool as_output_at_end(const as_output *output) {
    return output->streams[0].ended && output->streams[1].ended && output->log_rest_size == 0;
}

void as_output_end_lines(as_output *output) {
    if (!output->has_logger) {
        output->counted_lines += output->streams[0].in_line + output->streams[1].in_line;
    }
    pthread_mutex_lock(&output->tail_lock);
    as_tail_finish(&output->tail);
    pthread_mutex_unlock(&output->tail_lock);
}

/* ---- notes ---- */

int as_output_note(as_output *output, as_logfile *log, const char *text, size_t size) {
    int error = 0;
    if (as_logfile_in_line(log)) {
        (void)as_logfile_write(log, "\n", 1, &error);
    }
    for (size_t done = 0, some = 1; some > 0 && done < size; done += some) {
        some = as_logfile_write(log, text + done, size - done, &error);
    }
    if (!output->has_logger) {
        return -error;
    }
    for (int i = 0; i < AS_OUTPUT_PIPES; i++) {
        if (output->streams[i].in_line) {
            as_queue_end_line(&output->queue, i); /* else that line would come after the note */
            output->streams[i].in_line = false;
        }
    }
    return as_queue_note(&output->queue, text, size) ? -error : -ENOBUFS;
}
