/* logfile.c: every byte in order, rotation, targets that take no more. */
#include "check.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- a directory with a log in it ---- */

typedef struct {
    char path[64];
    int dir_fd;
    as_logfile *log;
} place;

static int open_log_fd(const place *p) {
    int fd = openat(p->dir_fd, "log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    return fd;
}

static as_logfile *open_log(const place *p, int64_t max_bytes, int backups, int64_t max_line) {
    int dir_fd = fcntl(p->dir_fd, F_DUPFD_CLOEXEC, 0);
    as_logfile *log = as_logfile_new(open_log_fd(p), dir_fd, "log", max_bytes, backups, max_line,
                                     &(as_identity){0});
    CHECK(log);
    return log;
}

static place make_place(void) {
    place p = {.path = "logfile-XXXXXX"};
    CHECK(mkdtemp(p.path));
    p.dir_fd = open(p.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(p.dir_fd >= 0);
    return p;
}

static place place_with_log(int64_t max_bytes, int backups, int64_t max_line) {
    place p = make_place();
    p.log = open_log(&p, max_bytes, backups, max_line);
    return p;
}

/* Removes it all; returns how many files there were. */
static int end_place(place *p) {
    int count = 0;
    as_logfile_free(p->log);
    DIR *directory = opendir(p->path);
    CHECK(directory);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        count += unlinkat(p->dir_fd, entry->d_name, 0) == 0;
    }
    (void)closedir(directory);
    (void)close(p->dir_fd);
    CHECK_EQUAL(rmdir(p->path), 0);
    return count;
}

/* Appends a file to the buffer; -1: there is none, else its size. */
static int64_t read_file(const place *p, const char *name, check_buffer *out) {
    char chunk[65536];
    int fd = openat(p->dir_fd, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return -1;
    }
    int64_t size = 0;
    for (ssize_t got; (got = read(fd, chunk, sizeof chunk)) > 0; size += got) {
        check_append(out, chunk, (size_t)got);
    }
    (void)close(fd);
    return size;
}

/* log.N ... log.1 and log. */
static void read_all(const place *p, int backups, check_buffer *out) {
    for (int number = backups; number > 0; number--) {
        char name[32];
        (void)snprintf(name, sizeof name, "log.%d", number);
        (void)read_file(p, name, out);
    }
    (void)read_file(p, "log", out);
}

static void write_log(as_logfile *log, const char *p, size_t n) {
    for (size_t done = 0, some; done < n; done += some) {
        int error = 0;
        some = as_logfile_write(log, p + done, n - done, &error);
        CHECK(some > 0);
        CHECK_EQUAL(error, 0);
    }
}

static void write_text(as_logfile *log, const char *text) { write_log(log, text, strlen(text)); }

static void check_file(const place *p, const char *name, const char *expected) {
    check_buffer found = {0};
    CHECK(read_file(p, name, &found) >= 0);
    CHECK_BYTES(found.at, found.size, expected, strlen(expected));
    check_clear(&found);
}

/* Lowers a limit of this process; returns what it was. */
static struct rlimit lower(int what, rlim_t to) {
    struct rlimit old;
    CHECK_EQUAL(getrlimit(what, &old), 0);
    struct rlimit few = {.rlim_cur = to, .rlim_max = old.rlim_max};
    CHECK_EQUAL(setrlimit(what, &few), 0);
    return old;
}

/* ---- one file ---- */

/* L3: all bytes, in order. */
static void plain_file(void) {
    place p = place_with_log(AS_FOREVER, 1, 100);
    write_log(p.log, "a\0b\n", 4);
    CHECK(!as_logfile_in_line(p.log));
    write_text(p.log, "c");
    CHECK(as_logfile_in_line(p.log));
    check_buffer found = {0};
    CHECK_EQUAL(read_file(&p, "log", &found), 5);
    CHECK_BYTES(found.at, found.size, "a\0b\nc", 5);
    check_clear(&found);
    CHECK_EQUAL(end_place(&p), 1);
}

/* L2: identity is that of the file that is written now. */
static void identity(void) {
    place p = place_with_log(10, 1, 5);
    struct stat st;
    as_identity first = as_logfile_identity(p.log);
    write_text(p.log, "12345678\n");
    write_text(p.log, "abc\n");
    as_identity now = as_logfile_identity(p.log);
    CHECK(now.inode != first.inode);
    CHECK_EQUAL(fstatat(p.dir_fd, "log", &st, 0), 0);
    CHECK_EQUAL(now.inode, st.st_ino);
    CHECK_EQUAL(now.device, st.st_dev);
    CHECK_EQUAL(st.st_mode & 0777, 0600);
    CHECK_EQUAL(fstatat(p.dir_fd, "log.1", &st, 0), 0);
    CHECK_EQUAL(first.inode, st.st_ino);
    CHECK_EQUAL(end_place(&p), 2);
}

/* ---- rotation ---- */

/* L4: a file that is exactly full does not rotate before the next byte comes. */
static void exact_limit(void) {
    place p = place_with_log(10, 2, 5);
    write_text(p.log, "1234\n");
    write_text(p.log, "5678\n");
    check_file(&p, "log", "1234\n5678\n");
    CHECK_EQUAL(faccessat(p.dir_fd, "log.1", F_OK, 0), -1);
    write_text(p.log, "9");
    check_file(&p, "log.1", "1234\n5678\n");
    check_file(&p, "log", "9");
    CHECK_EQUAL(end_place(&p), 2);
}

/* L4: an unfinished line moves to the new file when its rest does not fit. */
static void moved_line(void) {
    place p = place_with_log(10, 2, 8);
    write_text(p.log, "1234\nab");
    write_text(p.log, "cdef\n");
    check_file(&p, "log.1", "1234\n");
    check_file(&p, "log", "abcdef\n");
    write_text(p.log, "gh");
    write_text(p.log, "ij");
    check_file(&p, "log.1", "abcdef\n");
    check_file(&p, "log", "ghij");
    check_file(&p, "log.2", "1234\n");
    CHECK_EQUAL(end_place(&p), 3);
}

/* L4: one write may fill several files, each up to its last newline. */
static void many_files_at_once(void) {
    place p = place_with_log(10, 9, 5);
    write_text(p.log, "123\n456\n789\nabc\n123456789\n\n\n");
    check_file(&p, "log.3", "123\n456\n");
    check_file(&p, "log.2", "789\nabc\n");
    check_file(&p, "log.1", "123456789\n");
    check_file(&p, "log", "\n\n");
    CHECK_EQUAL(end_place(&p), 4);
}

/* L4: a line longer than a file is cut at the limit, also when it comes byte by byte. */
static void cut_lines(void) {
    for (size_t chunk = 1; chunk <= 40; chunk++) {
        place p = place_with_log(10, 9, 5);
        const char *text = "12\nabcdefghijklmnopqrstuvwxyz\n34\n";
        for (size_t at = 0, n = strlen(text); at < n; at += chunk) {
            write_log(p.log, text + at, chunk < n - at ? chunk : n - at);
        }
        check_buffer all = {0}, one = {0};
        read_all(&p, 9, &all);
        CHECK_BYTES(all.at, all.size, text, strlen(text));
        CHECK_EQUAL(read_file(&p, "log.1", &one), 10);
        check_clear(&one);
        check_clear(&all);
        CHECK(end_place(&p) <= 5);
    }
}

/* L4: log_backups files are kept, no more. */
static void backups(void) {
    place p = place_with_log(4, 2, 4);
    for (char c = '1'; c <= '9'; c++) {
        char line[] = {c, c, c, '\n'};
        write_log(p.log, line, sizeof line);
    }
    check_file(&p, "log", "999\n");
    check_file(&p, "log.1", "888\n");
    check_file(&p, "log.2", "777\n");
    CHECK_EQUAL(end_place(&p), 3);
}

/* The limit holds for each file, and all but the last end with a newline unless one line fills the
   whole file or is longer than max_line. */
static void check_files(const place *p, int count, int64_t max_bytes, size_t max_line) {
    for (int number = 1; number <= count; number++) {
        char name[32];
        check_buffer file = {0};
        (void)snprintf(name, sizeof name, "log.%d", number);
        int64_t size = read_file(p, name, &file);
        CHECK(size <= max_bytes);
        if (size > 0 && file.at && file.at[size - 1] != '\n') {
            const char *newline = memrchr(file.at, '\n', (size_t)size);
            size_t line = newline ? file.size - (size_t)(newline - file.at) - 1 : file.size;
            CHECK(line == file.size || line > max_line);
        }
        check_clear(&file);
    }
}

/* L4: no byte is lost or doubled, whatever the sizes. */
static void random_writes(void) {
    enum { FILES = 160 };
    uint64_t seed = 1;
    for (int round = 0; round < 60; round++) {
        int64_t max_bytes = 40 + (int64_t)check_random(&seed, 200);
        size_t max_line = 4 + (size_t)check_random(&seed, 60);
        uint64_t newline = 1 + check_random(&seed, 60), most = 1 + check_random(&seed, 400);
        place p = place_with_log(max_bytes, FILES, (int64_t)max_line);
        check_buffer all = {0}, found = {0};
        while (all.size < 2500) {
            char chunk[400];
            size_t n = 1 + (size_t)check_random(&seed, most);
            for (size_t i = 0; i < n; i++) {
                chunk[i] = (char)(check_random(&seed, newline) ? 'a' + check_random(&seed, 26)
                                                               : '\n');
            }
            write_log(p.log, chunk, n);
            check_append(&all, chunk, n);
            CHECK_EQUAL(as_logfile_in_line(p.log), chunk[n - 1] != '\n');
        }
        read_all(&p, FILES, &found);
        CHECK_BYTES(found.at, found.size, all.at, all.size);
        check_clear(&found);
        check_clear(&all);
        check_files(&p, FILES, max_bytes, max_line);
        CHECK(end_place(&p) < FILES);
    }
}

/* A writer that was made before another one wrote 12 bytes, and begins after that. */
static place place_after_another(bool empty) {
    place p = place_with_log(10, 3, 5);
    int fd = open_log_fd(&p);
    CHECK_EQUAL(write(fd, "old old old\n", 12), 12);
    (void)close(fd);
    CHECK_EQUAL(as_logfile_begin(p.log, empty), 0);
    return p;
}

/* L4: a log that was there before rotates too; its bytes are kept. */
static void appended_log(void) {
    place p = place_after_another(false);
    write_text(p.log, "new\n");
    check_file(&p, "log.1", "old old old\n");
    check_file(&p, "log", "new\n");
    CHECK_EQUAL(end_place(&p), 2);
}

/* L2, L4: an emptied log rotates as a new one does. */
static void emptied_log(void) {
    place p = place_after_another(true);
    write_text(p.log, "1234567\n");
    check_file(&p, "log", "1234567\n");
    write_text(p.log, "xyz\n");
    check_file(&p, "log.1", "1234567\n");
    check_file(&p, "log", "xyz\n");
    CHECK_EQUAL(end_place(&p), 2);
}

/* R3, L4: without a descriptor for the new file the old one goes on, and no backup is lost. */
static void rotation_fails(void) {
    place p = place_with_log(4, 3, 4);
    write_text(p.log, "111\n");
    write_text(p.log, "222\n");
    write_text(p.log, "333\n");
    struct rlimit old = lower(RLIMIT_NOFILE, 0);
    for (int i = 0; i < 4; i++) {
        int error = 0;
        CHECK_EQUAL(as_logfile_write(p.log, "44\n", 3, &error), 3);
        CHECK_EQUAL(error, i % 2 == 0 ? EMFILE : 0); /* tried again max_bytes later */
    }
    CHECK_EQUAL(setrlimit(RLIMIT_NOFILE, &old), 0);
    write_text(p.log, "555\n");
    check_file(&p, "log", "555\n");
    check_file(&p, "log.1", "333\n44\n44\n44\n44\n");
    check_file(&p, "log.2", "222\n");
    check_file(&p, "log.3", "111\n");
    CHECK_EQUAL(end_place(&p), 4);
}

/* L4: a log that somebody removed is made anew when it rotates. */
static void removed_log(void) {
    place p = place_with_log(4, 2, 4);
    write_text(p.log, "111\n");
    CHECK_EQUAL(unlinkat(p.dir_fd, "log", 0), 0);
    write_text(p.log, "222\n");
    check_file(&p, "log", "222\n");
    CHECK(end_place(&p) <= 2);
}

/* ---- targets that take no more ---- */

/* L3: a full file system fails the write; once there is room, writing goes on. */
static void file_limit(void) {
    place p = place_with_log(AS_FOREVER, 1, 100);
    int error = 0;
    CHECK(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    struct rlimit old = lower(RLIMIT_FSIZE, 10);
    CHECK_EQUAL(as_logfile_write(p.log, "0123456789abc", 13, &error), 13);
    CHECK_EQUAL(error, EFBIG);
    CHECK_EQUAL(setrlimit(RLIMIT_FSIZE, &old), 0);
    error = 0;
    CHECK_EQUAL(as_logfile_write(p.log, "X\n", 2, &error), 2);
    CHECK_EQUAL(error, 0);
    check_file(&p, "log", "0123456789X\n");
    CHECK_EQUAL(end_place(&p), 1);
}

/* L3: the same while an unfinished line moves: no byte is lost, some may be in both files. */
static void file_limit_in_rotation(void) {
    place p = place_with_log(30, 2, 25);
    int error = 0;
    CHECK(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    write_text(p.log, "12\nabcdefghijklmnopqrst");
    struct rlimit old = lower(RLIMIT_FSIZE, 5);
    CHECK_EQUAL(as_logfile_write(p.log, "uvwxyzUVWXYZ", 12, &error), 12);
    CHECK_EQUAL(error, EFBIG);
    CHECK_EQUAL(setrlimit(RLIMIT_FSIZE, &old), 0);
    check_file(&p, "log.1", "12\nabcdefghijklmnopqrst");
    CHECK_EQUAL(end_place(&p), 2);
}

/* L4: on a full disk no backup gives way to a file that holds nothing. */
static void file_limit_and_backups(void) {
    place p = place_with_log(10, 2, 9);
    CHECK(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    write_text(p.log, "1234567\nabcdefg\n");
    struct rlimit old = lower(RLIMIT_FSIZE, 0);
    for (int i = 0; i < 3; i++) {
        int error = 0;
        CHECK_EQUAL(as_logfile_write(p.log, "ABCDEFG\nHIJKLMN\n", 16, &error), 16);
        CHECK_EQUAL(error, EFBIG);
    }
    CHECK_EQUAL(setrlimit(RLIMIT_FSIZE, &old), 0);
    check_file(&p, "log.2", "1234567\n");
    check_file(&p, "log.1", "abcdefg\n");
    CHECK_EQUAL(end_place(&p), 3);
}

/* Fills the target until it takes no more, within a bound; the bytes are 'x'. */
static size_t fill(as_logfile *log) {
    static char chunk[10000];
    size_t total = 0;
    memset(chunk, 'x', sizeof chunk);
    for (;;) {
        int error = 0;
        size_t done = as_logfile_write(log, chunk, sizeof chunk, &error);
        CHECK_EQUAL(error, 0);
        total += done;
        if (done < sizeof chunk) {
            return total;
        }
        CHECK(total < 16 << 20);
    }
}

/* Reads all that is there; the bytes must be 'x'. */
static size_t empty(int fd) {
    char chunk[4096];
    size_t total = 0;
    CHECK_EQUAL(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    for (ssize_t got; (got = read(fd, chunk, sizeof chunk)) > 0; total += (size_t)got) {
        for (ssize_t i = 0; i < got; i++) {
            CHECK_EQUAL(chunk[i], 'x');
        }
    }
    return total;
}

/* L3: a full target takes what it can, blocks nobody, and can be waited for. */
static void check_full(int reader, int writer) {
    as_logfile *log = as_logfile_new(writer, -1, "", 10, 1, 100, &(as_identity){0});
    struct pollfd ready = {.events = POLLOUT};
    CHECK(log);
    size_t written = fill(log);
    CHECK(written > 0);
    CHECK_EQUAL(fill(log), 0);
    ready.fd = as_logfile_fd(log);
    CHECK_EQUAL(poll(&ready, 1, 0), 0);
    CHECK_EQUAL(empty(reader), written);
    CHECK_EQUAL(poll(&ready, 1, -1), 1);
    written = fill(log);
    CHECK(written > 0);
    CHECK_EQUAL(empty(reader), written);
    as_logfile_free(log);
    (void)close(reader);
}

/* L2, L3: /dev/stdout is a pipe in blocking mode, or in the other. */
static void full_pipe(void) {
    int ends[2];
    CHECK_EQUAL(pipe2(ends, O_CLOEXEC), 0);
    check_full(ends[0], ends[1]);
    CHECK_EQUAL(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    check_full(ends[0], ends[1]);
}

/* L2, L3: or a socket. */
static void full_socket(void) {
    int ends[2];
    CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    check_full(ends[0], ends[1]);
}

/* L2, L3: or a terminal, whose output somebody stopped. Whether a write that may block does so is a
   matter of chance there. */
static void full_terminal(void) {
    for (int round = 0; round < 20; round++) {
        int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
        CHECK(master >= 0);
        CHECK_EQUAL(grantpt(master), 0);
        CHECK_EQUAL(unlockpt(master), 0);
        int slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
        CHECK(slave >= 0);
        as_logfile *log = as_logfile_new(slave, -1, "", AS_FOREVER, 1, 100, &(as_identity){0});
        CHECK(log);
        (void)alarm(20); /* a write that blocks ends the program */
        CHECK(fill(log) > 0);
        (void)alarm(0);
        CHECK(empty(master) > 0);
        as_logfile_free(log);
        (void)close(master);
    }
}

/* L3: a reader that is gone is an error, and the bytes count as used up; a host in which SIGPIPE is
   fatal lives on. */
static void broken_pipe(void) {
    for (int socket = 0; socket < 2; socket++) {
        int ends[2], error = 0;
        sigset_t pending;
        CHECK(signal(SIGPIPE, SIG_DFL) != SIG_ERR);
        CHECK_EQUAL(socket ? socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends)
                           : pipe2(ends, O_CLOEXEC),
                    0);
        (void)close(ends[0]);
        as_logfile *log = as_logfile_new(ends[1], -1, "", AS_FOREVER, 1, 100, &(as_identity){0});
        CHECK(log);
        CHECK_EQUAL(as_logfile_write(log, "abc", 3, &error), 3);
        CHECK_EQUAL(error, EPIPE);
        CHECK_EQUAL(sigpending(&pending), 0);
        CHECK_EQUAL(sigismember(&pending, SIGPIPE), 0);
        as_logfile_free(log);
    }
}

/* L4: a write rotates once, so that who has many to do can look at the time in between. */
static void one_rotation_at_a_time(void) {
    place p = place_with_log(3, 9, 4);
    int error = 0;
    CHECK_EQUAL(as_logfile_write(p.log, "1\n2\n3\n4\n", 8, &error), 4);
    CHECK_EQUAL(as_logfile_write(p.log, "3\n4\n", 4, &error), 2);
    CHECK_EQUAL(as_logfile_write(p.log, "4\n", 2, &error), 2);
    CHECK_EQUAL(error, 0);
    CHECK_EQUAL(as_logfile_fd(p.log), -1);
    CHECK_EQUAL(end_place(&p), 4);
}

/* ---- a shared writer ---- */

enum { WRITERS = 4, LINES = 3000 };

typedef struct {
    as_logfile *log;
    int number;
} writer;

static void *write_lines(void *writer_pointer) {
    const writer *w = writer_pointer;
    for (int i = 0; i < LINES; i++) {
        char line[32];
        int size = snprintf(line, sizeof line, "%d %d\n", w->number, i);
        write_log(w->log, line, (size_t)size);
        if (i % 100 == 0) {
            (void)as_logfile_identity(w->log);
        }
    }
    return NULL;
}

static void *rotate_often(void *log) {
    for (int i = 0; i < LINES; i++) {
        write_text(log, "1234567\n");
    }
    return NULL;
}

/* L2: who opens the log at any moment of a rotation gets a file that is known to have a writer. */
static void known_at_any_moment(void) {
    place p = place_with_log(8, 1, 40);
    pthread_t thread;
    CHECK_EQUAL(pthread_create(&thread, NULL, rotate_often, p.log), 0);
    while (pthread_tryjoin_np(thread, NULL) == EBUSY) {
        struct stat opened, now;
        int fd = openat(p.dir_fd, "log", O_RDONLY | O_CLOEXEC); /* keeps its inode from others */
        CHECK(fd >= 0);
        CHECK_EQUAL(fstat(fd, &opened), 0);
        int writes = as_logfile_writes(p.log, opened.st_dev, opened.st_ino);
        CHECK_EQUAL(fstatat(p.dir_fd, "log", &now, 0), 0);
        CHECK(writes || now.st_ino != opened.st_ino);
        (void)close(fd);
    }
    CHECK_EQUAL(as_logfile_writes(p.log, 0, 1), 0);
    CHECK_EQUAL(end_place(&p), 2);
}

/* L2, L4: runs that share a writer lose nothing, whole lines stay whole, each in its order. */
static void shared_writer(void) {
    enum { FILES = 130 };
    place p = place_with_log(1000, FILES, 40);
    writer writers[WRITERS];
    pthread_t threads[WRITERS];
    int next[WRITERS] = {0};
    for (int i = 0; i < WRITERS; i++) {
        writers[i] = (writer){p.log, i};
        CHECK_EQUAL(pthread_create(&threads[i], NULL, write_lines, &writers[i]), 0);
    }
    for (int i = 0; i < WRITERS; i++) {
        CHECK_EQUAL(pthread_join(threads[i], NULL), 0);
    }
    check_buffer all = {0};
    read_all(&p, FILES, &all);
    check_append(&all, "", 1);
    char *rest = all.at;
    for (char *line; (line = strsep(&rest, "\n")) != NULL && *line;) {
        char *end;
        long number = strtol(line, &end, 10);
        CHECK(number >= 0 && number < WRITERS);
        CHECK_EQUAL(strtol(end, NULL, 10), next[number]++);
    }
    for (int i = 0; i < WRITERS; i++) {
        CHECK_EQUAL(next[i], LINES);
    }
    check_clear(&all);
    check_files(&p, FILES, 1000, 40);
    CHECK(end_place(&p) < FILES);
}

/* A writer that cannot be made closes what it was given. */
static void no_descriptor_leaks(void) {
    place p = make_place();
    int before = dup(0), dir_fd;
    CHECK(before >= 0);
    (void)close(before);
    dir_fd = fcntl(p.dir_fd, F_DUPFD_CLOEXEC, 0);
    CHECK(!as_logfile_new(-1, dir_fd, "log", 10, 1, 10, &(as_identity){0}));
    int after = dup(0);
    CHECK_EQUAL(after, before);
    (void)close(after);
    CHECK_EQUAL(end_place(&p), 0);
}

CHECK_MAIN(CHECK_TEST(plain_file), CHECK_TEST(identity), CHECK_TEST(exact_limit),
           CHECK_TEST(moved_line), CHECK_TEST(many_files_at_once), CHECK_TEST(cut_lines),
           CHECK_TEST(backups), CHECK_TEST(random_writes), CHECK_TEST(appended_log),
           CHECK_TEST(emptied_log), CHECK_TEST(rotation_fails), CHECK_TEST(removed_log),
           CHECK_TEST(file_limit), CHECK_TEST(file_limit_in_rotation),
           CHECK_TEST(file_limit_and_backups), CHECK_TEST(full_pipe), CHECK_TEST(full_socket),
           CHECK_TEST(full_terminal), CHECK_TEST(broken_pipe), CHECK_TEST(one_rotation_at_a_time),
           CHECK_TEST(known_at_any_moment), CHECK_TEST(shared_writer),
           CHECK_TEST(no_descriptor_leaks))
