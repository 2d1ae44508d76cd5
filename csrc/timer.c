/* timer.c: where the scheduler waits: a kernel timer that a clock change wakes (C3). */
#include "internal.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

struct as_timer {
    int clock;
    int wake; /* an eventfd */
};

as_timer *as_timer_new(void) {
    as_timer *timer = malloc(sizeof *timer);
    if (!timer) {
        return NULL;
    }
    timer->clock = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK);
    timer->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (timer->clock < 0 || timer->wake < 0) {
        int error = errno;
        as_timer_free(timer);
        errno = error;
        return NULL;
    }
    return timer;
}

void as_timer_free(as_timer *timer) {
    if (timer) {
        as_close(&timer->clock);
        as_close(&timer->wake);
        free(timer);
    }
}

void as_timer_wake(const as_timer *timer) { as_wake(timer->wake); }

int as_timer_wait(as_timer *timer, int64_t when) {
    /* 0 would disarm it. One nanosecond after 1970 is as much in the past. */
    int64_t at = when == AS_FOREVER ? 0 : when > 0 ? when : 1;
    struct itimerspec until = {.it_value = {.tv_sec = at / AS_SECOND, .tv_nsec = at % AS_SECOND}};
    /* It stays armed between two waits, so that a change of the clock between the caller's look at it
       and this call is not missed: timerfd_settime says ECANCELED then, and arms it nevertheless. */
    if (timerfd_settime(timer->clock, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &until, NULL) <
        0) {
        return errno == ECANCELED ? 0 : -errno;
    }
    struct pollfd fds[] = {{.fd = timer->clock, .events = POLLIN},
                           {.fd = timer->wake, .events = POLLIN}};
    if (poll(fds, 2, -1) < 0) {
        return errno == EINTR ? 0 : -errno;
    }
    uint64_t value;
    for (int i = 0; i < 2; i++) {
        /* The read of a timer whose clock was set says ECANCELED: a reason to look, too. */
        ssize_t got = fds[i].revents ? read(fds[i].fd, &value, sizeof value) : 0;
        (void)got;
    }
    return 0;
}
