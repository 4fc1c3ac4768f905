/* patience.h - how long a worker that has nothing to do may keep its CPU from others.
 *
 * Polling an empty queue is right as long as nobody else wants the CPU: the next packet is then
 * seen at once, and nobody pays for a wake-up.  A guest on the same CPU changes that.  One that
 * answers and sleeps again runs whenever we yield, and polling between its turns still pays.  One
 * that is always ready to run loses as much as we poll: the scheduler shares fairly between its
 * work and our idling.
 *
 * Whether there is such a one is told by what yielding finds.  A yield that returns at once means
 * that the CPU was ours alone.  When less than a quarter of the idle time in a window goes by in
 * such turns, the CPU is contended.
 *
 * What to do then depends on the traffic.  Polling, with a yield after each breath, is still best
 * for some who wait for answers; waiting for notifications for others, and for everyone who has
 * work beside the network.  To a stream naps are kind: the worker looks at its queues whenever some
 * time has passed, nobody notifies or is woken for every packet, and what gathers meanwhile goes on
 * together; how long they are best depends on the sizes of its packets, and of its window.  So the
 * ways are tried, each for two short periods, and the one that moved most bytes is kept for a
 * while: until the verdict is old, or the rate is so different that it was passed on other traffic.
 * Little traffic says nothing about ways, and is waited for.
 *
 * A yield costs more than a look at an empty queue, and a packet that comes meanwhile waits for its
 * end.  So while nobody is known to want the CPU, and one found it ours alone, the next is due a
 * little later only.
 *
 * Untrusted:  nothing.
 * Threads:    belongs to one worker.
 */
#ifndef VSW_PATIENCE_H
#define VSW_PATIENCE_H

#include "vswitch/core/base.h"

enum {
    PATIENCE_WINDOW_NS = 1000 * 1000,
    PATIENCE_ALONE_NS = 2 * 1000,          /* a yield that takes less let nobody run */
    PATIENCE_AGAIN_NS = 5 * 1000,          /* then the next is due */
    /* Of idle time alone: one in so many.  Measured beside a User Mode Linux guest: 30 to 43 % when
     * it answers, 22 to 30 % when it sends single bytes, 5 to 14 % when it sends KiB. */
    PATIENCE_ALONE_SHARE = 4,
    PATIENCE_PAUSE_NS = 10 * 1000 * 1000,  /* waits so long, before anything is known */
    PATIENCE_ALERT_NS = 100 * 1000 * 1000, /* contended again within so long: the ways are tried */
    PATIENCE_PERIOD_NS = 10 * 1000 * 1000, /* of a trial */
    PATIENCE_HOLD_NS = 100 * 1000 * 1000,  /* keeps the best way so long, then looks for others */
    PATIENCE_VERDICT_S = 2,                /* the best way is known for so long */
    PATIENCE_TRIAL_BYTES = 16 * 1024,      /* a trial that moved less says nothing */
    PATIENCE_SHORT_NAP_NS = 100 * 1000,
    PATIENCE_LONG_NAP_NS = 400 * 1000,
    PATIENCE_WAYS = 4,
};

/* What a worker that found nothing does next; of those that move the same, the first is best. */
enum patience_way { PATIENCE_WAIT, PATIENCE_POLL, PATIENCE_SHORT_NAPS, PATIENCE_LONG_NAPS };

enum patience_stage {
    PATIENCE_FREE,                 /* polls, and watches whether it may */
    PATIENCE_PAUSE,
    PATIENCE_TRIAL,
    PATIENCE_HOLD,
};

struct patience {
    enum patience_stage stage;
    enum patience_way way;
    uint64_t until_ns;             /* the end of this stage, or of this period of a trial */

    /* Free. */
    uint64_t window_ns;            /* when the window began */
    uint64_t alone_ns;             /* of it, in turns that nobody else wanted */
    uint64_t others_ns;            /* of it, what yielding gave to others */
    uint64_t yielded_ns;           /* when the last yield returned */
    uint64_t again_ns;             /* when the next is due */
    uint64_t alert_until_ns;

    /* Trial and hold: what came since when. */
    uint64_t begun_ns, begun_bytes;
    uint32_t period;               /* of the trial that goes on, or was interrupted */
    uint64_t trial_until_ns;       /* an older one begins anew */
    uint64_t tried_ns[PATIENCE_WAYS], tried_bytes[PATIENCE_WAYS];
    enum patience_way best;
    double best_rate;              /* bytes per ns */
    uint64_t verdict_until_ns;
};

/* A patience as it is at first: free. */
void patience_init(struct patience *p);

/* Whether patience_turn is due. */
static inline bool patience_due(const struct patience *p, uint64_t now_ns)
{
    return now_ns >= p->until_ns;
}

/* Goes on to what comes next.  bytes: that the worker has delivered until now; only differences
 * count, and patience_init follows when it begins anew. */
void patience_turn(struct patience *p, uint64_t now_ns, uint64_t bytes);

/* How long the worker is to nap after an idle breath; 0: it is to do something else. */
static inline uint64_t patience_nap_ns(const struct patience *p)
{
    return p->way == PATIENCE_SHORT_NAPS  ? PATIENCE_SHORT_NAP_NS
           : p->way == PATIENCE_LONG_NAPS ? PATIENCE_LONG_NAP_NS
                                          : 0;
}

/* Lets others have the CPU, and learns whether there were any. */
void patience_yield(struct patience *p);

/* After an idle breath that began at now_ns, and is not followed by a nap.  Returns whether the CPU
 * was given away meanwhile. */
static inline bool patience_rest(struct patience *p, uint64_t now_ns)
{
    if (now_ns < p->again_ns)
        return false;
    patience_yield(p);
    return true;
}

#endif
