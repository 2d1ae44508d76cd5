/* fuzz_queue.c: what two streams write in turns comes out as their lines, in order (L5, L6); what is
   dropped is counted, and nothing that was dropped in part comes out. */
#include "fuzz.h"

typedef struct {
    as_pool *pool;
    as_run *run;
    as_batch batch;
    check_buffer lists[2];
    int64_t lines, notes;
    bool flushed;
} consumer;

/* Takes the next batch, if there is one: the pool is closed, so that nothing blocks. */
static bool consume(consumer *c) {
    if (as_pool_next(c->pool, &c->batch) == AS_CLOSED) {
        return false;
    }
    CHECK(c->batch.key == 7 && c->batch.stream < 3);
    if (c->batch.lines == 0) {
        CHECK(!c->flushed);
        c->flushed = true;
    } else if (c->batch.stream == 2) {
        c->notes++;
    } else {
        CHECK(!c->flushed);
        CHECK((memchr(c->batch.text, 0, c->batch.size) != NULL) == c->batch.has_nul);
        check_buffer *list = &c->lists[c->batch.stream];
        fuzz_add_lines(list, c->batch.text, c->batch.size);
        c->lines += c->batch.lines;
    }
    return true;
}

/* A place for the next bytes; takes batches out until there is one. */
static char *make_place(consumer *c, int stream, size_t *room) {
    int64_t deadline;
    for (;;) {
        char *place = as_queue_reserve(as_run_queue(c->run), stream, false, room, &deadline);
        if (!place && !consume(c)) { /* it may have moved a line's begin out of the ring, though */
            place = as_queue_reserve(as_run_queue(c->run), stream, false, room, &deadline);
            CHECK(place); /* else both would wait for each other */
        }
        if (place) {
            return place;
        }
    }
}

/* As output.c does with what it reads; returns how much of it was used up. */
static size_t produce(consumer *c, int stream, const char *p, size_t n, bool drop) {
    if (drop) {
        as_queue_drop(as_run_queue(c->run), stream, p, n);
        return n;
    }
    size_t room;
    char *place = make_place(c, stream, &room);
    n = n < room ? n : room;
    memcpy(place, p, n);
    as_queue_commit(as_run_queue(c->run), stream, n);
    return n;
}

/* Each line of `list` is one of `all`, in the same order. */
static bool is_subsequence(const check_buffer *list, const check_buffer *all) {
    size_t at = 0;
    for (size_t i = 0; i < list->size;) {
        uint32_t size, other;
        memcpy(&size, list->at + i, sizeof size);
        bool found = false;
        while (!found && at < all->size) {
            memcpy(&other, all->at + at, sizeof other);
            found = size == other && memcmp(list->at + i, all->at + at, sizeof size + size) == 0;
            at += sizeof other + other;
        }
        if (!found) {
            return false;
        }
        i += sizeof size + size;
    }
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_input input = {data, size};
    bool dropping = fuzz_byte(&input) & 1;
    /* A line in pieces counts for one where it is dropped; so then none is that long. */
    int64_t max_line = dropping ? 65536 : 4 + fuzz_byte(&input);
    uint64_t seed = 1 + fuzz_byte(&input);
    size_t most = 1 + fuzz_byte(&input) * (size_t)64;
    unsigned appetite = fuzz_byte(&input) % 8; /* batches taken after each read, at most */
    check_buffer output = fuzz_output(&input), written[2] = {0};
    consumer c = {.pool = as_pool_new()};
    as_rules rules = {.pool = c.pool, .max_line = max_line, .stall_timeout = 3600 * AS_SECOND};
    CHECK(c.pool);
    as_pool_close(c.pool);
    c.run = as_run_new(&rules, 7, 3600 * AS_SECOND);
    CHECK(c.run);
    bool dropped = false;
    for (size_t done = 0; done < output.size;) {
        int stream = (int)check_random(&seed, 2);
        size_t n = fuzz_chunk(&seed, output.size - done, most), at = 0;
        check_append(&written[stream], output.at + done, n);
        while (at < n) {
            bool drop = dropping && check_random(&seed, 4) == 0;
            at += produce(&c, stream, output.at + done + at, n - at, drop);
            dropped |= drop;
        }
        done += n;
        for (uint64_t i = check_random(&seed, appetite + 1); i > 0; i--) {
            (void)consume(&c);
        }
    }
    as_queue_finish(as_run_queue(c.run));
    while (consume(&c)) {
    }
    CHECK_EQUAL(c.flushed, output.size > 0);
    as_delivery delivery;
    int64_t deadline, expected_lines = 0;
    CHECK(as_queue_delivered(as_run_queue(c.run), &deadline));
    as_queue_counts(as_run_queue(c.run), &delivery);
    for (int stream = 0; stream < 2; stream++) {
        check_buffer expected = {0};
        expected_lines += (int64_t)fuzz_reference(written[stream].at, written[stream].size,
                                                  (size_t)max_line, &expected);
        if (dropped) {
            CHECK(is_subsequence(&c.lists[stream], &expected));
        } else {
            CHECK_BYTES(c.lists[stream].at, c.lists[stream].size, expected.at, expected.size);
        }
        check_clear(&expected);
        check_clear(&c.lists[stream]);
        check_clear(&written[stream]);
    }
    CHECK_EQUAL(delivery.lines - delivery.dropped, c.lines);
    bool long_line = dropping && output.size > 65536; /* the reference has its pieces */
    if (!long_line) {
        CHECK_EQUAL(delivery.lines, expected_lines);
    }
    CHECK(c.notes <= 1 || dropped);
    check_clear(&output);
    as_run_free(c.run);
    as_pool_free(c.pool);
    return 0;
}
