/* fuzz.h: what the fuzzers share: input to take values from, lists of lines, and the reference, which
   looks at one byte after the other. */
#ifndef FUZZ_H
#define FUZZ_H

#include "check.h"

typedef struct {
    const uint8_t *at;
    size_t left;
} fuzz_input;

static inline unsigned fuzz_byte(fuzz_input *input) {
    if (input->left == 0) {
        return 0;
    }
    input->left--;
    return *input->at++;
}

/* The rest of the input as a script's output. A first byte of 0xF0 and more repeats it, so that it
   is longer than the core's buffers. */
static inline check_buffer fuzz_output(fuzz_input *input) {
    check_buffer output = {0};
    unsigned first = fuzz_byte(input);
    size_t times = first >= 0xF0 ? (size_t)(first - 0xEF) * 100 : 1;
    check_append(&output, "", 0);
    while (times-- > 0 && output.size + input->left <= AS_BATCH_BYTES * 3) {
        check_append(&output, (const char *)input->at, input->left);
    }
    input->left = 0;
    return output;
}

/* Where chunks end: the same for the same seed. */
static inline size_t fuzz_chunk(uint64_t *seed, size_t left, size_t most) {
    size_t n = 1 + (size_t)check_random(seed, most);
    return n < left ? n : left;
}

/* A list of lines: each with a length before it, so that lists compare as bytes. */
static inline void fuzz_add(check_buffer *list, const char *p, size_t n) {
    uint32_t size = (uint32_t)n;
    check_append(list, (const char *)&size, sizeof size);
    check_append(list, p, n);
}

/* How long the piece is that a line of more than max_line bytes begins with: no more than max_line,
   and less where a UTF-8 sequence would be cut that began within the last three bytes. */
static inline size_t fuzz_piece(const char *p, size_t max_line) {
    size_t lead = max_line - 1, most = max_line < 4 ? max_line - 1 : 3;
    while (max_line - lead < most && (p[lead] & 0xC0) == 0x80) {
        lead--;
    }
    unsigned char c = (unsigned char)p[lead];
    size_t length = c < 0xC0 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
    return lead + length > max_line && lead > 0 ? lead : max_line;
}

/* The lines that L5 promises for a stream that wrote p[0, n). Returns how many. */
static inline size_t fuzz_reference(const char *p, size_t n, size_t max_line, check_buffer *list) {
    size_t count = 0;
    while (n > 0) {
        size_t end = 0;
        while (end < n && end <= max_line + 1 && p[end] != '\n') {
            end++;
        }
        bool newline = end < n && p[end] == '\n';
        bool return_before = newline && end > 0 && p[end - 1] == '\r';
        size_t text = end - return_before, used = end + 1;
        if (newline ? text > max_line : n > max_line) {
            text = used = fuzz_piece(p, max_line);
        } else if (!newline) {
            text = used = n;
        }
        fuzz_add(list, p, text);
        count++;
        p += used;
        n -= used;
    }
    return count;
}

/* Adds what a batch's text stands for. */
static inline void fuzz_add_lines(check_buffer *list, const char *text, size_t size) {
    const char *newline;
    while ((newline = memchr(text, '\n', size)) != NULL) {
        fuzz_add(list, text, (size_t)(newline - text));
        size -= (size_t)(newline - text) + 1;
        text = newline + 1;
    }
    fuzz_add(list, text, size);
}

#endif
