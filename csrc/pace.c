/* pace.c: how many lines a logger gets at once (L6). Pure. */
#include "internal.h"

/* Whether the time per line is clearly less in the larger of two batches: what a send costs is then
   mostly not a matter of its lines. Batches of like sizes tell nothing, and change nothing. */
static bool costs_per_send(const as_pace *pace, uint64_t lines, uint64_t took) {
    uint64_t small = pace->lines, small_took = pace->took;
    if (small > lines) {
        small = lines, small_took = took;
        lines = pace->lines, took = pace->took;
    }
    if (small == 0 || lines < 2 * small) {
        return pace->per_send;
    }
    return 4 * took * small <= 3 * small_took * lines;
}

void as_pace_note(as_pace *pace, uint32_t lines, int64_t took, int64_t stall_timeout) {
    uint64_t time = took > 0 ? (uint64_t)took : 0, stall = (uint64_t)stall_timeout;
    /* It grows by steps, so that one lucky batch does not make the next one a stall. */
    uint64_t limit = 8 * (uint64_t)lines > pace->limit ? 8 * (uint64_t)lines : pace->limit;
    pace->per_send = costs_per_send(pace, lines, time);
    if (stall_timeout != AS_FOREVER && time > 0) {
        uint64_t bound = stall / 10 / (time / lines + 1);
        /* Twice the lines take half of stall_timeout even where each line costs the same. One line
           alone does not show whether it does, so two are tried. */
        if ((pace->per_send || lines == 1) && time <= stall / 4 && bound < 2 * (uint64_t)lines) {
            bound = 2 * (uint64_t)lines;
        }
        limit = limit < bound ? limit : bound;
    }
    pace->limit = limit < 1 ? 1 : limit > AS_BATCH_LINES ? AS_BATCH_LINES : (uint32_t)limit;
    pace->lines = lines;
    pace->took = time;
}
