/*
 * census.c: which processes there are, read from /proc once for all runs that ask at one time.
 */
#include "internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct as_census {
    pthread_mutex_t lock; /* guards all below but waiting_since */
    int proc_fd;
    as_process *list;
    size_t count, room;
    as_process *before; /* the list of the scan before */
    size_t before_count, before_room;
    as_text ids; /* NUL after each process's */
    size_t ids_size;
    as_text environ;
    int64_t scanned_at;             /* monotonic, when the last scan began */
    uint64_t since;                 /* the start of the oldest process whose environment it read */
    bool in_exec;                   /* the last scan met a process that was, for long */
    bool complete;                  /* no process can have slipped through the last scan */
    _Atomic uint64_t waiting_since; /* the least that those who wait want */
};

/* An execve takes 6 MiB (bprm_stack_limits in fs/exec.c); what prctl shows beyond is no run's mark. */
#define ENVIRONMENT_MAX ((size_t)8 * 1024 * 1024)
#define WINDOW ((size_t)32768) /* so much of it is looked at at once, at least */

static const char run_id_name[] = "AGENTSCRIPTS_RUN_ID=";

as_census *as_census_new(void) {
    as_census *census = calloc(1, sizeof *census);
    if (!census) {
        return NULL;
    }
    census->waiting_since = UINT64_MAX;
    census->scanned_at = -1;
    census->proc_fd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int error = census->proc_fd < 0 ? errno : pthread_mutex_init(&census->lock, NULL);
    if (error != 0) {
        as_close(&census->proc_fd);
        free(census);
        errno = error;
        return NULL;
    }
    return census;
}

void as_census_free(as_census *census) {
    if (census) {
        as_close(&census->proc_fd);
        (void)pthread_mutex_destroy(&census->lock);
        free(census->list);
        free(census->before);
        free(census->ids.bytes);
        free(census->environ.bytes);
        free(census);
    }
}

static int open_proc(const as_census *census, int pid, const char *name) {
    char path[64];
    (void)snprintf(path, sizeof path, "%d/%s", pid, name);
    return openat(census->proc_fd, path, O_RDONLY | O_CLOEXEC);
}

bool as_out_of_resources(void) { return errno == EMFILE || errno == ENFILE || errno == ENOMEM; }

/* The fields of /proc/<pid>/stat, see proc_pid_stat(5). */
enum {
    STATE = 3,
    PARENT = 4,
    GROUP = 5,
    SESSION = 6,
    FLAGS = 9,
    THREADS = 20,
    START = 22,
    END_CODE = 27,
    ENV_START = 50,
    ENV_END = 51
};

#define PF_EXITING UINT64_C(4) /* include/linux/sched.h */

/* In the kernel's do_exit: it runs no more of its program, so it cannot fork. No thread at all: what was read
   is no more the process's, and where another of its threads executes a program, that lives on. */
static bool is_exiting(const uint64_t *field) {
    return (field[FLAGS] & PF_EXITING) && field[THREADS] == 1;
}

/* Reads the fields from STATE to `last`. False: no such process, or as_out_of_resources. */
static bool read_fields(const as_census *census, int pid, int last, uint64_t *field, char *state) {
    char text[2048]; /* one read gives it all */
    errno = 0;
    int fd = open_proc(census, pid, "stat");
    ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    as_close(&fd);
    if (size <= 0) {
        return false;
    }
    text[size] = 0;
    const char *p = strrchr(text, ')'); /* the name before it may hold anything */
    if (!p || p[1] != ' ') {
        return false;
    }
    p += 2;
    *state = *p;
    for (int i = STATE; i <= last; i++) {
        field[i] = strtoull(p, NULL, 10); /* the state and negative numbers are of no interest */
        p = strchr(p, ' ');
        if (!p) {
            return false;
        }
        p++;
    }
    return true;
}

bool as_process_read(const as_census *census, int pid, as_process *out) {
    uint64_t field[START + 1] = {0};
    char state;
    if (!read_fields(census, pid, START, field, &state)) {
        return false;
    }
    /* The flags are read after the threads are counted: another look, for one may have begun. */
    bool exiting = is_exiting(field);
    if (exiting && !read_fields(census, pid, START, field, &state)) {
        return false;
    }
    *out = (as_process){.pid = pid,
                        .started = field[START],
                        .parent = (int)field[PARENT],
                        .group = (int)field[GROUP],
                        .session = (int)field[SESSION],
                        .exiting = exiting && is_exiting(field),
                        /* A main thread may end before the others: a zombie with threads lives. */
                        .dead = (state == 'Z' || state == 'X') && field[THREADS] == 1};
    return true;
}

/* Why an environment reads empty: it is, or it is not that of the whole process yet, or no more. An
   exec counts it string by string and sets both its end and the program's only then (create_elf_tables
   in fs/binfmt_elf.c). A process that is exiting has none, and gets none. A main thread that has ended
   has none; the others still do. */
enum emptiness { EMPTY, IN_EXEC, IN_THREADS };

static enum emptiness why_empty(const as_census *census, int pid) {
    uint64_t field[ENV_END + 1] = {0};
    char state;
    as_process now;
    if (!as_process_read(census, pid, &now) || now.exiting ||
        !read_fields(census, pid, ENV_END, field, &state)) {
        return EMPTY;
    }
    if (state == 'Z' || state == 'X') {
        return field[THREADS] > 1 ? IN_THREADS : EMPTY;
    }
    return field[END_CODE] == 0 || field[ENV_START] != field[ENV_END] ? IN_EXEC : EMPTY;
}

bool as_grow(void *array, size_t *room, size_t needed, size_t size) {
    if (needed <= *room) {
        return true;
    }
    void **pointer = array;
    void *larger = realloc(*pointer, needed * 2 * size);
    if (!larger) {
        return false;
    }
    *pointer = larger;
    *room = needed * 2;
    return true;
}

/* Where the variable is, after a NUL; NULL: not here. */
static const char *find_run_id(const char *bytes, size_t size) {
    const char *p = bytes + 1, *end = bytes + size;
    const size_t length = sizeof run_id_name - 1;
    while ((p = memmem(p, (size_t)(end - p), run_id_name, length)) != NULL && p[-1] != 0) {
        p += length;
    }
    return p;
}

/* Reads an environment once, through a window; NULL, errno 0: it is empty. */
static const char *read_ids(const as_census *census, int pid, const char *path, as_text *buffer) {
    const size_t length = sizeof run_id_name - 1;
    errno = 0;
    int fd = open_proc(census, pid, path);
    if (fd < 0 || !as_grow(&buffer->bytes, &buffer->room, WINDOW, 1)) {
        as_close(&fd);
        return NULL;
    }
    char *bytes = buffer->bytes;
    size_t size = 1, all = 0;
    bytes[0] = 0; /* before the first variable, as before each other */
    const char *found = NULL;
    bool whole = false;
    for (ssize_t got = 1; !whole && got > 0 && all < ENVIRONMENT_MAX;) {
        if (found) { /* its end was not in the window */
            size -= (size_t)(found - 1 - bytes);
            memmove(bytes, found - 1, size);
        } else if (size > length) {
            memmove(bytes, bytes + size - length, length);
            size = length;
        }
        got = read(fd, bytes + size, buffer->room - 1 - size);
        size += got > 0 ? (size_t)got : 0;
        all += got > 0 ? (size_t)got : 0;
        bytes[size] = 0;
        found = find_run_id(bytes, size);
        whole = found && memchr(found, 0, (size_t)(bytes + size - found));
    }
    /* An exec ends what can be read of the former program, also in the middle: then all is to be read
       anew, as if it had been empty. */
    char first;
    whole = whole || (all > 0 && pread(fd, &first, 1, 0) == 1);
    as_close(&fd);
    if (all > 0) {
        errno = whole ? ENODATA : 0;
    }
    return whole && found ? found + length : NULL;
}

/* The same by way of its threads, where the main one has ended. */
static const char *read_ids_of_threads(const as_census *census, int pid, as_text *buffer) {
    errno = 0;
    int fd = open_proc(census, pid, "task");
    DIR *threads = fd < 0 ? NULL : fdopendir(fd);
    if (!threads) {
        int error = errno;
        as_close(&fd);
        errno = error;
        return NULL;
    }
    const char *ids = NULL;
    int error = 0;
    /* No other thread has this stream. NOLINTNEXTLINE(concurrency-mt-unsafe) */
    for (const struct dirent *entry; !ids && !error && (entry = readdir(threads)) != NULL;) {
        int thread = atoi(entry->d_name);
        if (thread > 0 && thread != pid) {
            char path[32];
            (void)snprintf(path, sizeof path, "task/%d/environ", thread);
            ids = read_ids(census, pid, path, buffer);
            error = errno == ENOENT || errno == ESRCH ? 0 : errno; /* it has ended, too */
        }
    }
    (void)closedir(threads);
    errno = error;
    return ids;
}

const char *as_process_ids(const as_census *census, int pid, as_text *buffer) {
    const struct timespec moment = {.tv_nsec = AS_MILLISECOND / 10};
    for (int i = 0; i < 11; i++) {
        if (i > 0) {
            (void)nanosleep(&moment, NULL);
        }
        const char *ids = read_ids(census, pid, "environ", buffer);
        if (ids || (errno != 0 && errno != ESRCH)) { /* ESRCH: some kernels say so of no memory */
            return ids;
        }
        enum emptiness why = why_empty(census, pid);
        ids = why == IN_THREADS ? read_ids_of_threads(census, pid, buffer) : NULL;
        if (ids || why == EMPTY || (why == IN_THREADS && errno != 0)) {
            return ids;
        }
    }
    errno = EAGAIN;
    return NULL;
}

static int keep_run_ids(as_census *census, as_process *found) {
    const char *ids = as_process_ids(census, found->pid, &census->environ);
    if (!ids) {
        census->in_exec |= errno == EAGAIN;
        return as_out_of_resources() ? -errno : 0;
    }
    size_t size = strlen(ids) + 1;
    if (!as_grow(&census->ids.bytes, &census->ids.room, census->ids_size + size, 1)) {
        return -ENOMEM;
    }
    memcpy(census->ids.bytes + census->ids_size, ids, size);
    found->ids = census->ids_size;
    census->ids_size += size;
    return 0;
}

/* One of the scan before of which nothing more is to be learned: it is dead, or started too early to be a
   script's. While a process is there its directory in /proc keeps its inode, and the next one with its
   number gets another (proc_fill_cache and proc_flush_pid in fs/proc/base.c; inodes are numbered by a
   count of 32 bits). NULL: to be read. */
static const as_process *known_process(const as_census *census, int pid, uint64_t inode,
                                       uint64_t since) {
    const as_process *p = as_process_find(census->before, census->before_count, pid);
    return p && inode != 0 && p->inode == inode && (p->dead || p->started < since) ? p : NULL;
}

/* `inode`: in /proc; 0: unknown. */
static int add_process(as_census *census, int pid, uint64_t inode, uint64_t since) {
    as_process found;
    int result = 0;
    const as_process *known = known_process(census, pid, inode, since);
    if (known) {
        /* Not its parent, who may have ended, and whose number may be another's by now. */
        found = (as_process){
            .pid = pid, .inode = inode, .started = known->started, .dead = known->dead};
    } else if (getsid(pid) == 0) {
        /* A kernel thread. A script's processes have a session that we can see. */
        return 0;
    } else if (as_process_read(census, pid, &found)) {
        found.inode = inode;
        result = found.dead || found.started < since ? 0 : keep_run_ids(census, &found);
    } else {
        return as_out_of_resources() ? -errno : 0;
    }
    if (!as_grow(&census->list, &census->room, census->count + 1, sizeof found)) {
        return -ENOMEM;
    }
    census->list[census->count++] = found;
    return result;
}

as_process *as_process_find(as_process *list, size_t count, int pid) {
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (list[middle].pid < pid) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < count && list[low].pid == pid ? &list[low] : NULL;
}

struct directory_entry {
    uint64_t inode;
    int64_t offset;
    unsigned short size;
    unsigned char type;
    char name[];
};

static int by_pid(const void *a, const void *b) {
    return ((const as_process *)a)->pid - ((const as_process *)b)->pid;
}

/* The number given last in this pid namespace (last field of /proc/loadavg); 0: unknown. */
static int newest_pid(as_census *census) {
    char text[128];
    int fd = openat(census->proc_fd, "loadavg", O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    as_close(&fd);
    text[size > 0 ? size : 0] = 0;
    const char *last = strrchr(text, ' ');
    return last ? atoi(last + 1) : 0;
}

/* A number that was given meanwhile may have been listed before: then as that of another one. */
static bool is_as_listed(const as_census *census, int pid) {
    const as_process *listed = as_process_find(census->list, census->count, pid);
    as_process now;
    return listed && as_process_read(census, pid, &now) && now.started == listed->started &&
           now.dead == listed->dead;
}

/* A process that forks and ends while /proc is listed goes unseen, and its child has a number that
   the listing has passed: so the numbers given meanwhile are looked at until there is none. */
static int scan_newer(as_census *census, uint64_t since, int from) {
    for (int round = 0; round < 64; round++) {
        int to = newest_pid(census);
        if (to == from && to > 0) {
            return 0;
        }
        if (from <= 0 || to < from || to - from > 4096) {
            return 1; /* wrapped */
        }
        for (int pid = from + 1; pid <= to; pid++) {
            int fd = is_as_listed(census, pid) ? -1 : as_pidfd_open(pid); /* fails for a thread */
            if (fd < 0) {
                continue;
            }
            as_close(&fd);
            as_process *former = as_process_find(census->list, census->count, pid);
            if (former) {
                *former = census->list[--census->count];
            }
            int result = add_process(census, pid, 0, since);
            if (result < 0) {
                return result;
            }
            qsort(census->list, census->count, sizeof *census->list, by_pid);
        }
        from = to;
    }
    return 1;
}

static void keep_before(as_census *census) {
    as_process *list = census->before;
    size_t room = census->before_room;
    census->before = census->list;
    census->before_count = census->count;
    census->before_room = census->room;
    census->list = list;
    census->count = 0;
    census->room = room;
}

/* Reads all processes. Environments: of those that started at `since` or later. */
static int scan(as_census *census, uint64_t since) {
    _Alignas(struct directory_entry) char buffer[16384];
    int self = getpid();
    bool listed = false; /* else this is no /proc: what it lacks proves nothing */
    census->scanned_at = as_monotonic();
    census->since = since;
    keep_before(census);
    census->in_exec = false;
    census->ids_size = 1; /* index 0 says "none" */
    if (!as_grow(&census->ids.bytes, &census->ids.room, 1, 1)) {
        return -ENOMEM;
    }
    if (lseek(census->proc_fd, 0, SEEK_SET) < 0) {
        return -errno;
    }
    int newest = newest_pid(census);
    for (;;) {
        long size = syscall(SYS_getdents64, census->proc_fd, buffer, sizeof buffer);
        if (size <= 0) {
            int result = size < 0 ? -errno : scan_newer(census, since, newest);
            census->complete = result == 0 && listed && !census->in_exec;
            return result < 0 ? result : 0;
        }
        for (long at = 0; at < size;) {
            const struct directory_entry *entry = (const void *)(buffer + at);
            at += entry->size;
            int pid = atoi(entry->name);
            listed = listed || pid == self;
            /* The host itself is never one of a script's processes. */
            int result = pid > 0 && pid != self ? add_process(census, pid, entry->inode, since) : 0;
            if (result < 0) {
                return result;
            }
        }
    }
}

/* One scan serves all who asked before it began. */
static int refresh(as_census *census, uint64_t since) {
    int64_t asked_at = as_monotonic();
    uint64_t waiting = atomic_load(&census->waiting_since);
    while (since < waiting &&
           !atomic_compare_exchange_weak(&census->waiting_since, &waiting, since)) {
    }
    pthread_mutex_lock(&census->lock);
    if (census->scanned_at >= asked_at && census->since <= since) {
        return 0;
    }
    waiting = atomic_exchange(&census->waiting_since, UINT64_MAX);
    int result = scan(census, waiting < since ? waiting : since);
    if (result < 0) {
        census->scanned_at = -1;
    }
    return result;
}

int as_census_begin(as_census *census, uint64_t since, as_listing *out) {
    int result = refresh(census, since);
    *out = (as_listing){census->list, census->count, census->ids.bytes, census->complete};
    return result;
}

void as_census_end(as_census *census) { pthread_mutex_unlock(&census->lock); }
