/* worker.h - what a worker consists of.
 *
 * Untrusted:  nothing.
 * Threads:    the first block is the worker's own; the second is written by the control thread and
 *             read by the worker, or the other way round, through base.h only (see worker.c).
 */
#ifndef VSW_WORKER_H
#define VSW_WORKER_H

#include "vswitch/core/fdb.h"
#include "vswitch/core/forward.h"
#include "vswitch/core/patience.h"
#include "vswitch/core/punt.h"

enum {
    SPIN_NS = 200 * 1000,          /* a queue is polled for so long after its last packet */
    HOME_AGAIN_NS = 1000 * 1000 * 1000, /* what a queue sent before has been read, by then */
    TICK_NS = 15 * 1000 * 1000,
    SLEEP_NS = 1000 * 1000 * 1000, /* at the longest; the MAC table ages meanwhile */
    /* From one look for kicks to the next: a look costs some 2 us, which packets, or the polling
     * of other queues, do without. */
    LOOK_BUSY_NS = 60 * 1000,
    LOOK_IDLE_NS = 10 * 1000,
    EVENTS = 64,
    QUIET_LOOKS = 8,               /* quiet queues looked at in one breath, without sleep */
    TIMED_CYCLES_MAX = 1 << 20,    /* some 400 us: several times what the largest burst takes */
};

struct worker {
    struct forward forward;
    struct rxq **active;           /* the poll list; room for all of the snapshot's queues */
    uint32_t active_count, active_room;
    uint32_t armed_count;
    uint32_t quiet_count;          /* behind the active ones; only while workers never sleep */
    uint32_t quiet_at;             /* whose turn it is to be looked at */
    uint32_t until_timed;          /* breaths, to the next whose queues are timed */
    uint64_t tick_ns;
    uint64_t looked_ns;            /* for kicks, the last time */
    struct patience patience;
    int epoll_fd;
    uint64_t adopted_count;        /* published_count of forward.snapshot */
    struct packet packets[BURST];
    struct segment segs[SEGMENT_POOL];
    struct punt_ring *punts;

    CACHE_ALIGNED struct worker_counters counters; /* written by the worker, read by anyone */
    uint64_t seen;                 /* newest ticket that the worker has seen; written by it */
    uint32_t running;              /* written by the worker */
    CACHE_ALIGNED uint64_t asked;  /* tickets taken, by the control thread and once by worker_run */
    const struct snapshot *published;
    uint64_t published_count;
    uint32_t stop;
    int control_fd;
};

/* From now on q's packets go to those queues of their destinations that this worker prefers. */
static inline void worker_home(const struct worker *w, struct rxq *q)
{
    q->tx_queue = w->forward.breath.worker;
    q->homed = true;
}

/* ---- sleep.c */

/* Waits for events for so long, and puts the queues that were kicked on the poll list; returns how
 * many events there were. */
int worker_look(struct worker *w, uint64_t timeout_ns);
/* What to do after a breath that moved so many packets and ended at `before`; returns when the next
 * one begins (TSC cycles). */
uint64_t worker_rest(struct worker *w, uint32_t moved, uint64_t before);

#endif
