/* fuzz_lines.c: the line cutter gives the same lines however its input is cut into reads (L5). */
#include "fuzz.h"

static void cut_all(check_buffer *pending, size_t max_line, uint32_t max_lines, bool final,
                    check_buffer *list) {
    char *p = pending->at, *end = p + pending->size;
    for (;;) {
        as_cut cut = as_lines_cut(p, (size_t)(end - p), max_line, max_lines, final);
        CHECK(cut.take <= (size_t)(end - p) && cut.text <= cut.take);
        if (cut.take == 0) {
            break;
        }
        CHECK(cut.lines >= 1 && cut.lines <= max_lines);
        size_t size = as_lines_drop_cr(p, cut.text, cut.take == cut.text + 1);
        fuzz_add_lines(list, p, size);
        p += cut.take;
    }
    pending->size = (size_t)(end - p);
    memmove(pending->at, p, pending->size);
}

static size_t count_slowly(const char *p, size_t n) {
    size_t count = 0;
    while (n-- > 0) {
        count += *p++ == '\n';
    }
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_input input = {data, size};
    size_t max_line = 4 + fuzz_byte(&input);
    uint32_t max_lines = 1 + fuzz_byte(&input);
    uint64_t seed = 1 + fuzz_byte(&input);
    size_t most = 1 + fuzz_byte(&input) * (size_t)64;
    check_buffer output = fuzz_output(&input);
    check_buffer expected = {0}, list = {0}, pending = {0};
    CHECK_EQUAL(as_lines_count(output.at, output.size), count_slowly(output.at, output.size));
    (void)fuzz_reference(output.at, output.size, max_line, &expected);
    check_append(&pending, "", 0);
    for (size_t done = 0; done < output.size;) {
        size_t n = fuzz_chunk(&seed, output.size - done, most);
        check_append(&pending, output.at + done, n);
        done += n;
        cut_all(&pending, max_line, max_lines, false, &list);
    }
    cut_all(&pending, max_line, max_lines, true, &list);
    CHECK_EQUAL(pending.size, 0);
    CHECK_BYTES(list.at, list.size, expected.at, expected.size);
    check_clear(&output);
    check_clear(&expected);
    check_clear(&list);
    check_clear(&pending);
    return 0;
}
