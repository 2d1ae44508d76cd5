/* check.h: what the C tests share. A program runs all its tests, or the ones its arguments name. */
#ifndef CHECK_H
#define CHECK_H

#include "internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            check_failed(__FILE__, __LINE__, #condition);                                          \
        }                                                                                          \
    } while (0)

#define CHECK_EQUAL(actual, expected)                                                              \
    check_equal(__FILE__, __LINE__, #actual, (int64_t)(actual), (int64_t)(expected))

/* Of the same length and the same bytes. */
#define CHECK_BYTES(actual, actual_size, expected, expected_size)                                  \
    check_bytes(__FILE__, __LINE__, actual, actual_size, expected, expected_size)

_Noreturn static inline void check_failed(const char *file, int line, const char *what) {
    (void)fprintf(stderr, "%s:%d: %s (errno %d)\n", file, line, what, errno);
    exit(1);
}

static inline void check_equal(const char *file, int line, const char *what, int64_t actual,
                               int64_t expected) {
    if (actual != expected) {
        (void)fprintf(stderr, "%s:%d: %s is %lld, expected %lld\n", file, line, what,
                      (long long)actual, (long long)expected);
        exit(1);
    }
}

static inline void check_bytes(const char *file, int line, const char *actual, size_t actual_size,
                               const char *expected, size_t expected_size) {
    size_t common = actual_size < expected_size ? actual_size : expected_size, at = 0;
    while (at < common && actual[at] == expected[at]) {
        at++;
    }
    if (at < common || actual_size != expected_size) {
        (void)fprintf(stderr, "%s:%d: %zu bytes, expected %zu; they differ from byte %zu on\n",
                      file, line, actual_size, expected_size, at);
        exit(1);
    }
}

/* xorshift64*: the same numbers in each run. */
static inline uint64_t check_random(uint64_t *seed, uint64_t below) {
    *seed ^= *seed >> 12;
    *seed ^= *seed << 25;
    *seed ^= *seed >> 27;
    return (*seed * UINT64_C(0x2545F4914F6CDD1D) >> 16) % below;
}

/* ---- bytes that grow ---- */

typedef struct {
    char *at;
    size_t size, room;
} check_buffer;

static inline void check_append(check_buffer *buffer, const char *p, size_t n) {
    if (!buffer->at || buffer->size + n > buffer->room) {
        buffer->room = (buffer->size + n) * 2 + 16;
        char *larger = realloc(buffer->at, buffer->room);
        CHECK(larger);
        buffer->at = larger;
    }
    memcpy(buffer->at + buffer->size, p, n);
    buffer->size += n;
}

static inline void check_clear(check_buffer *buffer) {
    free(buffer->at);
    *buffer = (check_buffer){0};
}

/* ---- the program ---- */

typedef struct {
    const char *name;
    void (*run)(void);
} check_test;

#define CHECK_TEST(function) {#function, function}

static inline bool check_is_named(const char *name, int count, char **names) {
    bool named = count < 2;
    for (int i = 1; i < count; i++) {
        named = named || strcmp(names[i], name) == 0;
    }
    return named;
}

static inline int check_run(int count, char **names, const check_test *tests, size_t test_count) {
    for (size_t i = 0; i < test_count; i++) {
        if (check_is_named(tests[i].name, count, names)) {
            (void)printf("%s\n", tests[i].name);
            (void)fflush(stdout);
            tests[i].run();
        }
    }
    return 0;
}

#define CHECK_MAIN(...)                                                                            \
    int main(int argc, char **argv) {                                                              \
        static const check_test tests[] = {__VA_ARGS__};                                           \
        return check_run(argc, argv, tests, sizeof tests / sizeof *tests);                         \
    }

#endif
