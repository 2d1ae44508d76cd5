/* tail.c: the last lines and the ends, against a list of all of them. */
#include "check.h"

/* Every line there was, in the order of their ends. */
typedef struct {
    check_buffer lines;
    check_buffer partial[2];
} history;

static void remember(history *h, int stream, const char *p, size_t n) {
    for (size_t i = 0; i < n; i++) {
        check_append(&h->partial[stream], p + i, 1);
        if (p[i] == '\n') {
            check_append(&h->lines, h->partial[stream].at, h->partial[stream].size);
            h->partial[stream].size = 0;
        }
    }
}

static void forget(history *h) {
    check_clear(&h->lines);
    check_clear(&h->partial[0]);
    check_clear(&h->partial[1]);
}

/* The last `count` lines, AS_TAIL_BYTES at most. */
static void check_same(const as_tail *tail, const history *h, int count) {
    const char *text;
    size_t size = as_tail_lines(tail, count, &text), start = h->lines.size;
    for (int lines = 0; start > 0; start--) {
        if (h->lines.at[start - 1] == '\n' && lines++ == count) {
            break;
        }
    }
    size_t expected = h->lines.size - start;
    if (expected > AS_TAIL_BYTES) {
        CHECK(size >= AS_TAIL_BYTES && size <= 2 * (size_t)AS_TAIL_BYTES);
        text += size - AS_TAIL_BYTES;
        expected = size = AS_TAIL_BYTES;
    }
    CHECK_BYTES(text, size, expected ? h->lines.at + h->lines.size - expected : "", expected);
}

static void random_round(uint64_t *seed, size_t max_chunk, uint64_t newline, int pushes) {
    as_tail tail = {0};
    history h = {0};
    char *chunk = malloc(max_chunk);
    CHECK(chunk);
    for (int i = 0; i < pushes; i++) {
        int stream = (int)check_random(seed, 2);
        size_t n = 1 + (size_t)check_random(seed, max_chunk);
        for (size_t k = 0; k < n; k++) {
            chunk[k] = (char)(check_random(seed, newline) ? 'a' + check_random(seed, 26) : '\n');
        }
        as_tail_push(&tail, stream, chunk, n);
        remember(&h, stream, chunk, n);
        check_same(&tail, &h, AS_TAIL_LINES);
        check_same(&tail, &h, 1);
    }
    as_tail_finish(&tail);
    for (int stream = 0; stream < 2; stream++) {
        if (h.partial[stream].size) {
            remember(&h, stream, "\n", 1);
        }
    }
    check_same(&tail, &h, AS_TAIL_LINES);
    free(chunk);
    forget(&h);
    as_tail_free(&tail);
}

/* The tail is the last 20 lines of both streams, each line whole. */
static void short_lines(void) {
    uint64_t seed = 1;
    for (int round = 0; round < 60; round++) {
        random_round(&seed, 1 + (size_t)check_random(&seed, 200), 1 + check_random(&seed, 40), 100);
    }
}

/* Of long lines it is the last 32 KiB. */
static void much_text(void) {
    uint64_t seed = 2;
    for (int round = 0; round < 6; round++) {
        random_round(&seed, 5000, 300, 60);
    }
    random_round(&seed, (size_t)3 * AS_TAIL_BYTES, 300, 20);
}

/* Of one endless line it keeps the begin, and no more memory than it has. */
static void endless_line(void) {
    as_tail tail = {0};
    const char *text;
    char chunk[1000];
    memset(chunk, 'x', sizeof chunk);
    as_tail_push(&tail, 1, "begin", 5);
    for (int i = 0; i < 1000; i++) {
        as_tail_push(&tail, 1, chunk, sizeof chunk);
    }
    CHECK_EQUAL(as_tail_lines(&tail, AS_TAIL_LINES, &text), 0);
    CHECK(tail.partial_room[1] <= AS_TAIL_BYTES);
    as_tail_finish(&tail);
    size_t size = as_tail_lines(&tail, AS_TAIL_LINES, &text);
    CHECK(size > 10000 && size <= AS_TAIL_BYTES);
    CHECK(memcmp(text, "beginxxx", 8) == 0 && text[size - 1] == '\n');
    as_tail_free(&tail);
}

/* A run without output has an empty tail and makes no buffer. */
static void nothing(void) {
    as_tail tail = {0};
    const char *text;
    CHECK_EQUAL(as_tail_lines(&tail, AS_TAIL_LINES, &text), 0);
    CHECK(text);
    as_tail_finish(&tail);
    CHECK_EQUAL(as_tail_lines(&tail, 1, &text), 0);
    CHECK(!tail.buffer);
    as_tail_free(&tail);
}

/* R7: the ends are the first 3 and the last 3 of all lines, the begin of each, an unfinished one too. */
static void check_ends(const as_ends *ends, const check_buffer *all) {
    char expected[AS_STDERR_SIZE], text[AS_STDERR_SIZE];
    size_t used = 0, size, starts[3000];
    int64_t count = 0;
    for (size_t i = 0; i < all->size; i++) {
        if (i == 0 || all->at[i - 1] == '\n') {
            CHECK(count < 2999);
            starts[count++] = i;
        }
    }
    for (int64_t line = 0; line < count; line++) {
        if (line < 3 || line >= count - 3) {
            const char *p = all->at + starts[line];
            size_t left = all->size - starts[line];
            const char *newline = memchr(p, '\n', left);
            size_t length = newline ? (size_t)(newline - p) : left;
            length = length < AS_ENDS_BYTES ? length : AS_ENDS_BYTES;
            memcpy(expected + used, p, length);
            used += length;
            expected[used++] = '\n';
        }
    }
    CHECK_EQUAL(as_ends_copy(ends, text, &size), count);
    CHECK_BYTES(text, size, expected, used);
}

static void ends_round(uint64_t *seed, size_t max_chunk, uint64_t newline, int pushes) {
    as_ends *ends = NULL;
    check_buffer all = {0};
    char *chunk = malloc(max_chunk);
    CHECK(chunk);
    for (int i = 0; i < pushes; i++) {
        size_t n = 1 + (size_t)check_random(seed, max_chunk);
        for (size_t k = 0; k < n; k++) {
            chunk[k] = (char)(check_random(seed, newline) ? 'a' + check_random(seed, 26) : '\n');
        }
        as_ends_push(&ends, chunk, n);
        check_append(&all, chunk, n);
        check_ends(ends, &all);
    }
    free(chunk);
    check_clear(&all);
    free(ends);
}

static void ends_of_a_stream(void) {
    uint64_t seed = 3;
    for (int round = 0; round < 300; round++) {
        ends_round(&seed, 1 + (size_t)check_random(&seed, 60), 1 + check_random(&seed, 30), 30);
    }
    for (int round = 0; round < 30; round++) {
        ends_round(&seed, 3000, 700, 40);
    }
}

/* R7: nothing is made before the first byte of stderr. */
static void ends_of_nothing(void) {
    as_ends *ends = NULL;
    char text[AS_STDERR_SIZE];
    size_t size;
    CHECK_EQUAL(as_ends_copy(ends, text, &size), 0);
    CHECK_EQUAL(size, 0);
    as_ends_push(&ends, "x", 1);
    CHECK_EQUAL(as_ends_copy(ends, text, &size), 1);
    CHECK_BYTES(text, size, "x\n", 2);
    free(ends);
}

CHECK_MAIN(CHECK_TEST(short_lines), CHECK_TEST(much_text), CHECK_TEST(endless_line),
           CHECK_TEST(nothing), CHECK_TEST(ends_of_a_stream), CHECK_TEST(ends_of_nothing))
