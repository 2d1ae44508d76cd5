/*
 * tree.c: which processes belong to a run (K2), and how they are signalled (K3).
 *
 * A process belongs to a run when it is in the leader's process group or session, when its
 * AGENTSCRIPTS_RUN_ID contains the run's id, or when its parent belongs to it. The leader is a zombie
 * at worst while a tree is in use, so its number means nothing else meanwhile; where the host has
 * reaped it, numbers count for nothing and the run's id decides.
 */
#include "internal.h"

#include <dirent.h>
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

enum { DEEPEST_GROUP = 32 };

int as_pidfd_open(int pid) { return (int)syscall(SYS_pidfd_open, pid, 0); }

static int pidfd_signal(int pidfd, int signal, unsigned flags) {
    return (int)syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, flags);
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

static bool belongs(const as_tree *tree, const as_process *p, const char *ids) {
    return (tree->leader_ours && (p->group == tree->leader || p->session == tree->leader)) ||
           (ids && has_run_id(ids, tree->run_id));
}

typedef struct {
    int *list;
    size_t count, room;
    bool missed; /* there may be more */
} as_pids;

static void list_group(int directory, as_pids *pids) {
    char line[32];
    int fd = openat(directory, "cgroup.procs", O_RDONLY | O_CLOEXEC);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "r");
    if (!file) {
        pids->missed = pids->missed || as_out_of_resources();
        as_close(&fd);
        return;
    }
    while (fgets(line, sizeof line, file)) {
        if (!as_grow(&pids->list, &pids->room, pids->count + 1, sizeof *pids->list)) {
            pids->missed = true;
            break;
        }
        pids->list[pids->count++] = atoi(line);
    }
    (void)fclose(file);
}

/* A script may put its processes into groups in its own: a container runtime does. */
static void list_groups(int directory, int depth, as_pids *pids) {
    list_group(directory, pids);
    int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *groups = fd < 0 || depth == 0 ? NULL : fdopendir(fd);
    if (!groups) {
        pids->missed = pids->missed || depth == 0 || as_out_of_resources();
        as_close(&fd);
        return;
    }
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): this thread's own stream */
    for (const struct dirent *entry; (entry = readdir(groups)) != NULL;) {
        bool inner = entry->d_type == DT_DIR && entry->d_name[0] != '.';
        int group = inner ? openat(fd, entry->d_name, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
        if (group >= 0) {
            list_groups(group, depth - 1, pids);
        } else {
            pids->missed = pids->missed || (inner && as_out_of_resources());
        }
        as_close(&group);
    }
    (void)closedir(groups);
}

/* Which processes are in the run's cgroup. The caller frees the list. */
static as_pids list_cgroup(const as_tree *tree) {
    as_pids pids = {0};
    if (tree->cgroup_fd >= 0) {
        list_groups(tree->cgroup_fd, DEEPEST_GROUP, &pids);
    }
    return pids;
}

/* Marks those of the run's cgroup; returns how many of them the listing lacks. */
static size_t mark_cgroup(const as_listing *all, const as_tree *tree) {
    as_pids pids = list_cgroup(tree);
    size_t unknown = pids.missed;
    for (size_t i = 0; i < pids.count; i++) {
        as_process *p = as_process_find(all->list, all->count, pids.list[i]);
        if (!p) {
            unknown++;
        } else if (!p->dead) {
            p->member = true;
        }
    }
    free(pids.list);
    return unknown;
}

static bool is_in_cgroup(const as_tree *tree, int pid) {
    as_pids pids = list_cgroup(tree);
    bool found = false;
    for (size_t i = 0; !found && i < pids.count; i++) {
        found = pids.list[i] == pid;
    }
    free(pids.list);
    return found;
}

static bool is_leader(const as_tree *tree, int pid) {
    return tree->leader_ours && pid == tree->leader;
}

bool as_has_ended(int pidfd) {
    struct pollfd end = as_pollfd(pidfd, POLLIN);
    int ended;
    do {
        ended = poll(&end, 1, 0);
    } while (ended < 0 && errno == EINTR);
    return ended > 0;
}

static void forget(as_tree *tree, bool unwatched) {
    size_t left = 0;
    tree->watched = 0;
    for (size_t i = 0; i < tree->listed; i++) {
        as_member m = tree->members[i];
        if (m.pidfd < 0 ? unwatched : as_has_ended(m.pidfd)) {
            as_close(&m.pidfd);
        } else {
            tree->members[left++] = m;
            tree->watched += m.pidfd >= 0;
        }
    }
    tree->listed = left;
}

void as_tree_forget_ended(as_tree *tree) { forget(tree, false); }

static bool is_member(const as_tree *tree, int pid) {
    bool found = false;
    for (size_t i = 0; !found && i < tree->listed; i++) {
        found = tree->members[i].pid == pid;
    }
    return found;
}

/* Marks the members of the tree; returns how many are known to be missing. */
static size_t mark(const as_listing *all, const as_tree *tree) {
    for (size_t i = 0; i < all->count; i++) {
        as_process *p = &all->list[i];
        const char *ids = p->ids ? all->ids + p->ids : NULL;
        p->member = is_leader(tree, p->pid) ||
                    (!p->dead && (belongs(tree, p, ids) || is_member(tree, p->pid)));
        p->unmarked = false;
    }
    size_t unknown = mark_cgroup(all, tree);
    for (bool changed = true; changed;) {
        changed = false;
        for (size_t i = 0; i < all->count; i++) {
            as_process *p = &all->list[i];
            if (p->member || p->dead) {
                continue;
            }
            const as_process *parent = as_process_find(all->list, all->count, p->parent);
            if (parent && parent->member) {
                p->member = p->unmarked = changed = true;
            }
        }
    }
    return unknown;
}

/* The members that are alive, the leader left out, as a copy: what is done to them needs no lock. */
static as_process *copy_members(const as_listing *all, const as_tree *tree, size_t *count) {
    *count = 0;
    for (size_t i = 0; i < all->count; i++) {
        as_process *p = &all->list[i];
        p->member = p->member && !p->dead && !is_leader(tree, p->pid);
        *count += p->member;
    }
    as_process *copy = calloc(*count + 1, sizeof *copy); /* none is no failure */
    for (size_t i = 0, n = 0; copy && i < all->count; i++) {
        if (all->list[i].member) {
            copy[n++] = all->list[i];
        }
    }
    return copy;
}

/* What one sweep works with. */
typedef struct {
    as_tree *tree;
    as_process *found;
    size_t count;
    as_text buffer;
    size_t may_fork; /* of those that it met */
    size_t missed;   /* there may be as many more */
} sweep;

/* Whether it is the one that the scan found: its number may name another by now. */
static bool is_found(sweep *s, int pid) {
    const as_process *was = as_process_find(s->found, s->count, pid);
    as_process now;
    return was && as_process_read(s->tree->census, pid, &now) && now.started == was->started;
}

/* Asked once more after its pidfd is open: then the answer is of the process that the pidfd names. To one
   that is exiting no signal means anything. */
static bool still_belongs(sweep *s, const as_process *was) {
    const as_tree *tree = s->tree;
    as_process now;
    if (!as_process_read(tree->census, was->pid, &now) || now.dead || now.started != was->started) {
        return false;
    }
    return now.exiting || belongs(tree, &now, NULL) || is_leader(tree, now.parent) ||
           is_found(s, now.parent) ||
           belongs(tree, &now, as_process_ids(tree->census, was->pid, &s->buffer)) ||
           is_in_cgroup(tree, was->pid);
}

/* False once somebody has reaped it: then its number may name another. */
static bool is_our_child(int pidfd) {
    siginfo_t info;
    return waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

/* By the leader's pidfd, which pins the group's number even after the leader is reaped; before Linux
   6.9 by number, only while the leader is our unreaped child. */
void as_signal_group(int leader, int leader_fd, int signal) {
    if (pidfd_signal(leader_fd, signal, PIDFD_SIGNAL_PROCESS_GROUP) == 0 || errno != EINVAL) {
        return;
    }
    if (is_our_child(leader_fd)) {
        (void)killpg(leader, signal);
    }
}

void as_tree_begin(as_tree *tree, as_census *census, int leader, int leader_fd, int cgroup_fd,
                   const char *run_id) {
    as_process self;
    bool dated = as_process_read(census, leader, &self) && is_our_child(leader_fd);
    *tree = (as_tree){.census = census,
                      .run_id = run_id,
                      .leader = leader,
                      .leader_fd = leader_fd,
                      .cgroup_fd = cgroup_fd,
                      .since = dated ? self.started : 0}; /* 0: all environments are read */
}

/* Opens a pidfd of a process that the scan has found; -1: it has none, or there is none to be had. */
static int open_found(sweep *s, const as_process *p) {
    int pidfd = as_pidfd_open(p->pid);
    if (pidfd >= 0 && !still_belongs(s, p)) {
        int error = errno;
        as_close(&pidfd);
        errno = error;
    }
    return pidfd;
}

/* Signals a new member through its own pidfd, which is kept while there is room for it. */
static void add_member(sweep *s, const as_process *p, int signal) {
    as_tree *tree = s->tree;
    int pidfd = open_found(s, p);
    if (pidfd < 0 && !as_out_of_resources()) {
        s->missed += !p->exiting; /* else it may have forked between the scan and its end */
        return;
    }
    if (pidfd < 0) {
        tree->untold = true; /* the next sweep tries again */
    } else if (signal == SIGKILL || (signal != 0 && p->group != tree->leader)) {
        (void)pidfd_signal(pidfd, signal, 0);
        if (signal != SIGKILL) {
            (void)pidfd_signal(pidfd, SIGCONT, 0);
        }
    }
    bool room = tree->listed < AS_TREE_FDS;
    s->may_fork += !p->exiting;
    tree->count++;
    if (room) {
        tree->members[tree->listed++] = (as_member){p->pid, pidfd};
        tree->watched += pidfd >= 0;
    } else {
        as_close(&pidfd);
    }
}

static void tell_member(sweep *s, const as_process *p, int signal) {
    if (!is_member(s->tree, p->pid)) {
        add_member(s, p, signal);
        return;
    }
    s->may_fork += !p->exiting;
    s->tree->count++;
}

/* The youngest first: a chain of forks may be about to go on in another process. */
static void tell_members(sweep *s, bool unmarked, int signal) {
    for (size_t i = s->count; i-- > 0;) {
        if (s->found[i].unmarked == unmarked) {
            tell_member(s, &s->found[i], signal);
        }
    }
}

static bool leader_may_fork(const as_listing *all, const as_tree *tree) {
    const as_process *leader = as_process_find(all->list, all->count, tree->leader);
    return !tree->leader_ours || !leader || (!leader->dead && !leader->exiting);
}

/* Finds the members; returns how many are known to be missing, or -errno. The census is held only so
   long: many runs that end at one moment wait for it. */
static int find_members(sweep *s) {
    as_tree *tree = s->tree;
    as_listing all;
    bool ended = as_has_ended(tree->leader_fd);
    int result = as_census_begin(tree->census, tree->since, &all);
    if (result == 0) {
        tree->leader_ours = is_our_child(tree->leader_fd);
        s->may_fork = !ended && leader_may_fork(&all, tree);
        forget(tree, true); /* who is alive after the scan is the one that it met */
        result = (int)mark(&all, tree) + !all.complete;
        s->found = copy_members(&all, tree, &s->count);
        result = s->found ? result : -ENOMEM;
    }
    as_census_end(tree->census);
    return result;
}

int as_tree_sweep(as_tree *tree, int signal) {
    sweep s = {.tree = tree};
    tree->ending = false;
    int result = find_members(&s);
    if (result >= 0) {
        tree->untold = false;
        tree->count = 0;
        tell_members(&s, true, signal); /* while their parents are there to tell whose they are */
    }
    if (signal == SIGKILL) {
        as_signal_group(tree->leader, tree->leader_fd, SIGKILL);
        for (size_t i = 0; i < tree->listed; i++) {
            (void)pidfd_signal(tree->members[i].pidfd, SIGKILL, 0);
        }
    }
    if (result >= 0) {
        tell_members(&s, false, signal);
        tree->ending = s.may_fork == 0 && s.missed == 0 && result == 0 &&
                       tree->count == tree->watched;
        result += (int)(tree->count + s.missed);
    }
    free(s.found);
    free(s.buffer.bytes);
    return result;
}

void as_tree_free(as_tree *tree) {
    for (size_t i = 0; i < tree->listed; i++) {
        as_close(&tree->members[i].pidfd);
    }
    tree->listed = tree->watched = tree->count = 0;
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
