/*
 * queue.c: output on its way to the logger, and the pool of threads that call it (L5-L7).
 *
 * A run's queue is a ring of bytes, AS_QUEUE_BYTES large, and a list of spans: which of its bytes
 * belong to which stream and when they were read. The producer (output.c) reads straight into the
 * ring; the consumer (as_pool_next) cuts whole lines out of it and hands them on where they lie, so
 * that a line is copied only where it crosses from one span to another.
 *
 * One lock, the pool's, guards all queues of a runner: it is held for pointer updates, never while
 * bytes are read, scanned, or handed to Python. The consumer side of a queue has one owner at a time.
 */
#include "internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct as_pool {
    pthread_mutex_t lock;
    pthread_cond_t ready;
    as_queue *first, *last; /* queues with something to do and no owner */
    unsigned waiting;
    bool closed;
    int64_t progress_at; /* monotonic: a thread took a batch */
};

as_pool *as_pool_new(void) {
    as_pool *pool = calloc(1, sizeof *pool);
    if (!pool || pthread_mutex_init(&pool->lock, NULL) != 0) {
        free(pool);
        return NULL;
    }
    if (pthread_cond_init(&pool->ready, NULL) != 0) {
        (void)pthread_mutex_destroy(&pool->lock);
        free(pool);
        return NULL;
    }
    return pool;
}

void as_pool_free(as_pool *pool) {
    if (pool) {
        (void)pthread_cond_destroy(&pool->ready);
        (void)pthread_mutex_destroy(&pool->lock);
        free(pool);
    }
}

void as_pool_close(as_pool *pool) {
    pthread_mutex_lock(&pool->lock);
    pool->closed = true;
    pthread_cond_broadcast(&pool->ready);
    pthread_mutex_unlock(&pool->lock);
}

/* Lock held from here on, where not said otherwise. A queue in the list and one in a thread's hands
   keep their run, so a run that ends needs no lock to leave: a forked child may free it. */

/* The list's hold on the run comes with it. */
static void append_ready(as_queue *queue) {
    as_pool *pool = queue->pool;
    if (queue->ready || queue->owned || queue->abandoned) {
        return;
    }
    queue->ready = true;
    as_run_retain(queue->run);
    queue->next = NULL;
    if (pool->last) {
        pool->last->next = queue;
    } else {
        pool->first = queue;
    }
    pool->last = queue;
}

static void make_ready(as_queue *queue) {
    append_ready(queue);
    if (queue->ready && queue->pool->waiting) {
        pthread_cond_signal(&queue->pool->ready);
    }
}

/* Takes a queue out of the list, if it is there; the list's hold on the run goes to the caller. */
static bool unlink_ready(as_queue *queue) {
    as_pool *pool = queue->pool;
    as_queue *before = NULL;
    for (as_queue *q = pool->first; q; before = q, q = q->next) {
        if (q == queue) {
            *(before ? &before->next : &pool->first) = q->next;
            pool->last = pool->last == q ? before : pool->last;
            queue->ready = false;
            return true;
        }
    }
    return false;
}

static as_span *span_at(const as_queue *queue, uint32_t index) {
    return &queue->spans[(queue->span_first + index) % AS_QUEUE_SPANS];
}

static uint32_t ring_head(const as_queue *queue) {
    return queue->taken_ring ? queue->taken_start : span_at(queue, 0)->start;
}

static bool ring_empty(const as_queue *queue) {
    return queue->span_count == 0 && !queue->taken_ring;
}

/* Moves the tail to where the most room is; returns that room. */
static uint32_t find_room(as_queue *queue, bool move) {
    if (ring_empty(queue)) {
        if (move) {
            queue->tail = 0; /* the same memory again is in the cache */
        }
        return AS_QUEUE_BYTES;
    }
    uint32_t head = ring_head(queue);
    if (queue->tail <= head) {
        return head - queue->tail;
    }
    uint32_t at_end = AS_QUEUE_BYTES - queue->tail;
    if (at_end < AS_QUEUE_ROOM && head >= AS_QUEUE_ROOM) {
        if (move) {
            queue->tail = 0;
        }
        return head;
    }
    return at_end;
}

static bool can_append(const as_queue *queue, int stream) {
    if (queue->span_count == 0) {
        return false;
    }
    const as_span *last = span_at(queue, queue->span_count - 1);
    return last->stream == stream && last->start + last->size == queue->tail &&
           queue->gap[stream] == AS_GAP_NONE &&
           (queue->span_count == AS_QUEUE_SPANS ||
            as_realtime() - last->created < 20 * AS_MILLISECOND);
}

static bool make_ring(as_queue *queue) {
    size_t spans = AS_QUEUE_SPANS * sizeof(as_span);
    /* mmap: pages that no output reaches cost nothing. */
    char *bytes = mmap(NULL, AS_QUEUE_BYTES + spans, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (bytes == MAP_FAILED) {
        return false;
    }
    queue->bytes = bytes;
    queue->spans = (as_span *)(void *)(bytes + AS_QUEUE_BYTES);
    return true;
}

/* Notes fit into the room that is too little for a read. False: no room, or no memory for a ring. */
static bool push_note(as_queue *queue, const char *text, size_t size) {
    if ((!queue->bytes && !make_ring(queue)) || queue->span_count == AS_QUEUE_SPANS ||
        find_room(queue, true) < size) {
        return false;
    }
    memcpy(queue->bytes + queue->tail, text, size);
    *span_at(queue, queue->span_count++) = (as_span){as_realtime(), queue->tail, (uint32_t)size, 2,
                                                     AS_GAP_NONE};
    queue->tail += (uint32_t)size;
    return true;
}

/* A queue that waits for a thread is held up by other runs, or by a busy machine, not by its logger. */
static int64_t progress_at(const as_queue *queue) {
    bool by_others = queue->ready && queue->pool->progress_at > queue->progress_at;
    return by_others ? queue->pool->progress_at : queue->progress_at;
}

/* Says how many lines are missing, before the first that comes after them. */
static void note_gap(as_queue *queue) {
    char text[128];
    int size = snprintf(text, sizeof text,
                        "agentscripts: %llu lines were dropped here: the logger was too slow\n",
                        (unsigned long long)queue->gap_lines);
    if (size > 0 && push_note(queue, text, (size_t)size)) {
        queue->gap_lines = 0;
    }
}

char *as_queue_reserve(as_queue *queue, int stream, bool ended, size_t *room, int64_t *deadline) {
    char *place = NULL;
    int64_t patience = queue->limits.stall_timeout;
    if (ended) {
        patience = as_earlier(patience, queue->limits.flush_timeout);
    }
    pthread_mutex_lock(&queue->pool->lock);
    if (!queue->abandoned && (queue->bytes || make_ring(queue))) {
        if (queue->gap_lines && find_room(queue, false) >= AS_QUEUE_ROOM) {
            note_gap(queue);
        }
        uint32_t found = find_room(queue, true);
        if (found >= AS_QUEUE_ROOM && queue->gap_lines == 0 &&
            (queue->span_count < AS_QUEUE_SPANS || can_append(queue, stream))) {
            place = queue->bytes + queue->tail;
            *room = found - AS_QUEUE_NOTE;
        }
    }
    queue->waiting = place == NULL;
    *deadline = queue->bytes && !queue->abandoned ? as_after(progress_at(queue), patience) : 0;
    pthread_mutex_unlock(&queue->pool->lock);
    return place;
}

static void commit(as_queue *queue, int stream, uint32_t n) {
    if (!queue->owned && !queue->ready) {
        queue->progress_at = as_monotonic(); /* until now there was nothing to deliver */
    }
    if (can_append(queue, stream)) {
        span_at(queue, queue->span_count - 1)->size += n;
    } else {
        *span_at(queue, queue->span_count++) = (as_span){as_realtime(), queue->tail, n,
                                                         (uint8_t)stream, queue->gap[stream]};
        queue->gap[stream] = AS_GAP_NONE;
    }
    queue->tail += n;
    make_ready(queue);
}

/* Lock not held, here and below. */

void as_queue_commit(as_queue *queue, int stream, size_t n) {
    pthread_mutex_lock(&queue->pool->lock);
    commit(queue, stream, (uint32_t)n);
    pthread_mutex_unlock(&queue->pool->lock);
}

bool as_queue_note(as_queue *queue, const char *text, size_t size) {
    pthread_mutex_lock(&queue->pool->lock);
    bool pushed = !queue->abandoned && push_note(queue, text, size);
    if (pushed) {
        if (!queue->owned && !queue->ready) {
            queue->progress_at = as_monotonic();
        }
        make_ready(queue);
    }
    pthread_mutex_unlock(&queue->pool->lock);
    return pushed;
}

/* A line that is cut by the gap is dropped whole and counted once, where its newline is. */
void as_queue_drop(as_queue *queue, int stream, const char *p, size_t n) {
    size_t lines = as_lines_count(p, n);
    pthread_mutex_lock(&queue->pool->lock);
    queue->gap[stream] = p[n - 1] == '\n' ? AS_GAP_WHOLE : AS_GAP_INSIDE;
    queue->gap_lines += lines;
    queue->dropped += (int64_t)lines;
    queue->lines += (int64_t)lines;
    pthread_mutex_unlock(&queue->pool->lock);
}

static bool is_untouched(const as_queue *queue) {
    return !queue->bytes && !queue->gap[0] && !queue->gap[1];
}

void as_queue_finish(as_queue *queue) {
    pthread_mutex_lock(&queue->pool->lock);
    if (!queue->owned && !queue->ready) {
        queue->progress_at = as_monotonic();
    }
    queue->final = true;
    if (is_untouched(queue)) { /* no line, so nothing to flush, and no thread to wake for it */
        queue->delivered = true;
    } else {
        queue->waiting = true; /* for the end */
        make_ready(queue);
    }
    pthread_mutex_unlock(&queue->pool->lock);
}

int as_queue_delivered(as_queue *queue, int64_t *deadline) {
    pthread_mutex_lock(&queue->pool->lock);
    int delivered = queue->delivered;
    *deadline = as_after(progress_at(queue), queue->limits.flush_timeout);
    pthread_mutex_unlock(&queue->pool->lock);
    return delivered;
}

void as_queue_end_line(as_queue *queue, int stream) {
    pthread_mutex_lock(&queue->pool->lock);
    if (queue->bytes && !queue->abandoned && queue->gap[stream] == AS_GAP_NONE &&
        queue->span_count < AS_QUEUE_SPANS && find_room(queue, true) > 0) {
        queue->bytes[queue->tail] = '\n';
        commit(queue, stream, 1);
    }
    pthread_mutex_unlock(&queue->pool->lock);
}

void as_queue_counts(as_queue *queue, as_delivery *out) {
    pthread_mutex_lock(&queue->pool->lock);
    out->lines = queue->lines;
    out->dropped = queue->dropped;
    pthread_mutex_unlock(&queue->pool->lock);
}

static int64_t rest_lines(const as_queue *queue) {
    int64_t lines = 0;
    for (int stream = 0; stream < 2; stream++) { /* notes do not count */
        bool unfinished = queue->skip[stream] || queue->carry_size[stream] > queue->carry_taken;
        for (uint32_t i = 0; i < queue->span_count; i++) {
            const as_span *span = span_at(queue, i);
            if (span->stream == stream && span->size) {
                const char *p = queue->bytes + span->start;
                lines += (int64_t)as_lines_count(p, span->size);
                unfinished = p[span->size - 1] != '\n';
            }
        }
        if (queue->gap[stream]) { /* a line that it cut is counted, or not at its end yet */
            unfinished = queue->gap[stream] == AS_GAP_INSIDE;
        }
        lines += unfinished;
    }
    return lines;
}

void as_queue_abandon(as_queue *queue) {
    pthread_mutex_lock(&queue->pool->lock);
    if (!queue->delivered && !queue->abandoned) {
        int64_t rest = rest_lines(queue);
        if (unlink_ready(queue)) {
            as_run_release(queue->run); /* not the last: the caller has one */
        }
        queue->abandoned = true;
        queue->lines += rest;
        queue->dropped += rest;
        queue->span_count = 0;
    }
    pthread_mutex_unlock(&queue->pool->lock);
}

void as_queue_init(as_queue *queue, as_pool *pool, as_run *run, int wake_fd,
                   const as_limits *limits) {
    memset(queue, 0, sizeof *queue);
    queue->pool = pool;
    queue->run = run;
    queue->wake_fd = wake_fd;
    queue->limits = *limits;
    queue->pace.limit = 1; /* one line shows the logger's pace */
}

void as_queue_free(as_queue *queue) {
    if (queue->bytes) {
        (void)munmap(queue->bytes, AS_QUEUE_BYTES + AS_QUEUE_SPANS * sizeof(as_span));
    }
    for (int stream = 0; stream < AS_STREAMS; stream++) {
        free(queue->carry[stream]);
    }
}

/* ---- the consumer's side; lock held ---- */

/* Takes n bytes off the first spans. */
static void advance(as_queue *queue, uint32_t n) {
    while (n > 0) {
        as_span *span = span_at(queue, 0);
        uint32_t part = n < span->size ? n : span->size;
        span->start += part;
        span->size -= part;
        n -= part;
        if (span->size == 0) {
            queue->span_first = (queue->span_first + 1) % AS_QUEUE_SPANS;
            queue->span_count--;
        }
    }
}

/* How many bytes of the first span's stream lie in a row. */
static uint32_t extent(const as_queue *queue, bool *more) {
    const as_span *first = span_at(queue, 0);
    uint32_t end = first->start + first->size, i = 1;
    for (; i < queue->span_count && end - first->start <= AS_BATCH_BYTES; i++) {
        const as_span *span = span_at(queue, i);
        if (span->stream != first->stream || span->start != end || span->gap) {
            break;
        }
        end += span->size;
    }
    *more = i < queue->span_count;
    return end - first->start;
}

/* Appends to the carry what may still belong to its line; false: no memory (the bytes are dropped). */
static bool extend_carry(as_queue *queue, int stream) {
    as_span *span = span_at(queue, 0);
    const char *p = queue->bytes + span->start;
    size_t room = (size_t)queue->limits.max_line + 2, size = queue->carry_size[stream];
    size_t n = span->size < room - size ? span->size : room - size;
    const char *newline = memchr(p, '\n', n);
    n = newline ? (size_t)(newline - p) + 1 : n;
    if (!queue->carry[stream]) {
        queue->carry[stream] = malloc(room);
    }
    if (queue->carry[stream]) {
        memcpy(queue->carry[stream] + size, p, n);
        queue->carry_size[stream] = size + n;
    }
    advance(queue, (uint32_t)n);
    return queue->carry[stream] != NULL;
}

/* Handles the gap before the first span. */
static void step_over_gap(as_queue *queue) {
    as_span *span = span_at(queue, 0);
    if (span->gap) {
        queue->carry_size[span->stream] = 0;
        queue->skip[span->stream] = span->gap == AS_GAP_INSIDE;
        span->gap = AS_GAP_NONE;
    }
    if (queue->skip[span->stream]) {
        const char *p = queue->bytes + span->start;
        const char *newline = memchr(p, '\n', span->size);
        queue->skip[span->stream] = newline == NULL;
        if (newline) {
            queue->lines++;
            queue->dropped++;
        }
        advance(queue, newline ? (uint32_t)(newline - p) + 1 : span->size);
    }
}

static void set_batch(as_batch *batch, int stream, const char *text, as_cut cut) {
    batch->text = text;
    batch->size = cut.text;
    batch->newline_follows = cut.take == cut.text + 1; /* not so a piece: its last \r stays */
    batch->lines = cut.lines;
    batch->stream = (uint32_t)stream;
}

/* Lock not held: makes of a taken batch's bytes what Python gets. Not before they are taken, since
   as_queue_abandon counts the lines of those that are not. */
static void clean_batch(as_batch *batch) {
    if (batch->lines) {
        char *text = (char *)(uintptr_t)batch->text;
        batch->size = as_lines_drop_cr(text, batch->size, batch->newline_follows);
        batch->has_nul = memchr(text, 0, batch->size) != NULL;
    }
}

/* A batch out of a stream's carry, if that holds a whole line (final: whatever it holds). */
static bool take_carry(as_queue *queue, as_batch *batch, int stream, bool final) {
    size_t size = queue->carry_size[stream];
    if (size == 0) {
        return false;
    }
    as_cut cut = as_lines_cut(queue->carry[stream], size, (size_t)queue->limits.max_line, 1, final);
    if (cut.take == 0) {
        return false;
    }
    batch->carried = 1;
    queue->carry_taken = (uint32_t)cut.take;
    set_batch(batch, stream, queue->carry[stream], cut);
    return true;
}

/* Fills the batch from the ring. False: no whole line there. Releases the lock while it looks for
   newlines: the first spans are the owner's. */
static bool take_ring(as_queue *queue, as_batch *batch) {
    while (queue->span_count > 0) {
        const as_span *span = span_at(queue, 0);
        int stream = span->stream;
        if (span->gap || queue->skip[stream]) {
            step_over_gap(queue);
            continue;
        }
        batch->created = span->created;
        if (queue->carry_size[stream]) {
            (void)extend_carry(queue, stream);
            if (take_carry(queue, batch, stream, false)) {
                return true;
            }
            continue;
        }
        bool more, more_now;
        uint32_t start = span->start, n = extent(queue, &more);
        const char *text = queue->bytes + start;
        pthread_mutex_unlock(&queue->pool->lock);
        as_cut cut = as_lines_cut(text, n, (size_t)queue->limits.max_line, queue->pace.limit,
                                  false);
        pthread_mutex_lock(&queue->pool->lock);
        if (queue->abandoned) {
            return false;
        }
        if (cut.take) {
            set_batch(batch, stream, text, cut);
            queue->taken_ring = true;
            queue->taken_start = start;
            advance(queue, (uint32_t)cut.take);
            return true;
        }
        if (extent(queue, &more_now) != n || more_now != more) {
            continue; /* more came meanwhile, and found the queue owned */
        }
        if (!more && !queue->final && queue->span_count < AS_QUEUE_SPANS) {
            return false; /* the line's rest is to come, right behind it */
        }
        if (!extend_carry(queue, stream)) {
            queue->lines++;
            queue->dropped++;
        }
    }
    return false;
}

/* The lines without a newline at the very end. */
static bool take_rest(as_queue *queue, as_batch *batch) {
    for (int stream = 0; stream < AS_STREAMS; stream++) {
        if (queue->gap[stream] || queue->skip[stream]) {
            /* A newline in the gap has ended, and counted, the line that is skipped. */
            bool unfinished = queue->gap[stream] ? queue->gap[stream] == AS_GAP_INSIDE
                                                 : queue->skip[stream];
            queue->lines += unfinished;
            queue->dropped += unfinished;
            queue->gap[stream] = AS_GAP_NONE;
            queue->skip[stream] = false;
            queue->carry_size[stream] = 0;
        }
        batch->created = as_realtime();
        if (take_carry(queue, batch, stream, true)) {
            return true;
        }
    }
    return false;
}

/* Fills the batch with what comes next; false: nothing to do now. */
static bool take(as_queue *queue, as_batch *batch) {
    batch->carried = 0;
    batch->lines = 0;
    batch->size = 0;
    bool found = take_ring(queue, batch);
    if (!found && queue->final && !queue->abandoned) {
        found = take_rest(queue, batch);
        if (!found && queue->gap_lines) {
            note_gap(queue);
            found = take_ring(queue, batch);
        }
        if (!found && !queue->flush_sent) {
            queue->flush_sent = found = true;
        }
    }
    queue->lines += found && batch->stream != 2 ? batch->lines : 0;
    return found && !queue->abandoned;
}

static void end_batch(as_queue *queue, const as_batch *batch) {
    int64_t now = as_monotonic();
    queue->progress_at = now;
    if (batch->carried) {
        int stream = (int)batch->stream;
        queue->carry_size[stream] -= queue->carry_taken;
        memmove(queue->carry[stream], queue->carry[stream] + queue->carry_taken,
                queue->carry_size[stream]);
        queue->carry_taken = 0;
    }
    queue->taken_ring = false;
    if (batch->lines) {
        as_pace_note(&queue->pace, batch->lines, now - batch->taken_at,
                     queue->limits.stall_timeout);
    } else {
        queue->delivered = true;
    }
    bool wanted = queue->final ? queue->delivered : find_room(queue, false) >= AS_QUEUE_BYTES / 2;
    if (queue->waiting && wanted) {
        queue->waiting = false;
        as_wake(queue->wake_fd);
    }
}

/* Ends the batch that a thread held and puts its queue behind the others: runs take turns. */
static void give_back(as_batch *batch) {
    as_run *run = batch->run;
    as_queue *queue = as_run_queue(run);
    end_batch(queue, batch);
    queue->owned = false;
    batch->run = NULL;
    if (queue->span_count || (queue->final && !queue->delivered)) {
        append_ready(queue);
    }
    as_run_release(run);
}

int as_pool_next(as_pool *pool, as_batch *batch) {
    pthread_mutex_lock(&pool->lock);
    if (batch->run) {
        give_back(batch);
    }
    for (;;) {
        while (!pool->first && !pool->closed && pool->waiting < AS_SPARE_THREADS) {
            pool->waiting++;
            pthread_cond_wait(&pool->ready, &pool->lock);
            pool->waiting--;
        }
        as_queue *queue = pool->first;
        if (!queue) {
            pthread_mutex_unlock(&pool->lock);
            return AS_CLOSED;
        }
        (void)unlink_ready(queue);
        if (pool->first) {
            pthread_cond_signal(&pool->ready); /* the next one is for another thread */
        }
        queue->owned = true;
        if (take(queue, batch)) {
            batch->run = queue->run;
            batch->key = queue->limits.key;
            batch->waiting = pool->waiting;
            batch->taken_at = queue->progress_at = pool->progress_at = as_monotonic();
            pthread_mutex_unlock(&pool->lock);
            clean_batch(batch);
            return 0;
        }
        queue->owned = false; /* what it holds is no whole line: the next commit makes it ready */
        if (queue->waiting && !queue->final) {
            queue->waiting = false; /* and that commit needs room, of which there may be little */
            as_wake(queue->wake_fd);
        }
        as_run_release(queue->run);
    }
}
