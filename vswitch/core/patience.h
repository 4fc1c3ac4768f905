/* patience.h - how long a worker that has nothing to do may keep its CPU from others.
 *
 * Polling an empty queue is right as long as nobody else wants the CPU: the next packet is then
 * seen at once, and nobody pays for a wake-up.  A guest on the same CPU changes that.  One that
 * answers and sleeps again runs whenever we yield, and polling between its turns still pays.  One
 * that is always ready to run loses as much as we poll: the scheduler shares fairly between its
 * work and our idling, so yielding is not enough and the worker has to sleep.
 *
 * The two are told apart by what yielding finds.  A yield that returns at once means that the CPU
 * was ours alone.  When less than a quarter of the idle time in a window goes by in such turns,
 * somebody else is always ready, and polling stops for a while.
 *
 * Then a worker has two ways.  It may wait for notifications, and answers at once what comes one by
 * one.  Or it may nap: look at its queues whenever a short time has passed, without being told.  To
 * a stream naps are kind: nobody notifies and is woken for every packet, and what gathers meanwhile
 * goes on together.  To who waits for an answer they are not.  The two are told apart by what naps
 * find: who waits for an answer has sent nothing between the nap that took the question and the
 * next, a stream sends in every one.
 *
 * A yield costs more than a look at an empty queue, and a packet that comes meanwhile waits for its
 * end.  So after one that found the CPU ours alone, the next is due a little later only.
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
    PATIENCE_SLEEP_NS = 10 * 1000 * 1000,  /* no polling for so long, then another try */
    PATIENCE_NAP_NS = 100 * 1000,
    PATIENCE_TRIAL = 8,                    /* naps, until what they found is judged */
    /* Until naps are tried again where there was no stream; twice as long after each failure. */
    PATIENCE_GAP_NS = 10 * 1000 * 1000,
    PATIENCE_GAP_MAX_NS = 320 * 1000 * 1000,
};

/* What a worker that found nothing does next. */
enum patience_way { PATIENCE_POLL, PATIENCE_WAIT, PATIENCE_NAP };

struct patience {
    uint64_t window_ns;    /* when the window began */
    uint64_t alone_ns;     /* of it, in turns that nobody else wanted */
    uint64_t others_ns;    /* of it, what yielding gave to others */
    uint64_t yielded_ns;   /* when the last yield returned */
    uint64_t again_ns;     /* when the next is due */
    uint64_t out_until_ns;
    bool naps;             /* not waits, meanwhile */
    uint32_t taken;        /* naps of this trial */
    uint32_t busy, again;  /* what they found: see patience_napped() */
    uint64_t gap_ns;       /* after the last trial; 0: it found a stream */
    uint64_t trial_ns;     /* no trial before */
};

static inline enum patience_way patience_way(const struct patience *p, uint64_t now_ns)
{
    if (now_ns >= p->out_until_ns)
        return PATIENCE_POLL;
    return p->naps ? PATIENCE_NAP : PATIENCE_WAIT;
}

/* Lets others have the CPU, and learns whether there were any. */
void patience_yield(struct patience *p);

/* After an idle breath that began at now_ns. */
static inline void patience_rest(struct patience *p, uint64_t now_ns)
{
    if (now_ns >= p->again_ns)
        patience_yield(p);
}

/* After a nap: since the one before, `busy` queues had packets, `again` of which had had some in
 * the time before that, too. */
void patience_napped(struct patience *p, uint64_t now_ns, uint32_t busy, uint32_t again);

#endif
