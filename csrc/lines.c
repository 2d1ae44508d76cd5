/* lines.c: where lines end. Pure functions; see L5 in docs/architecture.md. */
#include "internal.h"

#include <string.h>

/* Sixteen bytes at a time: GCC and Clang turn this into SSE2 or NEON. A call of memchr per line
   takes three times as long for lines of 80 bytes. */
typedef int8_t vector __attribute__((vector_size(16)));

size_t as_lines_look(const char *p, size_t n, bool *ascii) {
    size_t count = 0;
    vector all = {0};
    while (n >= sizeof(vector)) {
        size_t blocks = n / sizeof(vector);
        if (blocks > 127) {
            blocks = 127; /* a lane counts to 127 */
        }
        vector sums = {0};
        for (size_t i = 0; i < blocks; i++) {
            vector bytes;
            memcpy(&bytes, p + i * sizeof(vector), sizeof bytes);
            sums -= bytes == '\n';
            all |= bytes;
        }
        for (size_t lane = 0; lane < sizeof(vector); lane++) {
            count += (size_t)sums[lane];
        }
        p += blocks * sizeof(vector);
        n -= blocks * sizeof(vector);
    }
    unsigned bits = 0;
    for (size_t lane = 0; lane < sizeof(vector); lane++) {
        bits |= (unsigned char)all[lane];
    }
    /* cppcheck-suppress knownConditionTrueFalse; it does not know the vector's size */
    for (size_t i = 0; i < n; i++) {
        count += p[i] == '\n';
        bits |= (unsigned char)p[i];
    }
    *ascii = bits < 0x80;
    return count;
}

size_t as_lines_count(const char *p, size_t n) {
    bool ascii;
    return as_lines_look(p, n, &ascii);
}

/* The largest m <= size that splits no UTF-8 sequence (or size, when p is no UTF-8 there). */
static size_t utf8_boundary(const char *p, size_t size) {
    for (size_t back = 1; back <= 3 && back < size; back++) {
        unsigned char c = (unsigned char)p[size - back];
        if ((c & 0xC0) == 0x80) {
            continue;
        }
        size_t length = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : c >= 0xC0 ? 2 : 1;
        return length > back ? size - back : size;
    }
    return size;
}

/* The first line has no newline within max_line bytes. It is rare, and taken for no ASCII. */
static as_cut cut_long(const char *p, size_t n, size_t max_line, bool final) {
    if (n <= max_line || (n == max_line + 1 && p[max_line] == '\r' && !final)) {
        return final && n > 0 ? (as_cut){n, n, 1, false} : (as_cut){0};
    }
    if (n >= max_line + 2 && p[max_line] == '\r' && p[max_line + 1] == '\n') {
        return (as_cut){max_line + 2, max_line, 1, false};
    }
    size_t piece = utf8_boundary(p, max_line);
    return (as_cut){piece, piece, 1, false};
}

/* The end of the whole lines in p[0, end) that come before the first one longer than max_line;
   end itself follows a newline. */
static size_t before_long_line(const char *p, size_t end, size_t max_line) {
    size_t start = 0;
    while (end - start > max_line + 1) {
        const char *newline = memrchr(p + start, '\n', max_line + 1);
        if (newline) {
            start = (size_t)(newline - p) + 1;
        } else if (p[start + max_line] == '\r' && p[start + max_line + 1] == '\n') {
            start += max_line + 2;
        } else {
            return start;
        }
    }
    return end;
}

/* What the next batch takes of p: whole lines, as many as fit into AS_BATCH_BYTES and max_lines; or
   one piece of a line that is too long; or, at the final end, the rest. */
as_cut as_lines_cut(const char *p, size_t n, size_t max_line, uint32_t max_lines, bool final) {
    size_t window = n < AS_BATCH_BYTES + 1 ? n : AS_BATCH_BYTES + 1;
    const char *newline = window ? memrchr(p, '\n', window) : NULL;
    size_t end = newline ? before_long_line(p, (size_t)(newline - p) + 1, max_line) : 0;
    if (end == 0) {
        return cut_long(p, n, max_line, final);
    }
    bool ascii;
    size_t lines = as_lines_look(p, end, &ascii);
    if (lines > max_lines) {
        end = 0;
        for (lines = 0; lines < max_lines; lines++) {
            newline = memchr(p + end, '\n', n - end);
            end = (size_t)(newline - p) + 1;
        }
    }
    return (as_cut){end, end - 1, (uint32_t)lines, ascii};
}

/* Drops each carriage return before a newline, in place. newline_follows: p[n] would be one. */
size_t as_lines_drop_cr(char *p, size_t n, bool newline_follows) {
    char *from = memchr(p, '\r', n);
    if (!from) {
        return n;
    }
    const char *end = p + n;
    char *to = from;
    while (from < end) {
        const char *next = memchr(from + 1, '\r', (size_t)(end - from) - 1);
        next = next ? next : end;
        bool drop = from + 1 < end ? from[1] == '\n' : newline_follows;
        if (*from == '\r' && drop) {
            from++;
        }
        size_t size = (size_t)(next - from);
        memmove(to, from, size);
        to += size;
        from += size;
    }
    return (size_t)(to - p);
}
