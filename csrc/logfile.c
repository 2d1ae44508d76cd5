/* logfile.c: a log file's one writer, and its rotation (L3, L4). */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

struct as_logfile {
    pthread_mutex_t
        lock; /* guards all below but the identities, and the order of bytes in the file */
    /* Guards both identities; taken inside `lock`. A write that hangs keeps that one, and with it all
       who look for the writer of a file. */
    pthread_mutex_t identity_lock;
    as_identity current;
    as_identity fresh; /* during a rotation: of the file that takes its place; else zeros */
    int fd, dir_fd;
    char *name;
    int64_t size, max_bytes;
    int64_t retry_at; /* the size at which to try a rotation that failed again */
    int backups;
    bool regular, pipe, socket;
    bool direct;      /* a write never blocks for long */
    bool in_line;     /* the last byte written was no newline */
    char *line;       /* the unfinished line at the file's end; only kept for rotation */
    size_t line_size; /* its length; counts on beyond max_line, where the bytes are not kept */
    size_t max_line;
};

enum { DESCRIPTOR_PATH = 32 };

static void descriptor_path(int fd, char path[DESCRIPTOR_PATH]) {
    (void)snprintf(path, DESCRIPTOR_PATH, "/proc/self/fd/%d", fd);
}

/* A pipe or terminal in blocking mode may be the host's own: opened anew it has flags of its own. Where
   that is refused, the old one has to do. */
static void stop_blocking(int *fd) {
    char path[DESCRIPTOR_PATH];
    descriptor_path(*fd, path);
    int other = open(path, O_WRONLY | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (other >= 0) {
        as_close(fd);
        *fd = other;
    }
}

/* 0 or an errno. */
static int init_locks(as_logfile *log) {
    int error = pthread_mutex_init(&log->lock, NULL);
    if (error == 0) {
        error = pthread_mutex_init(&log->identity_lock, NULL);
        if (error != 0) {
            (void)pthread_mutex_destroy(&log->lock);
        }
    }
    return error;
}

static as_identity identity_of(const struct stat *st) {
    return (as_identity){st->st_dev, st->st_ino};
}

/* NULL and errno; both descriptors are closed then. */
static as_logfile *make(int fd, int dir_fd, const struct stat *st, const char *name,
                        int64_t max_bytes, int backups, int64_t max_line, as_identity *identity) {
    as_logfile *log = calloc(1, sizeof *log);
    int error = log ? init_locks(log) : ENOMEM;
    if (!log || error != 0) {
        free(log);
        as_close(&fd);
        as_close(&dir_fd);
        errno = error;
        return NULL;
    }
    log->fd = fd;
    log->dir_fd = dir_fd;
    log->backups = backups;
    log->max_line = (size_t)max_line;
    log->max_bytes = dir_fd >= 0 ? max_bytes : AS_FOREVER;
    log->name = strdup(name);
    log->line = log->max_bytes == AS_FOREVER ? NULL : malloc(log->max_line);
    if (!log->name || (!log->line && log->max_bytes != AS_FOREVER)) {
        as_logfile_free(log);
        errno = ENOMEM;
        return NULL;
    }
    log->regular = log->direct = S_ISREG(st->st_mode);
    log->pipe = S_ISFIFO(st->st_mode);
    log->socket = S_ISSOCK(st->st_mode);
    if (!log->regular && !log->socket) {
        stop_blocking(&log->fd);
        int flags = fcntl(log->fd, F_GETFL);
        log->direct = flags >= 0 && (flags & O_NONBLOCK);
    }
    log->current = *identity = identity_of(st);
    return log;
}

as_logfile *as_logfile_new(int fd, int dir_fd, const char *name, int64_t max_bytes, int backups,
                           int64_t max_line, as_identity *identity) {
    struct stat st;
    if (fstat(fd, &st) == 0) {
        return make(fd, dir_fd, &st, name, max_bytes, backups, max_line, identity);
    }
    int error = errno;
    as_close(&fd);
    as_close(&dir_fd);
    errno = error;
    return NULL;
}

as_logfile *as_logfile_open(const char *path, int64_t max_line, as_identity *identity) {
    struct stat st;
    int flags = O_WRONLY | O_APPEND | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW;
    int fd = as_open_plain(path, (uint64_t)flags);
    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink == 1 &&
        !(st.st_mode & (S_ISUID | S_ISGID)) && as_is_own(&st)) {
        return make(fd, -1, &st, "", AS_FOREVER, 0, max_line, identity);
    }
    as_close(&fd);
    return NULL;
}

void as_logfile_free(as_logfile *log) {
    if (!log) {
        return;
    }
    as_close(&log->fd);
    as_close(&log->dir_fd);
    free(log->name);
    free(log->line);
    (void)pthread_mutex_destroy(&log->identity_lock);
    (void)pthread_mutex_destroy(&log->lock);
    free(log);
}

/* Whether a file that has this size ends in the midst of a line; where that cannot be read, it does not. */
static bool ends_in_line(int fd, off_t size) {
    char path[DESCRIPTOR_PATH], last = '\n';
    descriptor_path(fd, path);
    int reader = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (reader >= 0 && pread(reader, &last, 1, size - 1) < 1) {
        last = '\n';
    }
    as_close(&reader);
    return last != '\n';
}

int as_logfile_begin(as_logfile *log, int empty) {
    struct stat st;
    pthread_mutex_lock(&log->lock);
    int result = fstat(log->fd, &st) < 0 ? -errno : 0;
    if (result == 0 && empty && log->regular && st.st_size > 0) {
        result = ftruncate(log->fd, 0) < 0 ? -errno : 0;
        st.st_size = 0;
    }
    if (result == 0) {
        log->size = st.st_size;
        log->in_line = log->regular && log->size > 0 && ends_in_line(log->fd, log->size);
    }
    pthread_mutex_unlock(&log->lock);
    return result;
}

as_identity as_logfile_identity(as_logfile *log) {
    pthread_mutex_lock(&log->identity_lock);
    as_identity identity = log->current;
    pthread_mutex_unlock(&log->identity_lock);
    return identity;
}

static bool same(as_identity a, as_identity b) {
    return a.device == b.device && a.inode == b.inode;
}

int as_logfile_writes(as_logfile *log, uint64_t device, uint64_t inode) {
    as_identity one = {device, inode};
    pthread_mutex_lock(&log->identity_lock);
    bool writes = same(one, log->current) || same(one, log->fresh);
    pthread_mutex_unlock(&log->identity_lock);
    return writes;
}

/* The descriptor of a regular file is another one after a rotation, by any run's thread. */
int as_logfile_fd(const as_logfile *log) { return log->regular ? -1 : log->fd; }

bool as_logfile_in_line(as_logfile *log) {
    pthread_mutex_lock(&log->lock);
    bool in_line = log->in_line;
    pthread_mutex_unlock(&log->lock);
    return in_line;
}

/* What is in the file's unfinished line, after p was written. */
static void follow_line(as_logfile *log, const char *p, size_t n) {
    log->in_line = p[n - 1] != '\n';
    if (!log->line) {
        return;
    }
    const char *newline = memrchr(p, '\n', n);
    if (newline) {
        n -= (size_t)(newline - p) + 1;
        p = newline + 1;
        log->line_size = 0;
    }
    if (log->line_size < log->max_line) {
        size_t left = log->max_line - log->line_size;
        /* memmove: rotate writes this very buffer again. */
        memmove(log->line + log->line_size, p, n < left ? n : left);
    }
    log->line_size += n;
}

/* The host may have left SIGPIPE at its default, which would end it when a reader of its log goes away:
   the signal is kept from this thread, and taken back if the write has caused it. */
static ssize_t write_to_pipe(int fd, const char *p, size_t n) {
    const struct timespec now = {0};
    sigset_t pipe, before, pending;
    if (sigemptyset(&pipe) < 0 || sigaddset(&pipe, SIGPIPE) < 0 || sigpending(&pending) < 0) {
        return -1;
    }
    int refused = pthread_sigmask(SIG_BLOCK, &pipe, &before);
    if (refused != 0) {
        errno = refused;
        return -1;
    }
    ssize_t written = write(fd, p, n);
    int error = errno;
    if (written < 0 && error == EPIPE && !sigismember(&pending, SIGPIPE)) {
        while (sigtimedwait(&pipe, NULL, &now) < 0 && errno == EINTR) {
        }
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = error;
    return written;
}

/* One write that does not block where the target is no regular file. */
static ssize_t write_some(const as_logfile *log, const char *p, size_t n) {
    if (log->direct) {
        return log->pipe ? write_to_pipe(log->fd, p, n) : write(log->fd, p, n);
    }
    if (log->socket) {
        return send(log->fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    /* The descriptor may be the host's own, in blocking mode: a writable pipe takes a page. */
    struct pollfd ready = {.fd = log->fd, .events = POLLOUT};
    if (poll(&ready, 1, 0) <= 0) {
        errno = EAGAIN;
        return -1;
    }
    n = n < 4096 ? n : 4096;
    return log->pipe ? write_to_pipe(log->fd, p, n) : write(log->fd, p, n);
}

static size_t write_all(as_logfile *log, const char *p, size_t n, int *error) {
    size_t done = 0;
    while (done < n) {
        ssize_t written = write_some(log, p + done, n - done);
        if (written > 0) {
            follow_line(log, p + done, (size_t)written);
            log->size += written;
            done += (size_t)written;
        } else if (written < 0 && errno == EAGAIN) {
            return done;
        } else if (written < 0 && errno != EINTR) {
            *error = errno;
            return n;
        }
    }
    return n;
}

static void backup_name(const as_logfile *log, int number, char *out, size_t size) {
    (void)snprintf(out, size, "%s.%d", log->name, number);
}

static int shift_backups(const as_logfile *log, size_t size) {
    char from[size], to[size];
    for (int number = log->backups; number > 1; number--) {
        backup_name(log, number - 1, from, size);
        backup_name(log, number, to, size);
        if (renameat(log->dir_fd, from, log->dir_fd, to) < 0 && errno != ENOENT) {
            return -errno;
        }
    }
    return 0;
}

/* musl has no function for it. */
static int exchange_names(const as_logfile *log, const char *fresh) {
    enum { EXCHANGE = 1 << 1 }; /* RENAME_EXCHANGE */
    return (int)syscall(SYS_renameat2, log->dir_fd, log->name, log->dir_fd, fresh, EXCHANGE);
}

/* The new file takes the name in use, the old one becomes .1; when that fails, all is as before. By the
   exchange (renameat2, Linux 3.15) there is no moment without a file of that name; a file system that
   lacks it says EINVAL. */
static int swap_names(const as_logfile *log, const char *fresh, const char *first) {
    if (exchange_names(log, fresh) == 0) {
        if (renameat(log->dir_fd, fresh, log->dir_fd, first) == 0) {
            return 0;
        }
        int error = errno;
        (void)exchange_names(log, fresh);
        return -error;
    }
    /* ENOENT: somebody removed the log. */
    bool moved = renameat(log->dir_fd, log->name, log->dir_fd, first) == 0;
    if (!moved && errno != ENOENT) {
        return -errno;
    }
    if (renameat(log->dir_fd, fresh, log->dir_fd, log->name) == 0) {
        return 0;
    }
    int error = errno;
    if (moved) {
        (void)renameat(log->dir_fd, first, log->dir_fd, log->name);
    }
    return -error;
}

/* A new file under a name that nobody has. Returns its descriptor or -errno. */
static int make_fresh(const as_logfile *log, char *name, size_t size) {
    int fd = -1;
    for (unsigned attempt = 0; fd < 0 && attempt < 100; attempt++) {
        (void)snprintf(name, size, ".%s.%d.%u", log->name, (int)getpid(), attempt);
        fd = openat(log->dir_fd, name,
                    O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY,
                    0600);
        if (fd < 0 && errno != EEXIST) {
            break;
        }
    }
    if (fd < 0) {
        return -errno;
    }
    (void)fchmod(fd, 0600); /* a umask may take the owner's rights, too; some file systems refuse */
    return fd;
}

static void announce(as_logfile *log, as_identity fresh) {
    pthread_mutex_lock(&log->identity_lock);
    log->fresh = fresh;
    pthread_mutex_unlock(&log->identity_lock);
}

static void settle(as_logfile *log, bool exchanged) {
    pthread_mutex_lock(&log->identity_lock);
    log->current = exchanged ? log->fresh : log->current;
    log->fresh = (as_identity){0};
    pthread_mutex_unlock(&log->identity_lock);
}

/* Makes an empty file under the name in use and the old one .1. The new one comes first: where none
   can be made, no backup moves. From before the names change until after it the log has both
   identities, for who opens the name meanwhile gets either file. Returns its descriptor or -errno. */
static int exchange(as_logfile *log) {
    struct stat st;
    size_t size = strlen(log->name) + 32;
    char fresh[size], first[size];
    backup_name(log, 1, first, size);
    int fd = make_fresh(log, fresh, size);
    if (fd < 0) {
        return fd;
    }
    int result = fstat(fd, &st) < 0 ? -errno : 0;
    if (result == 0) {
        announce(log, identity_of(&st));
        result = shift_backups(log, size);
    }
    if (result == 0) {
        result = swap_names(log, fresh, first);
    }
    settle(log, result == 0);
    if (result < 0) {
        (void)unlinkat(log->dir_fd, fresh, 0);
        as_close(&fd);
        return result;
    }
    return fd;
}

/* Goes on in a new file. The unfinished line at the old one's end moves along, so that files begin
   and end between lines. */
static int rotate(as_logfile *log) {
    struct stat old_st;
    int fd = exchange(log);
    if (fd < 0) {
        return fd;
    }
    int old = log->fd, error = fstat(old, &old_st) < 0 ? errno : 0;
    size_t moved = log->line_size;
    log->fd = fd;
    log->size = 0;
    log->retry_at = 0;
    log->line_size = 0;
    if (error == 0 && moved > 0 && moved <= log->max_line && (off_t)moved < old_st.st_size) {
        (void)write_all(log, log->line, moved, &error);
        if (error || ftruncate(old, old_st.st_size - (off_t)moved) < 0) {
            error = error ? error : errno; /* then those bytes are in both files, in none lost */
        }
    }
    as_close(&old);
    return -error;
}

/* How much of p fits before the file has to rotate; *turn: rotate after that. */
static size_t before_rotation(const as_logfile *log, const char *p, size_t n, bool *turn) {
    int64_t limit = log->max_bytes > log->retry_at ? log->max_bytes : log->retry_at;
    int64_t left = limit - log->size;
    size_t room = left > 0 ? (size_t)left : 0;
    *turn = n > room;
    if (!*turn) {
        return n;
    }
    const char *newline = room ? memrchr(p, '\n', room) : NULL;
    if (newline) {
        return (size_t)(newline - p) + 1;
    }
    bool whole_file_is_one_line = (int64_t)log->line_size >= log->size;
    if (log->line_size <= log->max_line && !whole_file_is_one_line) {
        return 0; /* the line begins inside this file and goes to the next one whole */
    }
    return room;
}

void as_logfile_postpone(as_logfile *log, size_t n) {
    pthread_mutex_lock(&log->lock);
    log->retry_at = log->size + (int64_t)n;
    pthread_mutex_unlock(&log->lock);
}

size_t as_logfile_write(as_logfile *log, const char *p, size_t n, int *error) {
    size_t done = 0;
    bool rotated = false;
    pthread_mutex_lock(&log->lock);
    if (log->max_bytes == AS_FOREVER) {
        done = write_all(log, p, n, error);
    }
    while (done < n && log->max_bytes != AS_FOREVER) {
        bool turn;
        size_t part = before_rotation(log, p + done, n - done, &turn);
        int refused = 0;
        if (part) {
            (void)write_all(log, p + done, part, &refused);
            done += part;
        }
        if (refused) { /* a full disk: no backup gives way to a file that holds nothing */
            *error = refused;
            done = n;
            break;
        }
        if (turn && rotated && done > 0) {
            break; /* small files and many backups: the caller looks at the time first */
        }
        if (turn) {
            int failed = rotate(log);
            rotated = true;
            if (failed) {
                /* Better a file that is too large than a lost line; the next try comes later. */
                *error = -failed;
                log->retry_at = log->size + (int64_t)(n - done) + log->max_bytes;
                (void)write_all(log, p + done, n - done, error);
                done = n;
            }
        }
    }
    pthread_mutex_unlock(&log->lock);
    return done;
}
