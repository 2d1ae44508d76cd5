/*
 * batch.c: whole lines out of a run's queue, as a thread of the pool gets them (L5-L7).
 */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

/* Lock held, where not said otherwise. */

/* Takes n bytes off the first spans. */
static void advance(as_queue *queue, uint32_t n) {
    while (n > 0) {
        as_span *span = as_queue_span(queue, 0);
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
    const as_span *first = as_queue_span(queue, 0);
    uint32_t end = first->start + first->size, i = 1;
    for (; i < queue->span_count && end - first->start <= AS_BATCH_BYTES; i++) {
        const as_span *span = as_queue_span(queue, i);
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
    as_span *span = as_queue_span(queue, 0);
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
    as_span *span = as_queue_span(queue, 0);
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
    batch->ascii = cut.ascii;
    batch->stream = (uint32_t)stream;
}

void as_batch_clean(as_batch *batch) {
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
    queue->carry_taken[stream] = cut.take;
    set_batch(batch, stream, queue->carry[stream], cut);
    return true;
}

/* A batch out of what pieces of long lines have left in a carry: the end of such a line. */
static bool take_left(as_queue *queue, as_batch *batch) {
    bool found = false;
    for (int stream = 0; !found && stream < AS_STREAMS; stream++) {
        found = take_carry(queue, batch, stream, false);
    }
    if (found) {
        batch->created = as_realtime();
    }
    return found;
}

/* Fills the batch from the ring. False: no whole line there. Releases the lock while it looks for
   newlines: the first spans are the owner's. */
static bool take_ring(as_queue *queue, as_batch *batch) {
    if (take_left(queue, batch)) {
        return true;
    }
    while (queue->span_count > 0) {
        const as_span *span = as_queue_span(queue, 0);
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

bool as_batch_take(as_batch *batch, as_queue *queue) {
    batch->carried = 0;
    batch->lines = 0;
    batch->size = 0;
    bool found = take_ring(queue, batch);
    if (!found && queue->final && !queue->abandoned) {
        found = take_rest(queue, batch);
        if (!found && queue->gap_lines) {
            as_queue_note_gap(queue);
            found = take_ring(queue, batch);
        }
        if (!found && !queue->flush_sent) {
            queue->flush_sent = found = true;
        }
    }
    queue->lines += found && batch->stream != 2 ? batch->lines : 0;
    return found && !queue->abandoned;
}

void as_batch_end(const as_batch *batch, as_queue *queue) {
    int64_t now = as_monotonic();
    queue->progress_at = now;
    if (batch->carried) {
        int stream = (int)batch->stream;
        queue->carry_size[stream] -= queue->carry_taken[stream];
        memmove(queue->carry[stream], queue->carry[stream] + queue->carry_taken[stream],
                queue->carry_size[stream]);
        queue->carry_taken[stream] = 0;
    }
    queue->taken_ring = false;
    if (batch->lines) {
        as_pace_note(&queue->pace, batch->lines, now - batch->taken_at,
                     queue->limits.stall_timeout);
    } else {
        queue->delivered = true;
    }
    bool wanted = queue->final ? queue->delivered
                               : as_queue_find_room(queue, false) >= AS_QUEUE_BYTES / 2;
    if (queue->waiting && wanted) {
        queue->waiting = false;
        as_wake(queue->wake_fd);
    }
}
