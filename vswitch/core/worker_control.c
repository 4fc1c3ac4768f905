/* worker_control.c - what the control thread does with a worker: tickets, publication, counters.
 *
 * Untrusted:  nothing.
 * Threads:    the control thread, at any time; see worker.c for the grace period.
 */
#include "vswitch/core/worker.h"

#include <unistd.h>

static void kick(struct worker *w)
{
    uint64_t one = 1;
    if (write(w->control_fd, &one, sizeof(one)) < 0)
        return; /* the counter is full: it is readable already */
}

static uint64_t take_ticket(struct worker *w)
{
    uint64_t ticket = add_release(&w->asked, 1) + 1; /* pairs with look_at_control */
    kick(w);
    return ticket;
}

void worker_publish(struct worker *w, const struct snapshot *s)
{
    uint64_t count = load_relaxed(&w->published_count) + 1;
    store_release(&w->published, s);           /* pairs with look_at_control */
    store_release(&w->published_count, count); /* likewise */
    take_ticket(w);
}

int worker_sync(struct worker *w, uint64_t timeout_ns)
{
    uint64_t ticket = take_ticket(w), deadline = clock_now_ns() + timeout_ns;
    fence_full(); /* the ticket is seen before running is read: see worker_run */
    /* pairs with worker_run and look_at_control */
    while (load_acquire(&w->running) && load_acquire(&w->seen) < ticket) {
        if (clock_now_ns() > deadline)
            return -ETIMEDOUT;
        struct timespec pause = {.tv_nsec = 20000};
        nanosleep(&pause, NULL);
    }
    return 0;
}

void worker_stop(struct worker *w)
{
    store_release(&w->stop, 1); /* pairs with worker_run */
    kick(w);
}

void worker_counters_read(const struct worker *w, struct worker_counters *out)
{
    const uint64_t *from = (const uint64_t *)&w->counters;
    uint64_t *to = (uint64_t *)out;
    for (size_t i = 0; i < sizeof(*out) / sizeof(*to); i++)
        to[i] = load_relaxed(&from[i]);
    out->cycles_clock = cycles_now();
}

int worker_punt_fd(const struct worker *w)
{
    return w->punts->fd;
}

int worker_punt_next(struct worker *w, struct punt *out)
{
    return punt_next(w->punts, out);
}
