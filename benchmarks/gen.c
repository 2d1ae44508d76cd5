/* gen.c: writes BYTES bytes in lines of LENGTH (newline included), in 64 KiB writes:
 *
 *     gen BYTES LENGTH
 *
 * LENGTH 0 is one line without an end.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WRITE_SIZE = 64 * 1024 };

int main(int argc, char **argv) {
    if (argc != 3) {
        (void)fprintf(stderr, "usage: gen BYTES LENGTH\n");
        return 2;
    }
    int64_t left = atoll(argv[1]);
    size_t length = (size_t)atoll(argv[2]);
    /* As many whole lines as fit, so that each write ends with one. */
    size_t size = length ? WRITE_SIZE / length * length : WRITE_SIZE;
    char *text = malloc(size ? size : length);
    size = size ? size : length;
    if (!text) {
        return 1;
    }
    memset(text, 'x', size);
    for (size_t at = length; length && at <= size; at += length) {
        text[at - 1] = '\n';
    }
    while (left > 0) {
        size_t part = left < (int64_t)size ? (size_t)left : size;
        for (size_t done = 0; done < part;) {
            ssize_t n = write(STDOUT_FILENO, text + done, part - done);
            if (n < 0) {
                return 1;
            }
            done += (size_t)n;
        }
        left -= (int64_t)part;
    }
    free(text);
    return 0;
}
