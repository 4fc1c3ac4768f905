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

/* What this worker has delivered to the ports of its snapshot. */
static uint64_t sent_bytes(const struct worker *w)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < MAX_PORTS; i++) {
        const struct port *port = w->forward.snapshot->ports[i];
        if (port)
            bytes += port_counters(port, &w->forward.breath)->tx_bytes;
    }
    return bytes;
}

uint64_t worker_rest(struct worker *w, uint32_t moved, uint64_t before)
{
    uint64_t now_ns = w->forward.breath.now_ns;
    if (moved == 0 && unlikely(patience_due(&w->patience, now_ns)))
        patience_turn(&w->patience, now_ns, sent_bytes(w));
    if (w->active_count + w->quiet_count == 0) {
        counter_add(&w->counters.sleeps, 1);
        if (worker_look(w, SLEEP_NS) > 0)
            counter_add(&w->counters.wakes, 1);
        return cycles_now();
    }
    bool idle = moved == 0 && w->forward.snapshot->idle == IDLE_ADAPTIVE;
    uint64_t nap_ns = idle ? patience_nap_ns(&w->patience) : 0;
    if (nap_ns > 0) {
        counter_add(&w->counters.naps, 1);
        w->looked_ns = now_ns;
        worker_look(w, nap_ns);
        return cycles_now();
    }
    if (w->armed_count > 0 && now_ns - w->looked_ns >= (moved > 0 ? LOOK_BUSY_NS : LOOK_IDLE_NS)) {
        w->looked_ns = now_ns;
        if (worker_look(w, 0) > 0)
            return before; /* who kicked is not to wait for a yield */
    }
    /* What others had is not the next breath's. */
    return idle && patience_rest(&w->patience, now_ns) ? cycles_now() : before;
}
