/* lines.c against slow cutters that look at one byte at a time. */
#include "check.h"

/* ---- the reference ---- */

/* Where a piece of `size` bytes ends that may not split a UTF-8 sequence. */
static size_t slow_boundary(const char *p, size_t size) {
    for (size_t start = size > 3 ? size - 3 : 1; start < size; start++) {
        unsigned char lead = (unsigned char)p[start];
        size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 0;
        size_t seen = 1;
        while (start + seen < size && ((unsigned char)p[start + seen] & 0xC0) == 0x80) {
            seen++;
        }
        if (length > seen && start + seen == size) {
            return start;
        }
    }
    return size;
}

/* All lines of a stream, a newline after each; what `text` leaves unfinished at its end counts too.
   Returns how many there are. */
static size_t slow_lines(const char *text, size_t n, size_t max_line, check_buffer *out) {
    size_t at = 0, lines = 0;
    while (at < n) {
        size_t end = at;
        while (end < n && text[end] != '\n') {
            end++;
        }
        bool newline = end < n;
        size_t size = end - at - (newline && end > at && text[end - 1] == '\r');
        bool whole = size <= max_line;
        size = whole ? size : slow_boundary(text + at, max_line);
        check_append(out, text + at, size);
        check_append(out, "\n", 1);
        at = whole ? end + newline : at + size;
        lines++;
    }
    return lines;
}

/* ---- the cutter as the queue uses it ---- */

typedef struct {
    const char *text;
    size_t size, max_line;
    size_t begin, end; /* what the cutter sees: more is to come while end < size */
    size_t lines;
    check_buffer out;
} cutting;

/* One cut; false: there is no whole line. The bytes lie in a block of their own size, so that a
   sanitizer sees a read beyond them. */
static bool cut_once(cutting *c, uint32_t max_lines, bool final) {
    size_t n = c->end - c->begin;
    char *block = malloc(n ? n : 1);
    CHECK(block);
    memcpy(block, c->text + c->begin, n);
    as_cut cut = as_lines_cut(block, n, c->max_line, max_lines, final);
    if (cut.take > 0) {
        CHECK(cut.text <= cut.take && cut.take <= n);
        CHECK(cut.lines >= 1 && cut.lines <= max_lines);
        size_t size = as_lines_drop_cr(block, cut.text, cut.take == cut.text + 1);
        CHECK(size <= AS_BATCH_BYTES);
        bool ascii;
        CHECK_EQUAL(as_lines_look(block, size, &ascii) + 1, cut.lines);
        CHECK(ascii || !cut.ascii);
        check_append(&c->out, block, size);
        check_append(&c->out, "\n", 1);
        c->begin += cut.take;
        c->lines += cut.lines;
    }
    free(block);
    return cut.take > 0;
}

static void check_cut(const char *text, size_t size, size_t max_line, size_t max_chunk,
                      uint64_t *seed) {
    cutting c = {.text = text, .size = size, .max_line = max_line};
    check_buffer expected = {0};
    while (c.end < size) {
        size_t left = size - c.end, chunk = 1 + (size_t)check_random(seed, max_chunk);
        c.end += chunk < left ? chunk : left;
        uint32_t max_lines = check_random(seed, 4) ? AS_BATCH_LINES
                                                   : 1 + (uint32_t)check_random(seed, 5);
        while (cut_once(&c, max_lines, false)) {
        }
        CHECK(c.end - c.begin <= max_line + 1); /* no more than this waits for its newline */
    }
    while (cut_once(&c, AS_BATCH_LINES, true)) {
    }
    CHECK_EQUAL(c.begin, size);
    CHECK_EQUAL(c.lines, slow_lines(text, size, max_line, &expected));
    CHECK_BYTES(c.out.at, c.out.size, expected.at, expected.size);
    check_clear(&c.out);
    check_clear(&expected);
}

/* ---- tests ---- */

static const char *const alphabets[] = {
    "a\n",
    "ab\r\n",
    "abcdefgh\r\n",
    "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\n",
    "a\xC3\xA9\xF0\x9F\x98\x80\xFF\x80\r\n",
};

static void random_text(char *p, size_t n, uint64_t *seed) {
    const char *alphabet = alphabets[check_random(seed, sizeof alphabets / sizeof *alphabets)];
    size_t letters = strlen(alphabet);
    uint64_t newline = 1 + check_random(seed, 100);
    for (size_t i = 0; i < n; i++) {
        p[i] = alphabet[check_random(seed, letters)];
        if (p[i] == '\n' && check_random(seed, newline)) {
            p[i] = '\0';
        }
    }
}

/* L5: lines and pieces are those of a slow cutter, wherever the reads end. */
static void random_bytes(void) {
    uint64_t seed = 1;
    char text[600];
    for (int round = 0; round < 3000; round++) {
        size_t n = (size_t)check_random(&seed, sizeof text);
        random_text(text, n, &seed);
        size_t max_line = 4 + (size_t)(round % 67);
        check_cut(text, n, max_line, 1 + (size_t)check_random(&seed, 150), &seed);
    }
}

/* L5: a sequence of well-formed characters is split between characters only. */
static void pieces_are_utf8(void) {
    static const char *const letters[] = {"a", "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80"};
    uint64_t seed = 2;
    for (size_t max_line = 4; max_line <= 70; max_line++) {
        char text[400];
        size_t n = 0;
        while (n + 4 <= sizeof text) {
            const char *letter = letters[check_random(&seed, 4)];
            memcpy(text + n, letter, strlen(letter));
            n += strlen(letter);
        }
        for (size_t at = 0; at < n;) {
            as_cut cut = as_lines_cut(text + at, n - at, max_line, 1, true);
            CHECK(cut.take == n - at || cut.take + 3 >= max_line);
            at += cut.take;
            CHECK(at == n || ((unsigned char)text[at] & 0xC0) != 0x80);
        }
    }
}

/* L5, L6: lines around max_line's default, the size of a batch. */
static void long_lines(void) {
    static const char *const ends[] = {"", "\n", "\r\n", "\r\r\n", "\r", "\xC3\xA9\n", "\n\nx\r\n"};
    uint64_t seed = 3;
    for (size_t size = AS_BATCH_BYTES - 3; size <= AS_BATCH_BYTES + 3; size++) {
        for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
            check_buffer text = {0};
            for (int line = 0; line < 2; line++) {
                size_t begin = text.size;
                text.room = begin + size + 8;
                text.at = realloc(text.at, text.room);
                CHECK(text.at);
                memset(text.at + begin, 'x', size);
                text.size = begin + size;
                check_append(&text, ends[i], strlen(ends[i]));
            }
            check_cut(text.at, text.size, AS_BATCH_BYTES, 2 * AS_BATCH_BYTES, &seed);
            check_cut(text.at, text.size, 1000, 2 * AS_BATCH_BYTES, &seed);
            check_clear(&text);
        }
    }
}

/* L6: a batch ends at AS_BATCH_BYTES and at the lines that are asked for. */
static void batch_limits(void) {
    size_t n = (size_t)3 * AS_BATCH_BYTES;
    char *text = malloc(n);
    CHECK(text);
    memset(text, '\n', n);
    CHECK_EQUAL(as_lines_cut(text, n, 100, AS_BATCH_LINES, false).lines, AS_BATCH_LINES);
    CHECK_EQUAL(as_lines_cut(text, n, 100, 7, false).take, 7);
    as_cut most = as_lines_cut(text, n, 100, UINT32_MAX, false);
    CHECK(most.text <= AS_BATCH_BYTES);
    CHECK_EQUAL(most.lines, most.take);
    free(text);
}

/* L5: what has no newline waits for more, and comes at the end. */
static void unfinished(void) {
    CHECK_EQUAL(as_lines_cut("abc", 3, 4, 10, false).take, 0);
    CHECK_EQUAL(as_lines_cut("abcd", 4, 4, 10, false).take, 0);
    CHECK_EQUAL(as_lines_cut("abcd\r", 5, 4, 10, false).take, 0);
    CHECK_EQUAL(as_lines_cut("abcd\r\n", 6, 4, 10, false).text, 5);
    CHECK_EQUAL(as_lines_cut("abcd\r\n", 6, 4, 10, false).take, 6);
    CHECK_EQUAL(as_lines_cut("abcde", 5, 4, 10, false).take, 4);
    CHECK_EQUAL(as_lines_cut("abcd\r", 5, 4, 10, true).take, 4);
    CHECK_EQUAL(as_lines_cut("abc", 3, 4, 10, true).take, 3);
    CHECK_EQUAL(as_lines_cut("", 0, 4, 10, true).take, 0);
    CHECK_EQUAL(as_lines_cut("", 0, 4, 10, false).lines, 0);
    CHECK(as_lines_cut("abcd\n\xC3", 6, 4, 10, false).ascii);
    CHECK(!as_lines_cut("ab\xC3\xA9\n", 5, 4, 10, false).ascii);
}

/* L5: newlines are counted, and what is no ASCII found, wherever they lie, the vectors' ends included. */
static void counting(void) {
    enum { MOST = 5000 };
    uint64_t seed = 4;
    char bytes[MOST];
    memset(bytes, '\n', MOST); /* lanes would overflow here first */
    for (size_t n = 0; n <= MOST; n++) {
        CHECK_EQUAL(as_lines_count(bytes, n), n);
    }
    for (int round = 0; round < 2000; round++) {
        size_t begin = (size_t)check_random(&seed, 40), expected = 0;
        size_t n = (size_t)check_random(&seed, MOST - begin);
        for (size_t i = begin; i < begin + n; i++) {
            bytes[i] = (char)(check_random(&seed, 3) ? check_random(&seed, 256) : '\n');
            expected += bytes[i] == '\n';
        }
        CHECK_EQUAL(as_lines_count(bytes + begin, n), expected);
    }
    memset(bytes, 'a', MOST);
    for (int round = 0; round < 5000; round++) {
        bool ascii, is_in = check_random(&seed, 2);
        size_t begin = (size_t)check_random(&seed, 40), n = 1 + (size_t)check_random(&seed, 80);
        size_t odd = begin + (is_in ? (size_t)check_random(&seed, n) : n);
        bytes[odd] = (char)(0x80 + check_random(&seed, 0x80));
        CHECK_EQUAL(as_lines_look(bytes + begin, n, &ascii), 0);
        CHECK_EQUAL(ascii, !is_in);
        bytes[odd] = 'a';
    }
}

/* L5: one carriage return before a newline goes, others stay. */
static void carriage_returns(void) {
    uint64_t seed = 5;
    for (int round = 0; round < 5000; round++) {
        size_t n = (size_t)check_random(&seed, 30), kept = 0;
        bool newline_follows = check_random(&seed, 2);
        char *text = malloc(n ? n : 1), expected[30];
        CHECK(text);
        for (size_t i = 0; i < n; i++) {
            text[i] = "a\r\r\n"[check_random(&seed, 4)];
        }
        for (size_t i = 0; i < n; i++) {
            bool newline = i + 1 < n ? text[i + 1] == '\n' : newline_follows;
            if (text[i] != '\r' || !newline) {
                expected[kept++] = text[i];
            }
        }
        size_t size = as_lines_drop_cr(text, n, newline_follows);
        CHECK_BYTES(text, size, expected, kept);
        free(text);
    }
}

CHECK_MAIN(CHECK_TEST(random_bytes), CHECK_TEST(pieces_are_utf8), CHECK_TEST(long_lines),
           CHECK_TEST(batch_limits), CHECK_TEST(unfinished), CHECK_TEST(counting),
           CHECK_TEST(carriage_returns))
