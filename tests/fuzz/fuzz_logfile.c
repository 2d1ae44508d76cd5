/* fuzz_logfile.c: a log file that rotates holds every byte once, in order, in files that end between
   lines, however its input is cut into writes (L3, L4). */
#include "fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BACKUPS = 400 };

static char directory[] = "/tmp/fuzz-logfile-XXXXXX";
static int directory_fd = -1;

static void remove_files(void) {
    DIR *entries = fdopendir(openat(directory_fd, ".", O_RDONLY | O_DIRECTORY));
    CHECK(entries);
    for (const struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        if (entry->d_name[0] != '.') {
            CHECK(unlinkat(directory_fd, entry->d_name, 0) == 0);
        } else {
            CHECK(entry->d_name[1] == 0 || entry->d_name[1] == '.'); /* nothing half made is left */
        }
    }
    (void)closedir(entries);
}

static void remove_directory(void) {
    remove_files();
    (void)rmdir(directory);
}

static bool read_file(const char *name, check_buffer *out) {
    int fd = openat(directory_fd, name, O_RDONLY);
    if (fd < 0) {
        return false;
    }
    char buffer[65536];
    for (ssize_t got; (got = read(fd, buffer, sizeof buffer)) > 0;) {
        check_append(out, buffer, (size_t)got);
    }
    (void)close(fd);
    return true;
}

/* Checks the files, oldest first, and appends them to `all`. */
static void check_files(const check_buffer *output, size_t max_bytes, size_t max_line) {
    check_buffer all = {0};
    check_append(&all, "", 0);
    for (int number = BACKUPS; number >= 0; number--) {
        char name[32];
        (void)snprintf(name, sizeof name, number ? "log.%d" : "log", number);
        size_t before = all.size;
        if (!read_file(name, &all)) {
            continue;
        }
        size_t size = all.size - before;
        CHECK(size <= max_bytes + max_line); /* a line that fits into no file, or moved along */
        bool in_line = number > 0 && size > 0 && all.at[all.size - 1] != '\n';
        if (in_line) { /* only a line of more than max_line, or than a file, goes on in the next */
            const char *newline = memrchr(all.at + before, '\n', size);
            size_t begun = newline ? (size_t)(all.at + all.size - newline) - 1 : size;
            CHECK(begun > max_line || begun >= size);
        }
    }
    CHECK_BYTES(all.at, all.size, output->at, output->size);
    check_clear(&all);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (directory_fd < 0) {
        CHECK(mkdtemp(directory));
        directory_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        CHECK(directory_fd >= 0 && atexit(remove_directory) == 0);
    }
    fuzz_input input = {data, size};
    size_t max_bytes = 1 + fuzz_byte(&input), max_line = 4 + fuzz_byte(&input) % 64;
    uint64_t seed = 1 + fuzz_byte(&input);
    size_t most = 1 + fuzz_byte(&input) * (size_t)4;
    check_buffer output = fuzz_output(&input);
    max_bytes += output.size / 50; /* not too many files: each takes a while */
    int fd = openat(directory_fd, "log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    as_logfile *log = as_logfile_new(fd, dup(directory_fd), "log", (int64_t)max_bytes, BACKUPS,
                                     (int64_t)max_line, &(as_identity){0});
    CHECK(log);
    for (size_t done = 0; done < output.size;) {
        int error = 0;
        size_t n = fuzz_chunk(&seed, output.size - done, most);
        n = as_logfile_write(log, output.at + done, n, &error);
        CHECK(n > 0);
        CHECK_EQUAL(error, 0);
        done += n;
        CHECK(as_logfile_in_line(log) == (output.at[done - 1] != '\n'));
    }
    as_logfile_free(log);
    if (output.size / max_bytes < BACKUPS / 2) {
        check_files(&output, max_bytes, max_line);
    }
    check_clear(&output);
    remove_files();
    return 0;
}
