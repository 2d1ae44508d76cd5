/*
 * queue.c: output on its way to the logger (L5-L7).
 *
 * A run's queue is a ring of bytes, AS_QUEUE_BYTES large, and a list of spans: which of its bytes
 * belong to which stream and when they were read. The producer (output.c) reads straight into the
 * ring; the consumer (batch.c) cuts whole lines out of it and hands them on where they lie, so that a
 * line is copied only where it crosses from one span to another. The pool's lock guards it all.
 */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* ---- the ring; lock held ---- */

static uint32_t ring_head(const as_queue *queue) {
    return queue->taken_ring ? queue->taken_start : as_queue_span(queue, 0)->start;
}

static bool ring_empty(const as_queue *queue) {
    return queue->span_count == 0 && !queue->taken_ring;
}

uint32_t as_queue_find_room(as_queue *queue, bool move) {
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
    const as_span *last = as_queue_span(queue, queue->span_count - 1);
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
        as_queue_find_room(queue, true) < size) {
        return false;
    }
    memcpy(queue->bytes + queue->tail, text, size);
    *as_queue_span(queue, queue->span_count++) = (as_span){as_realtime(), queue->tail,
                                                           (uint32_t)size, 2, AS_GAP_NONE};
    queue->tail += (uint32_t)size;
    return true;
}

/* A queue that waits for a thread is held up by other runs, or by a busy machine, not by its logger. */
static int64_t progress_at(const as_queue *queue) {
    bool by_others = queue->ready && queue->pool->progress_at > queue->progress_at;
    return by_others ? queue->pool->progress_at : queue->progress_at;
}

void as_queue_note_gap(as_queue *queue) {
    char text[128];
    int size = snprintf(text, sizeof text,
                        "agentscripts: %llu lines were dropped here: the logger was too slow\n",
                        (unsigned long long)queue->gap_lines);
    if (size > 0 && push_note(queue, text, (size_t)size)) {
        queue->gap_lines = 0;
    }
}

static void commit(as_queue *queue, int stream, uint32_t n) {
    if (!queue->owned && !queue->ready) {
        queue->progress_at = as_monotonic(); /* until now there was nothing to deliver */
    }
    if (can_append(queue, stream)) {
        as_queue_span(queue, queue->span_count - 1)->size += n;
    } else {
        *as_queue_span(queue, queue->span_count++) = (as_span){as_realtime(), queue->tail, n,
                                                               (uint8_t)stream, queue->gap[stream]};
        queue->gap[stream] = AS_GAP_NONE;
    }
    queue->tail += n;
    as_pool_put(queue);
}

/* ---- the producer's side; takes the lock ---- */

char *as_queue_reserve(as_queue *queue, int stream, bool ended, size_t *room, int64_t *deadline) {
    char *place = NULL;
    int64_t patience = queue->limits.stall_timeout;
    if (ended) {
        patience = as_earlier(patience, queue->limits.flush_timeout);
    }
    pthread_mutex_lock(&queue->pool->lock);
    if (!queue->abandoned && (queue->bytes || make_ring(queue))) {
        if (queue->gap_lines && as_queue_find_room(queue, false) >= AS_QUEUE_ROOM) {
            as_queue_note_gap(queue);
        }
        uint32_t found = as_queue_find_room(queue, true);
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
        as_pool_put(queue);
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
        as_pool_put(queue);
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
        queue->span_count < AS_QUEUE_SPANS && as_queue_find_room(queue, true) > 0) {
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
        bool unfinished = queue->skip[stream];
        size_t left = queue->carry_size[stream] - queue->carry_taken[stream];
        if (left > 0) { /* a whole line, too, after a piece that was taken */
            const char *p = queue->carry[stream] + queue->carry_taken[stream];
            lines += (int64_t)as_lines_count(p, left);
            unfinished = p[left - 1] != '\n';
        }
        for (uint32_t i = 0; i < queue->span_count; i++) {
            const as_span *span = as_queue_span(queue, i);
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
        if (as_pool_remove(queue)) {
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
