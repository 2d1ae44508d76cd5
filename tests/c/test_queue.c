/* queue.c: lines from producers to the threads of a pool. */
#include "check.h"

#include <poll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* ---- time that a test moves ---- */

static _Atomic int64_t moved;

/* The core's clock: util.c calls this one. */
int clock_gettime(clockid_t clock, struct timespec *now) {
    long result = syscall(SYS_clock_gettime, clock, now);
    int64_t ns = (int64_t)now->tv_sec * AS_SECOND + now->tv_nsec + atomic_load(&moved);
    *now = (struct timespec){.tv_sec = ns / AS_SECOND, .tv_nsec = ns % AS_SECOND};
    return (int)result;
}

static void pass(int64_t duration) { atomic_fetch_add(&moved, duration); }

/* ---- one run whose producer and consumer are this thread ---- */

/* The pool is closed from the start: then as_pool_next returns AS_CLOSED instead of waiting. */
typedef struct {
    as_pool *pool;
    as_run *run;
    as_queue *queue;
    as_batch batch;
    size_t max_line;
    check_buffer out[AS_STREAMS]; /* delivered, a newline after each line */
    int64_t lines;                /* delivered, notes left out */
    bool flushed;
} bench;

static as_rules rules_of(as_pool *pool, size_t max_line, int64_t stall_timeout) {
    return (as_rules){.pool = pool, .max_line = (int64_t)max_line, .stall_timeout = stall_timeout};
}

static bench make_bench(size_t max_line, int64_t stall_timeout) {
    bench b = {.pool = as_pool_new(), .max_line = max_line};
    as_rules rules = rules_of(b.pool, max_line, stall_timeout);
    CHECK(b.pool);
    as_pool_close(b.pool);
    b.run = as_run_new(&rules, 7, 10 * AS_SECOND);
    CHECK(b.run);
    b.queue = as_run_queue(b.run);
    return b;
}

/* Takes the next batch; false: there is none. */
static bool consume(bench *b) {
    if (as_pool_next(b->pool, &b->batch) == AS_CLOSED) {
        return false;
    }
    const as_batch *batch = &b->batch;
    CHECK_EQUAL(batch->key, 7);
    CHECK(!b->flushed);
    b->flushed = batch->lines == 0;
    if (batch->lines > 0) {
        CHECK(batch->lines <= AS_BATCH_LINES && batch->size <= AS_BATCH_BYTES);
        bool ascii;
        CHECK_EQUAL(as_lines_look(batch->text, batch->size, &ascii) + 1, batch->lines);
        CHECK(ascii || !batch->ascii);
        CHECK_EQUAL(batch->has_nul, memchr(batch->text, 0, batch->size) != NULL);
        check_append(&b->out[batch->stream], batch->text, batch->size);
        check_append(&b->out[batch->stream], "\n", 1);
        b->lines += batch->stream < 2 ? batch->lines : 0;
    }
    return true;
}

static void consume_all(bench *b) {
    while (consume(b)) {
    }
}

static void end_bench(bench *b) {
    as_run_free(b->run);
    b->flushed = false;
    consume_all(b); /* the pool keeps the run while it has lines */
    as_pool_free(b->pool);
    for (int stream = 0; stream < AS_STREAMS; stream++) {
        check_clear(&b->out[stream]);
    }
}

static bool is_awake(const bench *b) {
    struct pollfd wake = {.fd = b->queue->wake_fd, .events = POLLIN};
    uint64_t value;
    return poll(&wake, 1, 0) == 1 && read(wake.fd, &value, sizeof value) == sizeof value;
}

/* Commits as much as there is room for; *deadline when that is nothing. */
static size_t produce(bench *b, int stream, const char *p, size_t n, int64_t *deadline) {
    size_t room;
    char *place = as_queue_reserve(b->queue, stream, false, &room, deadline);
    if (!place) {
        return 0;
    }
    CHECK(room > 0);
    n = n < room ? n : room;
    memcpy(place, p, n);
    as_queue_commit(b->queue, stream, n);
    return n;
}

static void produce_text(bench *b, int stream, const char *text) {
    int64_t deadline;
    CHECK_EQUAL(produce(b, stream, text, strlen(text), &deadline), strlen(text));
}

/* Fills the queue with short lines. */
static size_t fill(bench *b) {
    static char lines[100000];
    int64_t deadline;
    size_t total = 0;
    memset(lines, 'x', sizeof lines);
    for (size_t i = 99; i < sizeof lines; i += 100) {
        lines[i] = '\n';
    }
    /* No multiple of 100: the queue mostly ends inside a line. */
    for (size_t done; (done = produce(b, 0, lines + total % 100, sizeof lines - 137, &deadline));) {
        total += done;
    }
    return total;
}

static void check_counts(const bench *b, int64_t dropped) {
    as_delivery counts = {0};
    as_queue_counts(b->queue, &counts);
    CHECK_EQUAL(counts.dropped, dropped);
    CHECK_EQUAL(counts.lines, b->lines + dropped);
}

static void check_out(const bench *b, int stream, const char *expected) {
    CHECK_BYTES(b->out[stream].at, b->out[stream].size, expected, strlen(expected));
}

/* The lines of a stream's whole text, as the tests of lines.c have checked them. */
static void cut_all(const char *text, size_t n, size_t max_line, check_buffer *out) {
    char *batch = malloc(AS_BATCH_BYTES + 2);
    CHECK(batch);
    for (size_t at = 0; at < n;) {
        as_cut cut = as_lines_cut(text + at, n - at, max_line, AS_BATCH_LINES, true);
        memcpy(batch, text + at, cut.text);
        check_append(out, batch, as_lines_drop_cr(batch, cut.text, cut.take == cut.text + 1));
        check_append(out, "\n", 1);
        at += cut.take;
    }
    free(batch);
}

static void finish(bench *b) {
    int64_t deadline;
    as_queue_finish(b->queue);
    consume_all(b);
    CHECK(b->flushed);
    CHECK_EQUAL(as_queue_delivered(b->queue, &deadline), 1);
    CHECK(is_awake(b));
}

/* ---- delivery ---- */

/* L5, L7: lines across reads, both streams, what is left at the end, then the call to flush. */
static void lines_and_rest(void) {
    bench b = make_bench(100, AS_SECOND);
    produce_text(&b, 0, "one\r");
    consume_all(&b);
    CHECK_EQUAL(b.lines, 0);
    produce_text(&b, 0, "\ntw");
    produce_text(&b, 1, "error\nre");
    produce_text(&b, 0, "o\nthree");
    consume_all(&b);
    check_out(&b, 0, "one\ntwo\n");
    check_out(&b, 1, "error\n");
    produce_text(&b, 1, "st");
    finish(&b);
    check_out(&b, 0, "one\ntwo\nthree\n");
    check_out(&b, 1, "error\nrest\n");
    check_counts(&b, 0);
    end_bench(&b);
}

/* L7: where there was no line, there is nothing to flush, and no thread to wait for. */
static void nothing(void) {
    bench b = make_bench(100, AS_SECOND);
    int64_t deadline;
    as_queue_finish(b.queue);
    CHECK_EQUAL(as_queue_delivered(b.queue, &deadline), 1);
    CHECK(!consume(&b));
    check_counts(&b, 0);
    CHECK(!b.queue->bytes);
    end_bench(&b);
}

/* L5: one carriage return before a newline is dropped, the second stays, at any length. */
static void two_carriage_returns(void) {
    for (size_t size = AS_BATCH_BYTES - 3; size <= AS_BATCH_BYTES; size++) {
        bench b = make_bench(AS_BATCH_BYTES, AS_FOREVER);
        check_buffer line = {.at = malloc(size + 3), .size = size, .room = size + 3};
        int64_t deadline;
        CHECK(line.at);
        memset(line.at, 'x', size);
        check_append(&line, "\r\r\n", 3);
        CHECK_EQUAL(produce(&b, 0, line.at, line.size, &deadline), line.size);
        finish(&b);
        size_t returns = 0;
        for (size_t i = 0; i < b.out[0].size; i++) {
            returns += b.out[0].at[i] == '\r';
        }
        CHECK_EQUAL(returns, 1);
        check_clear(&line);
        end_bench(&b);
    }
}

/* ---- random lives of one queue ---- */

typedef struct {
    uint64_t seed;
    check_buffer text[2];
    size_t at[2];
    size_t max_chunk;
    bool waits; /* the queue was full */
} life;

static void make_text(life *l, int stream, size_t n, uint64_t newline) {
    char *text = malloc(n);
    CHECK(text);
    for (size_t i = 0; i < n; i++) {
        text[i] = check_random(&l->seed, newline) ? "abcdefgh\xC3\xA9\r"[check_random(&l->seed, 11)]
                                                  : '\n';
    }
    check_append(&l->text[stream], text, n);
    free(text);
}

/* One step of the producer; it stops at a full queue until it is woken. */
static void step(bench *b, life *l) {
    int stream = (int)check_random(&l->seed, 2);
    size_t left = l->text[stream].size - l->at[stream];
    size_t n = 1 + (size_t)check_random(&l->seed, l->max_chunk);
    int64_t deadline;
    if (l->waits && !is_awake(b)) {
        return;
    }
    l->waits = false;
    if (left > 0) {
        const char *p = l->text[stream].at + l->at[stream];
        size_t done = produce(b, stream, p, n < left ? n : left, &deadline);
        l->waits = done == 0;
        l->at[stream] += done;
    }
}

static void live(uint64_t seed, size_t max_line, size_t max_chunk, size_t size, uint64_t newline,
                 uint64_t consumer, int64_t max_pause) {
    bench b = make_bench(max_line, AS_FOREVER);
    life l = {.seed = seed, .max_chunk = max_chunk};
    for (int stream = 0; stream < 2; stream++) {
        make_text(&l, stream, size, newline);
    }
    while (l.at[0] < l.text[0].size || l.at[1] < l.text[1].size) {
        step(&b, &l);
        pass((int64_t)check_random(&l.seed, (uint64_t)max_pause));
        bool idle = false;
        for (uint64_t i = check_random(&l.seed, consumer); i > 0 && !idle; i--) {
            idle = !consume(&b);
        }
        if (l.waits && check_random(&l.seed, 10) == 0) {
            consume_all(&b);
            CHECK(is_awake(&b)); /* else the script would be held back for ever */
            l.waits = false;
        }
    }
    finish(&b);
    for (int stream = 0; stream < 2; stream++) {
        check_buffer expected = {0};
        cut_all(l.text[stream].at, l.text[stream].size, max_line, &expected);
        CHECK_BYTES(b.out[stream].at, b.out[stream].size, expected.at, expected.size);
        check_clear(&expected);
        check_clear(&l.text[stream]);
    }
    check_counts(&b, 0);
    end_bench(&b);
}

/* L5, L6: nothing is lost or changed, and a full queue wakes its producer. */
static void random_lives(void) {
    uint64_t seed = 1;
    for (int round = 0; round < 30; round++) {
        size_t max_line = 4 + (size_t)check_random(&seed, 70);
        live(seed, max_line, 1 + (size_t)check_random(&seed, 60), 20000,
             1 + check_random(&seed, 100), 3, 10 * AS_MILLISECOND);
    }
    for (int round = 0; round < 6; round++) {
        live(seed, 1000, 200000, 2000000, 1 + check_random(&seed, 500), 4, AS_MILLISECOND);
        check_random(&seed, 2);
    }
    live(seed, AS_BATCH_BYTES, 100000, 5000000, 100000, 12, AS_MILLISECOND);
}

/* L6: where the free room lies in two parts and the consumer waits for the rest of a line, the
   producer is woken all the same. */
static void woken_at_unfinished_line(void) {
    for (int batches = 1; batches < 40; batches++) {
        bench b = make_bench(100, AS_FOREVER);
        (void)fill(&b);
        for (int i = 0; i < batches; i++) {
            (void)consume(&b);
        }
        (void)is_awake(&b);
        (void)fill(&b);
        consume_all(&b);
        CHECK(is_awake(&b));
        end_bench(&b);
    }
}

/* L6: an unfinished line of many small parts leaves room for the other stream. */
static void many_spans(void) {
    bench b = make_bench(4000, AS_SECOND);
    for (int i = 0; i < AS_QUEUE_SPANS + 10; i++) {
        produce_text(&b, 0, ".");
        pass(30 * AS_MILLISECOND);
        consume_all(&b);
    }
    produce_text(&b, 1, "error\n");
    consume_all(&b);
    check_out(&b, 1, "error\n");
    finish(&b);
    CHECK_EQUAL(b.out[0].size, AS_QUEUE_SPANS + 11);
    check_counts(&b, 0);
    end_bench(&b);
}

/* ---- the logger's time ---- */

/* L6: a logger is slow from its first batch on, not from an unfinished line's begin. */
static void quiet_before_flood(void) {
    bench b = make_bench(100, 5 * AS_SECOND);
    size_t room;
    int64_t deadline;
    produce_text(&b, 0, "working ... ");
    consume_all(&b);
    pass(60 * AS_SECOND);
    (void)fill(&b);
    CHECK(!as_queue_reserve(b.queue, 0, false, &room, &deadline));
    CHECK(deadline > as_monotonic());
    end_bench(&b);
}

/* L6: the last lines have flush_timeout from the end on, however old their begin is. */
static void quiet_before_end(void) {
    bench b = make_bench(100, AS_SECOND);
    int64_t deadline;
    produce_text(&b, 0, "unfinished");
    consume_all(&b);
    pass(60 * AS_SECOND);
    as_queue_finish(b.queue);
    CHECK_EQUAL(as_queue_delivered(b.queue, &deadline), 0);
    CHECK(deadline > as_monotonic());
    consume_all(&b);
    check_out(&b, 0, "unfinished\n");
    end_bench(&b);
}

/* L6, K5: so has a note after the end of a quiet script. */
static void note_after_quiet(void) {
    bench b = make_bench(100, AS_SECOND);
    int64_t deadline;
    CHECK(as_queue_note(b.queue, "note\n", 5));
    as_queue_finish(b.queue);
    CHECK_EQUAL(as_queue_delivered(b.queue, &deadline), 0);
    CHECK(deadline > as_monotonic());
    consume_all(&b);
    check_out(&b, 2, "note\n");
    check_counts(&b, 0);
    end_bench(&b);
}

/* L6: the first batch is one line; a quick logger gets long ones, a slow one is spared. */
static void batch_size(void) {
    bench b = make_bench(100, 5 * AS_SECOND);
    (void)fill(&b);
    CHECK(consume(&b));
    CHECK_EQUAL(b.batch.lines, 1);
    for (int i = 0; i < 5; i++) {
        CHECK(consume(&b));
    }
    CHECK(b.batch.lines > 100);
    pass((int64_t)b.batch.lines * 40 * AS_MILLISECOND);
    CHECK(consume(&b));
    CHECK(b.batch.lines >= 1 && b.batch.lines <= 12); /* 40 ms each: 12 take 0.48 s */
    end_bench(&b);
}

/* A logger that takes so long for each send and for each line gets some batches, or all of them;
   returns how many. */
static int log_with(bench *b, int64_t per_send, int64_t per_line, int64_t stall_timeout, int most) {
    int sends = 0;
    while (sends < most && consume(b) && !b->flushed) {
        int64_t took = per_send + b->batch.lines * per_line;
        CHECK(b->batch.lines == 1 || took <= stall_timeout / 2);
        pass(took);
        sends++;
    }
    return sends;
}

/* L6: whatever a send and a line cost, a batch of several lines takes half of stall_timeout at most;
   where only lines cost, a tenth, but for two lines that are tried after one. */
static void batches_never_stall(void) {
    static const int64_t costs[] = {0, 1, 40, 90, 240, 260, 600, 1200, 1300, 2600}; /* ms */
    const size_t count = sizeof costs / sizeof *costs;
    for (size_t i = 0; i < count * count; i++) {
        bench b = make_bench(100, 5 * AS_SECOND);
        int64_t per_send = costs[i / count], per_line = costs[i % count];
        (void)fill(&b);
        CHECK(log_with(&b, per_send * AS_MILLISECOND, per_line * AS_MILLISECOND, 5 * AS_SECOND,
                       60) > 10);
        CHECK(per_send || b.batch.lines * per_line <= 500 || b.batch.lines <= 2);
        end_bench(&b);
    }
}

/* L6: a logger that takes as long for many lines as for one gets many, if that is a quarter of
   stall_timeout at most. */
static void latency(void) {
    static const int64_t costs[] = {10, 250, 300, 600, 1240}; /* ms */
    for (size_t i = 0; i < sizeof costs / sizeof *costs; i++) {
        bench b = make_bench(100, 5 * AS_SECOND);
        (void)fill(&b);
        as_queue_finish(b.queue);
        CHECK(log_with(&b, costs[i] * AS_MILLISECOND, 0, 5 * AS_SECOND, 100) <= 25);
        CHECK(b.flushed && b.lines > 4000);
        check_counts(&b, 0);
        end_bench(&b);
    }
}

/* L6: one send that is late does not leave such a logger with a line per send. */
static void latency_with_a_hitch(void) {
    for (int late = 0; late < 20; late++) {
        bench b = make_bench(100, 5 * AS_SECOND);
        int sends = 0;
        (void)fill(&b);
        as_queue_finish(b.queue);
        for (; consume(&b) && !b.flushed; sends++) {
            pass((sends == late ? 4000 : 600) * AS_MILLISECOND);
        }
        CHECK(sends <= 45);
        end_bench(&b);
    }
}

/* L6: a logger whose lines begin to cost gets fewer, though a send alone was what cost before. */
static void lines_begin_to_cost(void) {
    bench b = make_bench(100, 5 * AS_SECOND);
    (void)fill(&b);
    for (int i = 0; i < 5; i++) {
        CHECK(consume(&b));
        pass(600 * AS_MILLISECOND);
    }
    CHECK(consume(&b));
    CHECK(b.batch.lines >= 16);
    pass(600 * AS_MILLISECOND + b.batch.lines * 100 * AS_MILLISECOND);
    for (int i = 0; i < 50; i++) {
        CHECK(consume(&b));
        CHECK(b.batch.lines <= 12);
        pass(b.batch.lines * 100 * AS_MILLISECOND);
    }
    CHECK(b.batch.lines <= 5);
    end_bench(&b);
}

/* ---- dropping ---- */

/* Fills the queue and lets stall_timeout pass while a batch is out. */
static bench stalled_bench(void) {
    bench b = make_bench(100, AS_SECOND);
    size_t room;
    int64_t deadline;
    produce_text(&b, 0, "first\n");
    CHECK(consume(&b));
    (void)fill(&b);
    pass(2 * AS_SECOND);
    CHECK(!as_queue_reserve(b.queue, 0, false, &room, &deadline));
    CHECK(deadline <= as_monotonic());
    return b;
}

static void drop_text(bench *b, int stream, const char *text) {
    as_queue_drop(b->queue, stream, text, strlen(text));
}

/* How many lines the notes say were dropped; *notes: how many notes there are. */
static int64_t noted(const bench *b, int *notes) {
    int64_t lines = 0;
    *notes = 0;
    for (size_t at = 0; at < b->out[2].size; ++*notes) {
        const char *line = b->out[2].at + at;
        const char *end = memchr(line, '\n', b->out[2].size - at);
        long long count = 0;
        CHECK(end);
        CHECK_EQUAL(sscanf(line, "agentscripts: %lld lines were dropped here", &count), 1);
        lines += count;
        at += (size_t)(end - line) + 1;
    }
    return lines;
}

/* L6: a gap that ends with a line takes the line that it cut with it. */
static void gap_at_line_end(void) {
    bench b = stalled_bench();
    drop_text(&b, 1, "a\nb\n");
    drop_text(&b, 0, "rest of the line that is half in the queue\n");
    consume_all(&b);
    CHECK(is_awake(&b));
    produce_text(&b, 1, "error\n");
    produce_text(&b, 0, "whole\n");
    finish(&b);
    int notes;
    check_out(&b, 1, "error\n");
    CHECK(memcmp(b.out[0].at + b.out[0].size - 8, "x\nwhole\n", 8) == 0);
    CHECK_EQUAL(noted(&b, &notes), 3);
    CHECK_EQUAL(notes, 1);
    check_counts(&b, 3);
    end_bench(&b);
}

/* L6: a gap that ends inside a line takes the rest of that line with it. */
static void gap_inside_line(void) {
    bench b = stalled_bench();
    drop_text(&b, 1, "a\nbegin");
    drop_text(&b, 1, " of");
    consume_all(&b);
    produce_text(&b, 1, " a line");
    consume_all(&b);
    produce_text(&b, 1, "\nwhole\n");
    finish(&b);
    int notes;
    check_out(&b, 1, "whole\n");
    (void)noted(&b, &notes);
    CHECK_EQUAL(notes, 1);
    check_counts(&b, 2);
    end_bench(&b);
}

/* L6: a gap at the very end is counted, its unfinished line too, and noted. */
static void gap_at_end(void) {
    bench b = stalled_bench();
    drop_text(&b, 1, "a\nb\nunfinished");
    finish(&b);
    int notes;
    CHECK_EQUAL(b.out[1].size, 0);
    check_counts(&b, 3);
    (void)noted(&b, &notes);
    CHECK_EQUAL(notes, 1);
    end_bench(&b);
}

/* A line that says which it is, of a random length below the bench's max_line. */
static size_t make_line(char *line, size_t size, int number, uint64_t *seed) {
    int n = snprintf(line, size, "%d %.*s\n", number, (int)check_random(seed, 60),
                     "............................................................");
    return (size_t)n;
}

/* Every delivered line is one that was written, in order; returns how many there are. */
static int64_t check_subsequence(const check_buffer *out, const check_buffer *text) {
    const char *at = text->at, *end = text->at + text->size;
    int64_t count = 0;
    for (size_t i = 0; i < out->size; count++) {
        const char *line = out->at + i;
        size_t n = (size_t)((const char *)memchr(line, '\n', out->size - i) - line) + 1;
        while (at < end) {
            size_t size = (size_t)((const char *)memchr(at, '\n', (size_t)(end - at)) - at) + 1;
            bool same = size == n && memcmp(at, line, n) == 0;
            at += size;
            if (same) {
                break;
            }
            CHECK(at < end);
        }
        i += n;
    }
    return count;
}

/* L6: with lines dropped at random each line is whole or missing, and all are counted. */
static void random_drops(void) {
    uint64_t seed = 5;
    for (int round = 0; round < 12; round++) {
        bench b = make_bench(100, AS_SECOND);
        check_buffer text[2] = {{0}, {0}};
        size_t at[2] = {0, 0};
        for (int i = 0; i < 20000; i++) {
            char line[100];
            int stream = (int)check_random(&seed, 2);
            check_append(&text[stream], line, make_line(line, sizeof line, i, &seed));
        }
        size_t max_chunk = 1 + (size_t)check_random(&seed, round % 2 ? 100 : 30000);
        while (at[0] < text[0].size || at[1] < text[1].size) {
            int stream = (int)check_random(&seed, 2);
            size_t left = text[stream].size - at[stream];
            size_t n = 1 + (size_t)check_random(&seed, max_chunk);
            n = n < left ? n : left;
            int64_t deadline = AS_FOREVER;
            size_t done = n ? produce(&b, stream, text[stream].at + at[stream], n, &deadline) : 0;
            if (n && !done) {
                pass(2 * AS_SECOND);
                as_queue_drop(b.queue, stream, text[stream].at + at[stream], n);
                done = n;
            }
            at[stream] += done;
            if (check_random(&seed, 1000) == 0) {
                consume_all(&b);
            }
        }
        finish(&b);
        int64_t delivered = 0;
        int notes;
        for (int stream = 0; stream < 2; stream++) {
            delivered += check_subsequence(&b.out[stream], &text[stream]);
            check_clear(&text[stream]);
        }
        CHECK_EQUAL(delivered, b.lines);
        check_counts(&b, 20000 - delivered);
        CHECK(noted(&b, &notes) <= 20000 - delivered);
        end_bench(&b);
    }
}

/* ---- giving up ---- */

/* L6: what is left is counted as dropped; the batch that is out stays valid, and the thread that
   holds it comes back to a run that is free already. */
static void abandon_with_batch_out(void) {
    bench b = make_bench(100, AS_SECOND);
    as_delivery counts;
    produce_text(&b, 0, "one\n");
    consume_all(&b);
    produce_text(&b, 0, "two\nthree\nfour\nunfin");
    produce_text(&b, 1, "error");
    CHECK(consume(&b));
    int64_t out = b.lines;
    as_queue_finish(b.queue);
    as_queue_abandon(b.queue);
    as_queue_abandon(b.queue);
    as_queue_counts(b.queue, &counts);
    CHECK_EQUAL(counts.lines, 6);
    CHECK_EQUAL(counts.dropped, 6 - out);
    as_run_free(b.run);
    b.run = NULL;
    CHECK(memchr(b.batch.text, 'o', b.batch.size));
    CHECK(!consume(&b));
    CHECK(!b.batch.run);
    end_bench(&b);
}

/* L6: a run whose lines wait while other runs' are delivered is not given up for that. */
static void held_up_by_others(void) {
    bench b = make_bench(100, AS_SECOND);
    as_rules rules = rules_of(b.pool, 100, AS_SECOND);
    as_run *other = as_run_new(&rules, 7, 10 * AS_SECOND);
    as_queue *queue = as_run_queue(other);
    size_t room;
    int64_t deadline;
    CHECK(other);
    produce_text(&b, 0, "one\n");
    CHECK(as_queue_reserve(queue, 0, false, &room, &deadline));
    CHECK(as_queue_note(queue, "note\n", 5));
    as_queue_finish(queue);
    pass(11 * AS_SECOND);
    CHECK_EQUAL(as_queue_delivered(queue, &deadline), 0);
    CHECK(deadline <= as_monotonic());
    CHECK(consume(&b));
    CHECK_EQUAL(as_queue_delivered(queue, &deadline), 0);
    CHECK(deadline > as_monotonic() + 9 * AS_SECOND);
    as_queue_abandon(queue);
    as_run_free(other);
    end_bench(&b);
}

/* L6: notes are no lines of the script; what a gap has counted is not counted again. */
static void abandon_counts(void) {
    bench b = make_bench(100, AS_SECOND);
    CHECK(as_queue_note(b.queue, "note\n", 5));
    as_queue_finish(b.queue);
    as_queue_abandon(b.queue);
    check_counts(&b, 0);
    end_bench(&b);

    b = make_bench(100, AS_SECOND);
    produce_text(&b, 1, "cut by");
    drop_text(&b, 1, " a gap\n");
    as_queue_finish(b.queue);
    as_queue_abandon(b.queue);
    check_counts(&b, 1);
    end_bench(&b);

    b = make_bench(100, AS_SECOND);
    drop_text(&b, 1, "a\nunfinished");
    as_queue_finish(b.queue);
    as_queue_abandon(b.queue);
    check_counts(&b, 2);
    end_bench(&b);
}

/* An abandoned queue takes nothing more. */
static void after_abandon(void) {
    bench b = make_bench(100, AS_SECOND);
    size_t room;
    int64_t deadline;
    produce_text(&b, 0, "one\n");
    as_queue_abandon(b.queue);
    CHECK(!as_queue_reserve(b.queue, 0, false, &room, &deadline));
    CHECK(deadline <= as_monotonic());
    CHECK(!as_queue_note(b.queue, "note\n", 5));
    as_queue_finish(b.queue);
    CHECK(!consume(&b));
    check_counts(&b, 1);
    end_bench(&b);
}

/* ---- many runs, many threads ---- */

enum { RUNS = 8, CONSUMERS = 4, TEXT = 600000 };

typedef struct {
    as_run *run;
    uint64_t seed;
    check_buffer text[2], out[AS_STREAMS];
    _Atomic int busy; /* a thread has a batch of it */
    int64_t delivered;
    bool flushed;
} lane;

static lane lanes[RUNS];

static void wait_for_room(as_queue *queue) {
    struct pollfd wake = {.fd = queue->wake_fd, .events = POLLIN};
    uint64_t value;
    CHECK_EQUAL(poll(&wake, 1, 60000), 1);
    CHECK_EQUAL(read(wake.fd, &value, sizeof value), sizeof value);
}

static void *produce_lane(void *lane_pointer) {
    lane *l = lane_pointer;
    as_queue *queue = as_run_queue(l->run);
    size_t at[2] = {0, 0}, max_chunk = 1 + (size_t)check_random(&l->seed, 100000);
    while (at[0] < l->text[0].size || at[1] < l->text[1].size) {
        int stream = (int)check_random(&l->seed, 2);
        size_t room, left = l->text[stream].size - at[stream];
        size_t n = 1 + (size_t)check_random(&l->seed, max_chunk);
        int64_t deadline;
        n = n < left ? n : left;
        char *place = n ? as_queue_reserve(queue, stream, false, &room, &deadline) : NULL;
        if (place) {
            n = n < room ? n : room;
            memcpy(place, l->text[stream].at + at[stream], n);
            as_queue_commit(queue, stream, n);
            at[stream] += n;
        } else if (n) {
            wait_for_room(queue);
        }
    }
    as_delivery counts;
    CHECK_EQUAL(as_run_finish(l->run, &counts), 0);
    CHECK_EQUAL(counts.dropped, 0);
    CHECK_EQUAL(counts.lines, l->delivered);
    CHECK(l->flushed);
    as_run_free(l->run);
    return NULL;
}

static void *consume_lanes(void *pool) {
    as_batch batch = {0};
    uint64_t seed = 1 + (uint64_t)(uintptr_t)&batch;
    while (as_pool_next(pool, &batch) == 0) {
        lane *l = &lanes[batch.key - 1];
        CHECK_EQUAL(atomic_fetch_add(&l->busy, 1), 0);
        CHECK(!l->flushed);
        if (batch.lines > 0) {
            check_append(&l->out[batch.stream], batch.text, batch.size);
            check_append(&l->out[batch.stream], "\n", 1);
            l->delivered += batch.lines;
        }
        l->flushed = batch.lines == 0;
        if (check_random(&seed, 4) == 0) {
            struct timespec work = {.tv_nsec = (long)check_random(&seed, 300000)};
            (void)nanosleep(&work, NULL);
        }
        atomic_fetch_sub(&l->busy, 1);
    }
    return NULL;
}

/* L5-L7: all runs' lines arrive whole and in order, one thread at a time per run. */
static void many_runs(void) {
    as_pool *pool = as_pool_new();
    pthread_t producers[RUNS], consumers[CONSUMERS];
    CHECK(pool);
    for (int i = 0; i < RUNS; i++) {
        life l = {.seed = (uint64_t)i + 1};
        as_rules rules = rules_of(pool, i % 2 ? AS_BATCH_BYTES : 64, AS_FOREVER);
        for (int stream = 0; stream < 2; stream++) {
            make_text(&l, stream, TEXT, 1 + check_random(&l.seed, 200));
        }
        lanes[i] = (lane){.run = as_run_new(&rules, (uint64_t)i + 1, AS_FOREVER),
                          .seed = l.seed,
                          .text = {l.text[0], l.text[1]}};
        CHECK(lanes[i].run);
    }
    for (int i = 0; i < CONSUMERS; i++) {
        CHECK_EQUAL(pthread_create(&consumers[i], NULL, consume_lanes, pool), 0);
    }
    for (int i = 0; i < RUNS; i++) {
        CHECK_EQUAL(pthread_create(&producers[i], NULL, produce_lane, &lanes[i]), 0);
    }
    for (int i = 0; i < RUNS; i++) {
        CHECK_EQUAL(pthread_join(producers[i], NULL), 0);
    }
    as_pool_close(pool);
    for (int i = 0; i < CONSUMERS; i++) {
        CHECK_EQUAL(pthread_join(consumers[i], NULL), 0);
    }
    for (int i = 0; i < RUNS; i++) {
        for (int stream = 0; stream < 2; stream++) {
            check_buffer expected = {0};
            cut_all(lanes[i].text[stream].at, lanes[i].text[stream].size,
                    i % 2 ? AS_BATCH_BYTES : 64, &expected);
            CHECK_BYTES(lanes[i].out[stream].at, lanes[i].out[stream].size, expected.at,
                        expected.size);
            check_clear(&expected);
            check_clear(&lanes[i].text[stream]);
            check_clear(&lanes[i].out[stream]);
        }
    }
    as_pool_free(pool);
}

static atomic_long taken; /* lines */

static void *only_consume(void *pool) {
    as_batch batch = {0};
    while (as_pool_next(pool, &batch) == 0) {
        atomic_fetch_add(&taken, batch.lines);
    }
    return NULL;
}

/* L6: giving up while the consumer is at any point: each line is counted once, as dropped when no
   thread has taken it, and nothing is used after free. */
static void abandon_at_any_point(void) {
    static const char text[] = "line\r\nline\r\nline\r\nline\r\n";
    enum { LINES = 4, COMMITS = 20 };
    as_pool *pool = as_pool_new();
    pthread_t consumers[2];
    int64_t delivered = 0;
    CHECK(pool);
    atomic_store(&taken, 0);
    for (int i = 0; i < 2; i++) {
        CHECK_EQUAL(pthread_create(&consumers[i], NULL, only_consume, pool), 0);
    }
    for (int round = 0; round < 1500; round++) {
        as_rules rules = rules_of(pool, 100, AS_SECOND);
        as_run *run = as_run_new(&rules, 7, 10 * AS_SECOND);
        CHECK(run);
        for (int i = 0; i < COMMITS; i++) {
            size_t room;
            int64_t deadline;
            char *place = as_queue_reserve(as_run_queue(run), 0, false, &room, &deadline);
            CHECK(place);
            memcpy(place, text, sizeof text - 1);
            as_queue_commit(as_run_queue(run), 0, sizeof text - 1);
        }
        as_queue_finish(as_run_queue(run));
        as_queue_abandon(as_run_queue(run));
        as_delivery counts;
        as_queue_counts(as_run_queue(run), &counts);
        CHECK_EQUAL(counts.lines, LINES * COMMITS);
        delivered += counts.lines - counts.dropped;
        as_run_free(run);
    }
    as_pool_close(pool);
    for (int i = 0; i < 2; i++) {
        CHECK_EQUAL(pthread_join(consumers[i], NULL), 0);
    }
    CHECK_EQUAL(atomic_load(&taken), delivered);
    as_pool_free(pool);
}

/* S2: closing ends the threads that wait; too many that wait are sent home before. */
static void closing(void) {
    as_pool *pool = as_pool_new();
    pthread_t consumers[AS_SPARE_THREADS + 2];
    CHECK(pool);
    for (int i = 0; i < AS_SPARE_THREADS + 2; i++) {
        CHECK_EQUAL(pthread_create(&consumers[i], NULL, only_consume, pool), 0);
    }
    as_pool_close(pool);
    for (int i = 0; i < AS_SPARE_THREADS + 2; i++) {
        CHECK_EQUAL(pthread_join(consumers[i], NULL), 0);
    }
    as_pool_free(pool);
    as_pool_free(NULL);
}

/* L6: a line whose begin and end were dropped apart counts once. */
static void newline_in_a_gap(void) {
    bench b = make_bench(100, AS_SECOND);
    as_delivery counts;
    as_queue_drop(b.queue, 0, "begin", 5);
    produce_text(&b, 0, "middle");
    consume_all(&b); /* it steps over the middle */
    as_queue_drop(b.queue, 0, "end\n", 4);
    as_queue_finish(b.queue);
    consume_all(&b);
    as_queue_counts(b.queue, &counts);
    CHECK_EQUAL(counts.lines, 1);
    CHECK_EQUAL(counts.dropped, 1);
    end_bench(&b);
}

/* L6: without memory for the ring all is dropped, and the note of that finds none either. */
static void gap_without_a_ring(void) {
    bench b = make_bench(100, AS_SECOND);
    as_delivery counts;
    as_queue_drop(b.queue, 0, "line\n", 5);
    as_queue_finish(b.queue);
    consume_all(&b);
    CHECK(b.flushed);
    as_queue_counts(b.queue, &counts);
    CHECK_EQUAL(counts.lines, 1);
    CHECK_EQUAL(counts.dropped, 1);
    end_bench(&b);
}

CHECK_MAIN(CHECK_TEST(newline_in_a_gap), CHECK_TEST(gap_without_a_ring), CHECK_TEST(lines_and_rest),
           CHECK_TEST(nothing), CHECK_TEST(two_carriage_returns), CHECK_TEST(random_lives),
           CHECK_TEST(woken_at_unfinished_line), CHECK_TEST(many_spans),
           CHECK_TEST(quiet_before_flood), CHECK_TEST(quiet_before_end),
           CHECK_TEST(note_after_quiet), CHECK_TEST(batch_size), CHECK_TEST(batches_never_stall),
           CHECK_TEST(latency), CHECK_TEST(latency_with_a_hitch), CHECK_TEST(lines_begin_to_cost),
           CHECK_TEST(gap_at_line_end), CHECK_TEST(gap_inside_line), CHECK_TEST(gap_at_end),
           CHECK_TEST(random_drops), CHECK_TEST(abandon_with_batch_out), CHECK_TEST(abandon_counts),
           CHECK_TEST(held_up_by_others), CHECK_TEST(after_abandon), CHECK_TEST(many_runs),
           CHECK_TEST(abandon_at_any_point), CHECK_TEST(closing))
