/* sleep.c - what a worker does between two breaths: sleep, nap, look for kicks, or let others have
 * the CPU.
 *
 * Untrusted:  nothing.
 * Threads:    the worker's own.
 */
#define _GNU_SOURCE /* epoll_pwait2 */
#include "vswitch/core/worker.h"

#include <sys/epoll.h>
#include <unistd.h>

static void wake_queue(struct worker *w, struct rxq *q)
{
    if (!q->armed)
        return;
    if (w->forward.breath.now_ns - q->quiet_since_ns > HOME_AGAIN_NS)
        worker_home(w, q);
    q->armed = false;
    q->quiet_since_ns = 0;
    q->disarm(q);
    w->armed_count--;
    w->active[w->active_count++] = q; /* room: adopt made it for all */
    counter_add(&q->counters.wakes, 1);
    counter_add(&port_counters(q->port, &w->forward.breath)->wakeups, 1);
}

int worker_look(struct worker *w, uint64_t timeout_ns)
{
    struct epoll_event events[EVENTS];
    struct timespec timeout = {(time_t)(timeout_ns / NS_PER_S), (long)(timeout_ns % NS_PER_S)};
    int n = epoll_pwait2(w->epoll_fd, events, EVENTS, &timeout, NULL);
    for (int i = 0; i < n; i++) {
        struct rxq *q = events[i].data.ptr;
        uint64_t count;
        if (q)
            wake_queue(w, q);
        else if (read(w->control_fd, &count, sizeof(count)) < 0)
            continue; /* somebody's second kick: it was read with the first */
    }
    return n;
}

static void nap(struct worker *w)
{
    uint32_t busy = 0, again = 0;
    counter_add(&w->counters.naps, 1);
    uint64_t number = w->counters.naps;
    for (uint32_t i = 0; i < w->active_count; i++) {
        struct rxq *q = w->active[i];
        if (q->counters.packets == q->napped_packets)
            continue;
        busy++;
        again += q->napped_busy + 1 == number;
        q->napped_busy = number;
        q->napped_packets = q->counters.packets;
    }
    patience_napped(&w->patience, w->forward.breath.now_ns, busy, again);
    worker_look(w, PATIENCE_NAP_NS);
}

uint64_t worker_rest(struct worker *w, uint32_t moved, uint64_t before)
{
    if (w->active_count + w->quiet_count == 0) {
        counter_add(&w->counters.sleeps, 1);
        if (worker_look(w, SLEEP_NS) > 0)
            counter_add(&w->counters.wakes, 1);
        return cycles_now();
    }
    uint64_t unseen_ns = w->forward.breath.now_ns - w->looked_ns;
    if (w->armed_count > 0 && unseen_ns >= (moved > 0 ? LOOK_BUSY_NS : LOOK_IDLE_NS)) {
        w->looked_ns = w->forward.breath.now_ns;
        worker_look(w, 0);
    }
    if (moved > 0 || w->forward.snapshot->idle != IDLE_ADAPTIVE)
        return before;
    if (patience_way(&w->patience, w->forward.breath.now_ns) != PATIENCE_NAP) {
        patience_rest(&w->patience, w->forward.breath.now_ns);
        return before;
    }
    nap(w);
    return cycles_now();
}
