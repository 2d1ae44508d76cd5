/* tail.c: the last lines of a run, and the ends of one stream, kept whatever the logger does with the
   rest. */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

/* Where the last `count` lines of p[0, n) begin, n just after a newline; *found: how many there are
   that begin inside p. */
static size_t last_lines(const char *p, size_t n, int count, int *found) {
    size_t start = n;
    for (*found = 0; *found < count && start > 0; ++*found) {
        const char *newline = memrchr(p, '\n', start - 1);
        start = newline ? (size_t)(newline - p) + 1 : 0;
    }
    return start;
}

/* Keeps the last AS_TAIL_BYTES of what was there and p. */
static void keep(as_tail *tail, const char *p, size_t n) {
    if (!tail->buffer) {
        tail->buffer = malloc((size_t)2 * AS_TAIL_BYTES);
        if (!tail->buffer) {
            return; /* the tail is a convenience: the log file and the logger have the lines */
        }
    }
    if (n > AS_TAIL_BYTES) {
        p += n - AS_TAIL_BYTES;
        n = AS_TAIL_BYTES;
    }
    if (tail->size + n > (size_t)2 * AS_TAIL_BYTES) {
        size_t keep_size = AS_TAIL_BYTES - n;
        memmove(tail->buffer, tail->buffer + tail->size - keep_size, keep_size);
        tail->size = keep_size;
    }
    memcpy(tail->buffer + tail->size, p, n);
    tail->size += n;
}

static void keep_partial(as_tail *tail, int stream, const char *p, size_t n) {
    size_t size = tail->partial_size[stream];
    size_t left = AS_TAIL_BYTES / 2 - size;
    n = n < left ? n : left; /* the begin of a long line says more than its middle */
    if (n == 0) {
        return;
    }
    if (size + n > tail->partial_room[stream]) {
        size_t room = (size + n) * 2;
        room = room < AS_TAIL_BYTES / 2 ? room : AS_TAIL_BYTES / 2;
        char *larger = realloc(tail->partial[stream], room);
        if (!larger) {
            return;
        }
        tail->partial[stream] = larger;
        tail->partial_room[stream] = room;
    }
    memcpy(tail->partial[stream] + size, p, n);
    tail->partial_size[stream] = size + n;
}

void as_tail_push(as_tail *tail, int stream, const char *p, size_t n) {
    const char *newline = memrchr(p, '\n', n);
    if (newline) {
        size_t end = (size_t)(newline - p) + 1;
        int found;
        size_t start = last_lines(p, end, AS_TAIL_LINES, &found);
        if (start == 0 && tail->partial_size[stream]) {
            keep(tail, tail->partial[stream], tail->partial_size[stream]);
        }
        keep(tail, p + start, end - start);
        tail->partial_size[stream] = 0;
        p += end;
        n -= end;
    }
    keep_partial(tail, stream, p, n);
}

void as_tail_finish(as_tail *tail) {
    for (int stream = 0; stream < 2; stream++) {
        if (tail->partial_size[stream]) {
            as_tail_push(tail, stream, "\n", 1);
        }
    }
}

size_t as_tail_lines(const as_tail *tail, int count, const char **text) {
    int found;
    size_t size = tail->buffer ? tail->size : 0;
    size_t start = last_lines(tail->buffer, size, count, &found);
    if (start == 0 && size > AS_TAIL_BYTES) {
        start = size - AS_TAIL_BYTES;
    }
    *text = size ? tail->buffer + start : "";
    return size - start;
}

void as_tail_free(as_tail *tail) {
    free(tail->buffer);
    free(tail->partial[0]);
    free(tail->partial[1]);
}

/* The first lines have places of their own, the later ones share the rest in turn. */
static size_t place_of(uint64_t line) {
    return line < AS_ENDS_LINES ? line : AS_ENDS_LINES + line % AS_ENDS_LINES;
}

/* Where the last lines of p[0, n) begin, which may be all that is to be kept of it. */
static size_t skip_middle(as_ends *ends, const char *p, size_t n) {
    int found;
    size_t start = 0;
    const char *newline = memrchr(p, '\n', n);
    if (newline && ends->ended >= AS_ENDS_LINES) {
        start = last_lines(p, (size_t)(newline - p) + 1, AS_ENDS_LINES, &found);
    }
    if (start > 0) {
        ends->ended += as_lines_count(p, start);
        ends->open = false;
    }
    return start;
}

void as_ends_push(as_ends **owner, const char *p, size_t n) {
    if (!*owner) {
        *owner = calloc(1, sizeof **owner);
    }
    as_ends *ends = *owner;
    while (ends && n > 0) {
        size_t skipped = skip_middle(ends, p, n);
        p += skipped;
        n -= skipped;
        const char *newline = memchr(p, '\n', n);
        size_t length = newline ? (size_t)(newline - p) : n, place = place_of(ends->ended);
        if (!ends->open) {
            ends->open = true;
            /* The analyzer overlooks that a count of lines does not wrap. */
            ends->size[place] = 0; /* NOLINT(clang-analyzer-security.ArrayBound) */
        }
        size_t left = AS_ENDS_BYTES - ends->size[place];
        size_t kept = length < left ? length : left;
        memcpy(ends->line[place] + ends->size[place], p, kept);
        ends->size[place] += kept;
        if (newline) {
            ends->ended++;
            ends->open = false;
            length++;
        }
        p += length;
        n -= length;
    }
}

int64_t as_ends_copy(const as_ends *ends, char *out, size_t *size) {
    *size = 0;
    if (!ends) {
        return 0;
    }
    uint64_t count = ends->ended + ends->open;
    for (uint64_t line = 0; line < count; line++) {
        if (line == AS_ENDS_LINES && count > (uint64_t)2 * AS_ENDS_LINES) {
            line = count - AS_ENDS_LINES;
        }
        size_t place = place_of(line);
        memcpy(out + *size, ends->line[place], ends->size[place]);
        *size += ends->size[place];
        out[(*size)++] = '\n';
    }
    return (int64_t)count;
}
