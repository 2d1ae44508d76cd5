/* tree.c: which processes are a run's, and which are not. */
#include "child.h"

#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>

/* ---- a script, its tree, and the sweeps ---- */

typedef struct {
    child leader;
    as_census *census;
    as_tree tree;
    int pidfd;
} grove;

static grove plant_as(const char *script, bool marked) {
    grove g = {.leader = child_start_as(script, NULL, marked), .census = as_census_new()};
    CHECK(g.census);
    g.pidfd = as_pidfd_open(g.leader.process.pid);
    CHECK(g.pidfd >= 0);
    return g;
}

static grove plant(const char *script) { return plant_as(script, true); }

static void begin(grove *g) {
    as_tree_begin(&g->tree, g->census, g->leader.process.pid, g->pidfd, -1, g->leader.run_id);
}

static void end_grove(grove *g) {
    as_tree_free(&g->tree);
    as_census_free(g->census);
    as_close(&g->pidfd);
    child_end(&g->leader);
}

static bool is_member(const grove *g, int pid) {
    bool found = false;
    for (size_t i = 0; i < g->tree.listed; i++) {
        found = found || g->tree.members[i].pid == pid;
    }
    return found;
}

/* Lets others have the core; fails a minute after `since`. */
static void pause_a_while(int64_t since) {
    CHECK(as_monotonic() - since < 60 * AS_SECOND);
    (void)poll(NULL, 0, 1);
}

/* Sweeps until the answer is this one: a process that is held up in the middle of an exec, the run's
   or another, makes a sweep say that one may be missing. */
static void settle(grove *g, int signal, int answer) {
    int64_t since = as_monotonic();
    while (as_tree_sweep(&g->tree, signal) != answer) {
        pause_a_while(since);
    }
}

/* How many members are alive. The sweep itself may answer one more, as above. */
static int members(grove *g) {
    CHECK(as_tree_sweep(&g->tree, 0) > 0);
    return (int)g->tree.count;
}

/* Kills so many members; the answer may be one more, as above. */
static void kill_members(grove *g, int count) {
    int alive = as_tree_sweep(&g->tree, SIGKILL);
    CHECK(alive == count || alive == count + 1);
}

/* Looks for one process in the tree, then kills all and sees it gone. */
static void check_one(const char *script, bool marked) {
    grove g = plant_as(script, marked);
    int pid = child_read_number(&g.leader);
    int64_t since = as_monotonic();
    begin(&g);
    do {
        pause_a_while(since);
        CHECK(as_tree_sweep(&g.tree, 0) != 0);
    } while (!is_member(&g, pid));
    CHECK(!child_is_gone(pid));
    CHECK(!is_member(&g, g.leader.process.pid));
    CHECK(!g.tree.ending);
    settle(&g, SIGKILL, 0);
    child_wait_gone(pid);
    end_grove(&g);
}

/* ---- tests ---- */

/* K2: the group, also without a mark. */
static void group(void) { check_one("sleep 600 & echo $!; wait", false); }

/* K2: the session, when the parent is gone and the group is another. */
static void session(void) {
    check_one("pid=$(perl -e 'if ($p = fork) { setpgrp $p, $p; print $p } else { close STDOUT; "
              "sleep 600 }');"
              "echo $pid; exec sleep 600",
              false);
}

/* K2: a child in a session of its own, without a mark, and one of such a child. */
static void descendant(void) {
    check_one("setsid sh -c 'echo $$; exec sleep 600' & wait", false);
    check_one("setsid sh -c 'setsid sh -c \"echo \\$\\$; exec sleep 600\" & wait' & wait", false);
}

/* K2: one whose name looks like what the kernel writes after it. */
static void name(void) {
    check_one("sh -c 'echo \") S 1 1 1 1 \" >/proc/$$/comm; echo $$; sleep 600 & wait' & wait",
              false);
}

/* K2: an orphan in a session of its own, by its environment. */
static void environment(void) {
    check_one("(setsid sh -c 'echo $$; exec sleep 600' &); exec sleep 600", true);
}

/* K2: runners nest: the id is one of several. */
static void nested_ids(void) {
    check_one("id=$AGENTSCRIPTS_RUN_ID; export AGENTSCRIPTS_RUN_ID=$id:0123456789abcdef;"
              "(setsid sh -c 'echo $$; exec sleep 600' &); exec sleep 600",
              true);
    check_one("id=$AGENTSCRIPTS_RUN_ID; export AGENTSCRIPTS_RUN_ID=0123:$id;"
              "(setsid sh -c 'echo $$; exec sleep 600' &); exec sleep 600",
              true);
}

/* K2: a mark far into a large environment counts. */
static void large_environment(void) {
    check_one("export A=$(head -c 100000 /dev/zero | tr '\\0' a); id=$AGENTSCRIPTS_RUN_ID;"
              "unset AGENTSCRIPTS_RUN_ID;"
              "(setsid env -i A=$A B=$A AGENTSCRIPTS_RUN_ID=$id sh -c 'echo $$; exec sleep 600' &);"
              "exec sleep 600",
              true);
}

/* What becomes of a process that says its environment is so many bytes of its memory. */
static _Noreturn void claim_environment(size_t size, int answer) {
    char text[2048];
    uint64_t field[52] = {0};
    FILE *file = fopen("/proc/self/stat", "r");
    size_t length = file ? fread(text, 1, sizeof text - 1, file) : 0;
    text[length] = 0;
    const char *p = strrchr(text, ')');
    CHECK(p);
    p++;
    for (int i = 3; i < 52; i++) {
        p = strchr(p, ' ') + 1;
        field[i] = strtoull(p, NULL, 10);
    }
    void *memory = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(memory != MAP_FAILED);
    struct prctl_mm_map map = {.start_code = field[26],
                               .end_code = field[27],
                               .start_data = field[45],
                               .end_data = field[46],
                               .start_brk = field[47],
                               .brk = (uint64_t)(uintptr_t)sbrk(0),
                               .start_stack = field[28],
                               .arg_start = field[48],
                               .arg_end = field[49],
                               .env_start = (uint64_t)(uintptr_t)memory,
                               .env_end = (uint64_t)(uintptr_t)memory + size,
                               .exe_fd = UINT32_MAX};
    bool done = prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof map, 0) == 0;
    CHECK_EQUAL(write(answer, done ? "y" : "n", 1), 1);
    for (;;) {
        (void)pause();
    }
}

/* K2: who reads an environment without an end needs no more memory than for one of an exec. */
static void endless_environment(void) {
    int ends[2];
    char answer = 0;
    CHECK_EQUAL(pipe(ends), 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        claim_environment((size_t)256 << 20, ends[1]);
    }
    CHECK_EQUAL(read(ends[0], &answer, 1), 1);
    if (answer == 'y') { /* else this kernel lets nobody do so */
        as_census *census = as_census_new();
        as_text buffer = {0};
        CHECK(as_process_ids(census, pid, &buffer) == NULL);
        CHECK(buffer.room > 0 && buffer.room <= (size_t)16 << 20);
        free(buffer.bytes);
        as_census_free(census);
    }
    CHECK_EQUAL(kill(pid, SIGKILL), 0);
    CHECK_EQUAL(waitpid(pid, NULL, 0), pid);
    as_close(&ends[0]);
    as_close(&ends[1]);
}

/* K2: so does one at any place of the window through which an environment is read. */
static void edge_of_the_window(void) {
    for (int place = 65460; place < 65540; place += 4) {
        char script[512];
        (void)snprintf(
            script, sizeof script,
            "a=$(head -c %d /dev/zero | tr '\\0' a); id=$AGENTSCRIPTS_RUN_ID;"
            "(setsid env -i A=$a AGENTSCRIPTS_RUN_ID=$id sh -c 'echo $$; exec sleep 600' &);"
            "exec sleep 600",
            place);
        check_one(script, true);
    }
}

/* K2: a process that execs all the time is never taken for gone, and found. */
static void forever_in_exec(void) {
    grove g = plant("a=$(head -c 100000 /dev/zero | tr '\\0' a);"
                    "export A=$a B=$a C=$a D=$a E=$a S='exec sh -c \"$S\"';"
                    "(setsid sh -c 'echo $$; exec sh -c \"$S\"' &); exec sleep 600");
    int pid = child_read_number(&g.leader);
    begin(&g);
    int found = 0;
    for (int i = 0; i < 200; i++) {
        CHECK(as_tree_sweep(&g.tree, 0) != 0);
        found += is_member(&g, pid);
    }
    CHECK(found > 0);
    settle(&g, SIGKILL, 0);
    child_wait_gone(pid);
    end_grove(&g);
}

/* The number that an orphan says. The script says 0 once the one that has forked it is gone: until then
   it is its child. */
static int read_orphan(const child *script) {
    int one = child_read_number(script);
    return one + child_read_number(script);
}

/* K2: nothing else is: not another run, not a name or an id that only resembles. */
static void strangers(void) {
    child other = child_start("echo $$; exec sleep 600");
    CHECK_EQUAL(child_read_number(&other), other.process.pid);
    grove g = plant("X=AGENTSCRIPTS_RUN_ID=$AGENTSCRIPTS_RUN_ID; id=$AGENTSCRIPTS_RUN_ID;"
                    "(setsid env AGENTSCRIPTS_RUN_ID=a$id sh -c 'echo $$; exec sleep 600' &);"
                    "echo 0; exec sleep 600");
    int first = read_orphan(&g.leader);
    begin(&g);
    settle(&g, SIGKILL, 0);
    CHECK(!child_is_gone(other.process.pid) && !child_is_gone(first));
    CHECK_EQUAL(kill(first, SIGKILL), 0);
    end_grove(&g);

    g = plant("id=$AGENTSCRIPTS_RUN_ID;"
              "(setsid env AGENTSCRIPTS_RUN_ID=${id}a sh -c 'echo $$; exec sleep 600' &);"
              "echo 0; exec sleep 600");
    first = read_orphan(&g.leader);
    begin(&g);
    settle(&g, SIGKILL, 0);
    CHECK_EQUAL(kill(first, SIGKILL), 0);
    end_grove(&g);

    g = plant("id=$AGENTSCRIPTS_RUN_ID; unset AGENTSCRIPTS_RUN_ID;"
              "(setsid env XAGENTSCRIPTS_RUN_ID=$id sh -c 'echo $$; exec sleep 600' &);"
              "echo 0; exec sleep 600");
    first = read_orphan(&g.leader);
    begin(&g);
    settle(&g, SIGKILL, 0);
    CHECK_EQUAL(kill(first, SIGKILL), 0);
    end_grove(&g);
    child_end(&other);
}

/* K1: zombies are nothing. */
static void zombies(void) {
    grove g = plant("sleep 0 & echo $!; exec sleep 600");
    child_wait_gone(child_read_number(&g.leader));
    begin(&g);
    settle(&g, 0, 0);
    CHECK(!g.tree.ending); /* the leader may fork */
    end_grove(&g);
}

/* K3: while the leader is an unreaped zombie its group and session are its own. */
static void zombie_leader(void) {
    grove g = plant_as("sleep 600 & echo $!", false);
    int pid = child_read_number(&g.leader);
    child_wait_gone(g.leader.process.pid);
    begin(&g);
    for (int i = 0; i < 2; i++) { /* new to the first sweep, known to the second */
        CHECK_EQUAL(members(&g), 1);
        CHECK(!g.tree.ending);
    }
    kill_members(&g, 1);
    child_wait_gone(pid);
    end_grove(&g);
}

/* K3: once somebody has reaped it, its number says nothing: only the mark counts. */
static void reaped_leader(void) {
    grove g = plant("sleep 600 & echo $!; env -i sh -c 'echo $$; exec sleep 600' &");
    int marked = child_read_number(&g.leader), unmarked = child_read_number(&g.leader);
    begin(&g);
    CHECK_EQUAL(waitpid(g.leader.process.pid, NULL, 0), g.leader.process.pid);
    settle(&g, 0, 1);
    CHECK(is_member(&g, marked) && !is_member(&g, unmarked));
    CHECK_EQUAL(kill(marked, SIGKILL), 0);
    CHECK_EQUAL(kill(unmarked, SIGKILL), 0);
    g.leader.process.pid = unmarked; /* for child_end */
    end_grove(&g);
}

/* K1: those in the group have had the stop signal; the sweep tells the others, stopped ones too. */
static void stop_signal(void) {
    grove g = plant("sleep 600 & echo $!;"
                    "setsid sh -c 'echo $$; kill -STOP $$; exec sleep 600' & wait");
    int inside = child_read_number(&g.leader), outside = child_read_number(&g.leader);
    begin(&g);
    CHECK(as_tree_sweep(&g.tree, SIGTERM) >= 2);
    child_wait_gone(outside);
    CHECK(!child_is_gone(inside));
    kill_members(&g, 1);
    child_wait_gone(inside);
    end_grove(&g);
}

/* K3: the group gets its signal through the leader's pidfd. */
static void group_signal(void) {
    grove g = plant("trap '' HUP; sh -c 'trap - HUP; echo $$; exec sleep 600' & wait");
    grove h = plant("sleep 600 & echo $!; wait");
    int ignores = child_read_number(&g.leader), obeys = child_read_number(&h.leader);
    begin(&h);
    as_signal_group(h.tree.leader, h.pidfd, SIGHUP);
    child_wait_gone(obeys);
    child_wait_gone(h.leader.process.pid);
    CHECK(!child_is_gone(ignores) && !child_is_gone(g.leader.process.pid));
    begin(&g);
    as_signal_group(g.tree.leader, g.pidfd, SIGKILL);
    child_wait_gone(ignores);
    end_grove(&h);
    end_grove(&g);
}

/* K1: more processes than are watched are found and killed all the same. */
static void many_members(void) {
    enum { MANY = AS_TREE_FDS + 20 };
    grove g = plant("i=0; while [ $i -lt 84 ]; do sleep 600 & i=$((i+1)); done; echo 0; wait");
    (void)child_read_number(&g.leader);
    begin(&g);
    CHECK_EQUAL(members(&g), MANY);
    CHECK_EQUAL(g.tree.listed, AS_TREE_FDS);
    CHECK_EQUAL(g.tree.watched, AS_TREE_FDS);
    kill_members(&g, MANY);
    while (as_tree_sweep(&g.tree, SIGKILL) > 0) {
    }
    end_grove(&g);
}

/* R3, K1: without descriptors a sweep fails or finds all: it never takes a living tree for gone. */
static void no_descriptors(void) {
    grove g = plant("sleep 600 & echo $!; wait");
    int pid = child_read_number(&g.leader);
    struct rlimit old, few;
    begin(&g);
    CHECK_EQUAL(getrlimit(RLIMIT_NOFILE, &old), 0);
    for (rlim_t more = 0; more < 4; more++) {
        int next = dup(0);
        CHECK(next >= 0);
        (void)close(next);
        few = old;
        few.rlim_cur = (rlim_t)next + more;
        CHECK_EQUAL(setrlimit(RLIMIT_NOFILE, &few), 0);
        int alive = as_tree_sweep(&g.tree, 0);
        CHECK_EQUAL(setrlimit(RLIMIT_NOFILE, &old), 0);
        CHECK(alive != 0);
        as_tree_free(&g.tree);
    }
    kill_members(&g, 1);
    child_wait_gone(pid);
    end_grove(&g);
}

/* Lets no file be opened until allow_files; returns the limit that there was. */
static struct rlimit forbid_files(void) {
    struct rlimit old, none;
    CHECK_EQUAL(getrlimit(RLIMIT_NOFILE, &old), 0);
    none = old;
    none.rlim_cur = 0;
    CHECK_EQUAL(setrlimit(RLIMIT_NOFILE, &none), 0);
    return old;
}

static void allow_files(struct rlimit old) { CHECK_EQUAL(setrlimit(RLIMIT_NOFILE, &old), 0); }

static int sweep_without_files(grove *g, int signal) {
    struct rlimit old = forbid_files();
    int alive = as_tree_sweep(&g->tree, signal);
    allow_files(old);
    return alive;
}

/* K1, R3: whom a sweep lacked a descriptor to tell, the next one tells. */
static void untold(void) {
    grove g = plant("setsid sh -c 'echo $$; exec sleep 600' & wait");
    int pid = child_read_number(&g.leader), next = dup(0);
    struct rlimit old, few;
    int64_t since = as_monotonic();
    CHECK(next >= 0);
    (void)close(next);
    begin(&g);
    CHECK_EQUAL(getrlimit(RLIMIT_NOFILE, &old), 0);
    few = old;
    few.rlim_cur = (rlim_t)next + 1; /* for its pidfd, but not for a file to ask whose it is */
    int alive;
    do {
        pause_a_while(since);
        CHECK_EQUAL(setrlimit(RLIMIT_NOFILE, &few), 0);
        alive = as_tree_sweep(&g.tree, SIGTERM);
        CHECK_EQUAL(setrlimit(RLIMIT_NOFILE, &old), 0);
    } while (alive < 0);
    CHECK(g.tree.untold && !child_is_gone(pid));
    CHECK(as_tree_sweep(&g.tree, SIGTERM) > 0);
    CHECK(!g.tree.untold);
    child_wait_gone(pid);
    settle(&g, SIGKILL, 0);
    end_grove(&g);
}

/* A process that is killed and cannot end: the first one of a namespace waits for a zombie of another's.
   By then it has neither memory nor environment. `pid` is 0 where nobody may make namespaces. */
typedef struct {
    int keeper, pid, answers, commands;
} captive;

static void answer(int fd, int number) {
    CHECK_EQUAL(write(fd, &number, sizeof number), (ssize_t)sizeof number);
}

static int ask(int fd) {
    int number = 0;
    CHECK_EQUAL(read(fd, &number, sizeof number), (ssize_t)sizeof number);
    return number;
}

static _Noreturn void keep_captive(const char *mark, int answers, int commands) {
    if (unshare(CLONE_NEWPID) != 0) {
        answer(answers, 0);
        _exit(0);
    }
    int first = fork();
    if (first == 0) {
        (void)setsid();
        (void)execle("/bin/sleep", "sleep", "600", (char *)NULL,
                     (char *[]){(char *)(uintptr_t)mark, NULL});
        _exit(1);
    }
    int zombie = fork();
    if (zombie == 0) {
        _exit(0);
    }
    siginfo_t info;
    CHECK_EQUAL(waitid(P_PID, (id_t)zombie, &info, WEXITED | WNOWAIT), 0);
    answer(answers, first);
    int go;
    ssize_t got = read(commands, &go, sizeof go); /* nothing: the test has failed */
    (void)got;
    (void)kill(first, SIGKILL);
    CHECK_EQUAL(waitpid(zombie, NULL, 0), zombie);
    CHECK_EQUAL(waitpid(first, NULL, 0), first);
    _exit(0);
}

static captive take_captive(const char *run_id) {
    char mark[64];
    int answers[2], commands[2];
    (void)snprintf(mark, sizeof mark, "AGENTSCRIPTS_RUN_ID=%s", run_id);
    CHECK_EQUAL(pipe(answers), 0);
    CHECK_EQUAL(pipe(commands), 0);
    captive c = {.keeper = fork(), .answers = answers[0], .commands = commands[1]};
    CHECK(c.keeper >= 0);
    if (c.keeper == 0) {
        as_close(&c.answers);
        as_close(&c.commands); /* it ends with the test, also when that fails */
        keep_captive(mark, answers[1], commands[0]);
    }
    as_close(&answers[1]);
    as_close(&commands[0]);
    c.pid = ask(c.answers);
    return c;
}

static void let_captive_go(captive *c) {
    if (c->pid > 0) {
        answer(c->commands, 1);
    }
    CHECK_EQUAL(waitpid(c->keeper, NULL, 0), c->keeper);
    as_close(&c->answers);
    as_close(&c->commands);
}

static bool is_without_memory(const grove *g, int pid) {
    as_process now;
    as_text buffer = {0};
    bool without = as_process_read(g->census, pid, &now) && now.exiting &&
                   !as_process_ids(g->census, pid, &buffer);
    free(buffer.bytes);
    return without;
}

/* K1: a killed process is one of the tree until it is gone, though nothing tells whose it is. */
static void killed_and_not_gone(void) {
    grove g = plant("echo 0; exec sleep 600");
    (void)child_read_number(&g.leader);
    captive c = take_captive(g.leader.run_id);
    int64_t since = as_monotonic();
    begin(&g);
    if (c.pid > 0) {
        do {
            pause_a_while(since); /* until its exec it has no mark */
            (void)as_tree_sweep(&g.tree, 0);
        } while (!is_member(&g, c.pid));
        kill_members(&g, 1);
        child_wait_gone(g.leader.process.pid);
        while (!is_without_memory(&g, c.pid)) {
            pause_a_while(since);
        }
        bool ending = false;
        for (int i = 0; i < 20 || !ending; i++) {
            pause_a_while(since);
            CHECK(as_tree_sweep(&g.tree, SIGKILL) > 0);
            CHECK(is_member(&g, c.pid));
            ending = ending || g.tree.ending; /* as it can fork no more */
        }
    }
    let_captive_go(&c);
    settle(&g, SIGKILL, 0);
    end_grove(&g);
}

/* K1: who has been found is killed also when a sweep can find nobody. */
static void failing_kill(void) {
    grove g = plant("setsid sh -c 'echo $$; exec sleep 600' & wait");
    int pid = child_read_number(&g.leader);
    int64_t since = as_monotonic();
    begin(&g);
    do {
        pause_a_while(since);
        CHECK(as_tree_sweep(&g.tree, 0) > 0);
    } while (!is_member(&g, pid));
    as_census_free(g.census);
    g.census = g.tree.census = as_census_new();
    CHECK(sweep_without_files(&g, SIGKILL) < 0);
    child_wait_gone(pid);
    end_grove(&g);
}

/* K1: a sweep that fails proves nothing, whatever the one before it has proven. */
static void failing_sweep(void) {
    grove g = plant("exit");
    child_wait_gone(g.leader.process.pid);
    int64_t since = as_monotonic();
    begin(&g);
    do {
        pause_a_while(since);
        CHECK(as_tree_sweep(&g.tree, 0) >= 0);
    } while (!g.tree.ending);
    as_census_free(g.census);
    g.census = g.tree.census = as_census_new(); /* which knows nobody, so it has to open files */
    CHECK(sweep_without_files(&g, 0) < 0);
    CHECK(!g.tree.ending);
    end_grove(&g);
}

/* `pid`: one that is listed, known from before or read anew. */
static int list_all(as_census *census, uint64_t since, int pid, bool known) {
    as_listing all;
    int result = as_census_begin(census, since, &all);
    if (result == 0) {
        const as_process *p = as_process_find(all.list, all.count, pid);
        CHECK(p && p->started > 0);
        CHECK((p->parent == 0) == known); /* what may have changed meanwhile is not told */
        CHECK(!known || !all.complete);   /* it could not ask which number was given last */
    }
    as_census_end(census);
    return result;
}

/* Whether all can be listed twice, the second time without a file that could be opened. `zombie`: with one
   that is as young as the script. */
static bool is_read_once(as_census *census, bool zombie) {
    uint64_t since = UINT64_MAX;
    int pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)setsid(); /* this process's session may be one of outside, which nobody sees */
        while (!zombie) {
            (void)pause();
        }
        _exit(0);
    }
    while (getsid(pid) != pid) {
        (void)sched_yield();
    }
    if (zombie) {
        as_process now;
        siginfo_t info;
        CHECK_EQUAL(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
        CHECK(as_process_read(census, pid, &now) && now.dead);
        since = now.started;
    }
    CHECK_EQUAL(list_all(census, since, pid, false), 0);
    struct rlimit old = forbid_files();
    int result = list_all(census, since, pid, true);
    allow_files(old);
    CHECK_EQUAL(kill(pid, SIGKILL), 0);
    CHECK_EQUAL(waitpid(pid, NULL, 0), pid);
    return result == 0;
}

/* Work: what is older than the script, or dead, is read once and known by its inode from then on. */
static void known_processes(void) {
    as_census *census = as_census_new();
    for (int zombie = 0; zombie < 2; zombie++) {
        for (int i = 0; !is_read_once(census, zombie); i++) { /* another one may begin in between */
            CHECK(i < 1000);
        }
    }
    as_census_free(census);
}

/* K6: the kernel keeps the status that somebody else has taken (Linux 6.15; else it is unknown). */
static void exit_status(void) {
    child c = child_start("exit 7");
    int pidfd = as_pidfd_open(c.process.pid), status = -1;
    CHECK_EQUAL(waitpid(c.process.pid, NULL, 0), c.process.pid);
    if (as_pidfd_exit_status(pidfd, &status)) {
        CHECK(WIFEXITED(status));
        CHECK_EQUAL(WEXITSTATUS(status), 7);
    }
    as_close(&pidfd);
    as_close(&c.process.pidfd);
    as_close(&c.process.stdout_fd);
    as_close(&c.process.stderr_fd);
}

static void *sweep_often(void *grove_pointer) {
    grove *g = grove_pointer;
    for (int i = 0; i < 30; i++) {
        CHECK_EQUAL(members(g), 1);
    }
    return NULL;
}

/* K2: runs share one census and each sees its own tree. */
static void shared_census(void) {
    enum { GROVES = 4 };
    grove groves[GROVES];
    pthread_t threads[GROVES];
    as_census *census = as_census_new();
    for (int i = 0; i < GROVES; i++) {
        groves[i] = plant("setsid sh -c 'echo $$; exec sleep 600' & wait");
        as_census_free(groves[i].census);
        groves[i].census = census;
        (void)child_read_number(&groves[i].leader);
        begin(&groves[i]);
    }
    for (int i = 0; i < GROVES; i++) {
        CHECK_EQUAL(pthread_create(&threads[i], NULL, sweep_often, &groves[i]), 0);
    }
    for (int i = 0; i < GROVES; i++) {
        CHECK_EQUAL(pthread_join(threads[i], NULL), 0);
        kill_members(&groves[i], 1);
        groves[i].census = NULL;
        end_grove(&groves[i]);
    }
    as_census_free(census);
}

static void *sweep_once(void *grove_pointer) {
    grove *g = grove_pointer;
    return (void *)(intptr_t)as_tree_sweep(&g->tree, 0);
}

/* K1: a scan that fails proves nothing for those who have waited for it either. */
static void shared_failure(void) {
    grove groves[2];
    pthread_t threads[2];
    as_census *census = as_census_new();
    as_listing all;
    for (int i = 0; i < 2; i++) {
        groves[i] = plant("echo 0; exec sleep 600");
        as_census_free(groves[i].census);
        groves[i].census = census;
        (void)child_read_number(&groves[i].leader);
        begin(&groves[i]);
    }
    CHECK_EQUAL(as_census_begin(census, UINT64_MAX, &all), 0);
    struct rlimit old = forbid_files();
    for (int i = 0; i < 2; i++) {
        CHECK_EQUAL(pthread_create(&threads[i], NULL, sweep_once, &groves[i]), 0);
    }
    (void)poll(NULL, 0, 20); /* let them wait: either way must work */
    as_census_end(census);
    for (int i = 0; i < 2; i++) {
        void *result;
        CHECK_EQUAL(pthread_join(threads[i], &result), 0);
        CHECK((intptr_t)result < 0);
    }
    allow_files(old);
    for (int i = 0; i < 2; i++) {
        groves[i].census = NULL;
        end_grove(&groves[i]);
    }
    as_census_free(census);
}

CHECK_MAIN(CHECK_TEST(group), CHECK_TEST(session), CHECK_TEST(descendant), CHECK_TEST(name),
           CHECK_TEST(environment), CHECK_TEST(nested_ids), CHECK_TEST(large_environment),
           CHECK_TEST(edge_of_the_window), CHECK_TEST(endless_environment),
           CHECK_TEST(forever_in_exec), CHECK_TEST(strangers), CHECK_TEST(zombies),
           CHECK_TEST(zombie_leader), CHECK_TEST(reaped_leader), CHECK_TEST(stop_signal),
           CHECK_TEST(group_signal), CHECK_TEST(many_members), CHECK_TEST(no_descriptors),
           CHECK_TEST(untold), CHECK_TEST(killed_and_not_gone), CHECK_TEST(failing_sweep),
           CHECK_TEST(failing_kill), CHECK_TEST(known_processes), CHECK_TEST(exit_status),
           CHECK_TEST(shared_census), CHECK_TEST(shared_failure))
