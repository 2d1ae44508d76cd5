/*
 * tree.c: which processes belong to a run (K2), and how they are signalled (K3).
 *
 * A process belongs to a run when it is in the leader's process group or session, when its
 * AGENTSCRIPTS_RUN_ID contains the run's id, or when its parent belongs to it. The leader is a zombie
 * at worst while a tree is in use, so its number means nothing else meanwhile; where the host has
 * reaped it, numbers count for nothing and the run's id decides.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef PIDFD_SIGNAL_PROCESS_GROUP
#define PIDFD_SIGNAL_PROCESS_GROUP (1U << 2) /* Linux 6.9 */
#endif

typedef struct {
    uint64_t started; /* clock ticks after boot */
    size_t ids;       /* where its run ids are in the census's text; 0: none */
    int pid, parent, group, session;
    bool dead;
    bool member;
} process;

struct as_census {
    pthread_mutex_t lock; /* guards all below but waiting_since */
    int proc_fd;
    process *list;
    size_t count, room;
    char *text; /* run ids, NUL after each process's */
    size_t text_size, text_room;
    char *environ;
    size_t environ_room;
    int64_t scanned_at;             /* monotonic, when the last scan began */
    uint64_t since;                 /* the start of the oldest process whose environment it read */
    bool complete;                  /* no process can have slipped through the last scan */
    _Atomic uint64_t waiting_since; /* the least that those who wait want */
};

static const char run_id_name[] = "AGENTSCRIPTS_RUN_ID=";

as_census *as_census_new(void) {
    as_census *census = calloc(1, sizeof *census);
    if (!census) {
        return NULL;
    }
    census->environ_room = 65536;
    census->environ = malloc(census->environ_room);
    census->proc_fd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    census->waiting_since = UINT64_MAX;
    census->scanned_at = -1;
    if (!census->environ || census->proc_fd < 0 || pthread_mutex_init(&census->lock, NULL) != 0) {
        int error = census->environ ? errno : ENOMEM;
        as_close(&census->proc_fd);
        free(census->environ);
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
        free(census->text);
        free(census->environ);
        free(census);
    }
}

int as_pidfd_open(int pid) { return (int)syscall(SYS_pidfd_open, pid, 0); }

static int pidfd_signal(int pidfd, int signal, unsigned flags) {
    return (int)syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, flags);
}

static int open_proc(const as_census *census, int pid, const char *name) {
    char path[32];
    (void)snprintf(path, sizeof path, "%d/%s", pid, name);
    return openat(census->proc_fd, path, O_RDONLY | O_CLOEXEC);
}

/* Of a file that could not be read: the process may be there all the same. */
static bool out_of_resources(void) { return errno == EMFILE || errno == ENFILE || errno == ENOMEM; }

/* /proc/<pid>/stat, see proc_pid_stat(5); false: no such process, or out_of_resources. */
static bool read_stat(const as_census *census, int pid, process *out) {
    enum { STATE = 3, PARENT, GROUP, SESSION, THREADS = 20, START = 22 };
    char text[1024]; /* one read gives it all */
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
    char state = *p;
    uint64_t field[START + 1] = {0};
    for (int i = STATE; i <= START; i++) {
        field[i] = strtoull(p, NULL, 10); /* the state and negative numbers are of no interest */
        p = strchr(p, ' ');
        if (!p) {
            return false;
        }
        p++;
    }
    *out = (process){.pid = pid,
                     .started = field[START],
                     .parent = (int)field[PARENT],
                     .group = (int)field[GROUP],
                     .session = (int)field[SESSION],
                     /* A main thread may end before the others: a zombie with threads lives. */
                     .dead = (state == 'Z' || state == 'X') && field[THREADS] <= 1};
    return true;
}

static bool grow(void *array, size_t *room, size_t needed, size_t size) {
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

/* The run ids in its environment; NULL: none, or it is gone, or not ours to read. Valid until the
   next call, under the census's lock. */
static const char *read_run_ids(as_census *census, int pid) {
    errno = 0;
    int fd = open_proc(census, pid, "environ");
    size_t size = 0;
    ssize_t got = fd < 0 ? 0 : 1;
    while (got > 0 && grow(&census->environ, &census->environ_room, size + 4096, 1)) {
        got = read(fd, census->environ + size, census->environ_room - 1 - size);
        size += got > 0 ? (size_t)got : 0;
    }
    as_close(&fd);
    census->environ[size] = 0;
    const char *p = census->environ, *end = p + size;
    const size_t name = sizeof run_id_name - 1;
    while ((p = memmem(p, (size_t)(end - p), run_id_name, name)) != NULL) {
        if (p == census->environ || p[-1] == 0) {
            return p + name;
        }
        p += name;
    }
    return NULL;
}

static int keep_run_ids(as_census *census, process *found) {
    const char *ids = read_run_ids(census, found->pid);
    if (!ids) {
        return out_of_resources() ? -errno : 0;
    }
    size_t size = strlen(ids) + 1;
    if (!grow(&census->text, &census->text_room, census->text_size + size, 1)) {
        return -ENOMEM;
    }
    memcpy(census->text + census->text_size, ids, size);
    found->ids = census->text_size;
    census->text_size += size;
    return 0;
}

static int add_process(as_census *census, int pid, uint64_t since) {
    process found;
    /* Kernel threads have no session, and a script's processes always have one that we can see. A
       system call for each spares their files, most of the scan on many machines. */
    if (getsid(pid) <= 0) {
        return 0;
    }
    if (!read_stat(census, pid, &found)) {
        return out_of_resources() ? -errno : 0;
    }
    int result = found.dead || found.started < since ? 0 : keep_run_ids(census, &found);
    if (!grow(&census->list, &census->room, census->count + 1, sizeof found)) {
        return -ENOMEM;
    }
    census->list[census->count++] = found;
    return result;
}

struct directory_entry {
    uint64_t inode;
    int64_t offset;
    unsigned short size;
    unsigned char type;
    char name[];
};

static int by_pid(const void *a, const void *b) {
    return ((const process *)a)->pid - ((const process *)b)->pid;
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

static process *find(const as_census *census, int pid);

/* A process that forks and ends while /proc is listed goes unseen, and its child has a number that
   the listing has passed: so the numbers given meanwhile are looked at until there is none. */
static int scan_newer(as_census *census, uint64_t since, int from) {
    for (int round = 0; round < 64; round++) {
        int to = newest_pid(census);
        if (to == from) {
            return 0;
        }
        if (from <= 0 || to < from || to - from > 4096) {
            return 1; /* wrapped */
        }
        for (int pid = from + 1; pid <= to; pid++) {
            int fd = find(census, pid) ? -1 : as_pidfd_open(pid); /* fails for a thread */
            if (fd < 0) {
                continue;
            }
            as_close(&fd);
            int result = add_process(census, pid, since);
            if (result < 0) {
                return result;
            }
            qsort(census->list, census->count, sizeof *census->list, by_pid);
        }
        from = to;
    }
    return 1;
}

/* Reads all processes. Environments: of those that started at `since` or later. */
static int scan(as_census *census, uint64_t since) {
    _Alignas(struct directory_entry) char buffer[16384];
    int self = getpid();
    census->scanned_at = as_monotonic();
    census->since = since;
    census->count = 0;
    census->text_size = 1; /* index 0 says "none" */
    if (!grow(&census->text, &census->text_room, 1, 1)) {
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
            census->complete = result == 0;
            return result < 0 ? result : 0;
        }
        for (long at = 0; at < size;) {
            const struct directory_entry *entry = (const void *)(buffer + at);
            at += entry->size;
            int pid = atoi(entry->name);
            /* The host itself is never one of a script's processes. */
            int result = pid > 0 && pid != self ? add_process(census, pid, since) : 0;
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

static bool has_run_id(const char *ids, const char *run_id) {
    for (const char *p = ids; (p = strstr(p, run_id)) != NULL; p++) {
        bool begins = p == ids || p[-1] == ':';
        char after = p[AS_RUN_ID_LENGTH];
        if (begins && (after == 0 || after == ':')) {
            return true;
        }
    }
    return false;
}

static bool belongs(const as_tree *tree, const process *p, const char *ids) {
    return (tree->leader_ours && (p->group == tree->leader || p->session == tree->leader)) ||
           (ids && has_run_id(ids, tree->run_id));
}

static process *find(const as_census *census, int pid) {
    size_t low = 0, high = census->count;
    while (low < high) { /* /proc lists processes in order */
        size_t middle = low + (high - low) / 2;
        if (census->list[middle].pid < pid) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < census->count && census->list[low].pid == pid ? &census->list[low] : NULL;
}

/* Calls for each process of the run's cgroup, or only looks for one: pid > 0. */
static bool walk_cgroup(as_census *census, const as_tree *tree, int pid, size_t *unknown) {
    char *line = NULL;
    size_t room = 0;
    bool found = false;
    int fd = tree->cgroup_fd < 0 ? -1
                                 : openat(tree->cgroup_fd, "cgroup.procs", O_RDONLY | O_CLOEXEC);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "r");
    if (!file) {
        as_close(&fd);
        return false;
    }
    while (!found && getline(&line, &room, file) > 0) {
        int listed = atoi(line);
        process *p = find(census, listed);
        if (pid == 0 && p && !p->dead) {
            p->member = true;
        } else if (pid == 0 && !p && listed > 0) {
            ++*unknown;
        }
        found = pid > 0 && listed == pid;
    }
    free(line);
    (void)fclose(file);
    return found;
}

static bool is_child_of_member(const as_census *census, const process *p) {
    const process *parent = find(census, p->parent);
    return parent && parent->member;
}

/* Marks the members of the tree. */
static size_t mark(as_census *census, const as_tree *tree) {
    size_t unknown = 0;
    for (size_t i = 0; i < census->count; i++) {
        process *p = &census->list[i];
        const char *ids = p->ids ? census->text + p->ids : NULL;
        p->member = (tree->leader_ours && p->pid == tree->leader) ||
                    (!p->dead && belongs(tree, p, ids));
    }
    (void)walk_cgroup(census, tree, 0, &unknown);
    for (bool changed = true; changed;) {
        changed = false;
        for (size_t i = 0; i < census->count; i++) {
            process *p = &census->list[i];
            if (!p->member && !p->dead && is_child_of_member(census, p)) {
                p->member = changed = true;
            }
        }
    }
    return unknown;
}

/* Asked once more after its pidfd is open: then the answer is of the process that the pidfd names. */
static bool still_belongs(as_census *census, const as_tree *tree, const process *was) {
    process now;
    if (!read_stat(census, was->pid, &now) || now.dead || now.started != was->started) {
        return false;
    }
    return belongs(tree, &now, NULL) || is_child_of_member(census, &now) ||
           belongs(tree, &now, read_run_ids(census, was->pid)) ||
           walk_cgroup(census, tree, was->pid, NULL);
}

void as_tree_begin(as_tree *tree, as_census *census, int leader, int leader_fd, int cgroup_fd,
                   const char *run_id) {
    process self = {0};
    (void)read_stat(census, leader, &self); /* 0 when unreadable: then all environments are read */
    *tree = (as_tree){.census = census,
                      .run_id = run_id,
                      .leader = leader,
                      .leader_fd = leader_fd,
                      .cgroup_fd = cgroup_fd,
                      .since = self.started};
}

/* False once somebody has reaped it: then its number may name another. */
static bool is_our_child(int pidfd) {
    siginfo_t info;
    return waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

/* By the leader's pidfd, which pins the group's number even after the leader is reaped; before Linux
   6.9 by number, only while the leader is our unreaped child. */
void as_tree_signal_group(const as_tree *tree, int signal) {
    if (pidfd_signal(tree->leader_fd, signal, PIDFD_SIGNAL_PROCESS_GROUP) == 0 || errno != EINVAL) {
        return;
    }
    if (is_our_child(tree->leader_fd)) {
        (void)killpg(tree->leader, signal);
    }
}

/* Signals one member through its own pidfd; false: it is gone. */
static bool signal_member(as_census *census, as_tree *tree, const process *p, int signal,
                          int *pidfd) {
    bool told = signal == 0 || (signal != SIGKILL && p->group == tree->leader);
    *pidfd = as_pidfd_open(p->pid);
    bool found = *pidfd >= 0 && still_belongs(census, tree, p);
    if (!found && out_of_resources()) {
        as_close(pidfd);
        tree->untold = true; /* the next sweep tries again */
        return true;
    }
    if (!found) {
        as_close(pidfd);
        return false;
    }
    if (!told) {
        (void)pidfd_signal(*pidfd, signal, 0);
        if (signal != SIGKILL) {
            (void)pidfd_signal(*pidfd, SIGCONT, 0);
        }
    }
    return true;
}

int as_tree_sweep(as_tree *tree, int signal) {
    as_census *census = tree->census;
    as_member *alive = NULL;
    size_t count = 0, room = 0, watched = 0;
    int result = refresh(census, tree->since);
    if (result < 0) {
        pthread_mutex_unlock(&census->lock);
        return result;
    }
    tree->leader_ours = is_our_child(tree->leader_fd);
    tree->untold = false;
    size_t missed = mark(census, tree) + !census->complete;
    for (size_t i = 0; i < census->count; i++) {
        const process *p = &census->list[i];
        int pidfd;
        if (!p->member || p->dead || (tree->leader_ours && p->pid == tree->leader)) {
            continue;
        }
        if (!signal_member(census, tree, p, signal, &pidfd)) {
            missed++; /* it may have forked between the scan and its end */
            continue;
        }
        if (watched >= AS_TREE_FDS) {
            as_close(&pidfd);
        }
        if (!grow(&alive, &room, count + 1, sizeof *alive)) {
            as_close(&pidfd);
            result = -ENOMEM;
            break;
        }
        watched += pidfd >= 0;
        alive[count++] = (as_member){p->pid, pidfd};
    }
    pthread_mutex_unlock(&census->lock);
    as_tree_free(tree);
    tree->members = alive;
    tree->count = count;
    return result < 0 ? result : (int)(count + missed);
}

void as_tree_free(as_tree *tree) {
    for (size_t i = 0; i < tree->count; i++) {
        as_close(&tree->members[i].pidfd);
    }
    free(tree->members);
    tree->members = NULL;
    tree->count = 0;
}

/* struct pidfd_info of linux/pidfd.h, as of Linux 6.15; this system's header may be older. */
struct pidfd_info_6_15 {
    uint64_t mask, cgroup;
    uint32_t pid, tgid, ppid, ids[8];
    int32_t exit_code;
};

bool as_pidfd_exit_status(int pidfd, int *status) {
    enum { EXIT = 1 << 3 };
    struct pidfd_info_6_15 info = {.mask = EXIT};
    if (ioctl(pidfd, _IOWR(0xFF, 11, struct pidfd_info_6_15), &info) < 0 || !(info.mask & EXIT)) {
        return false;
    }
    *status = info.exit_code;
    return true;
}
