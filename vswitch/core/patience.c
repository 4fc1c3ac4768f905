/* patience.c - see patience.h.
 *
 * Untrusted, Threads: see patience.h.
 */
#include "vswitch/core/patience.h"

#include <sched.h>

/* Each way twice, the second time in the other order: what grows or shrinks meanwhile, as windows
 * of TCP do, favours none. */
static const enum patience_way periods[] = {
    PATIENCE_WAIT,       PATIENCE_POLL,        PATIENCE_SHORT_NAPS, PATIENCE_LONG_NAPS,
    PATIENCE_LONG_NAPS,  PATIENCE_SHORT_NAPS,  PATIENCE_POLL,       PATIENCE_WAIT,
};
/* Better by less is not better. */
static const double better = 1.05;
/* A rate so many times higher or lower than the verdict's is other traffic's. */
static const double departed = 2;

/* ---- stages */

static void enter(struct patience *p, enum patience_stage stage, enum patience_way way,
                  uint64_t until_ns)
{
    p->stage = stage;
    p->way = way;
    p->until_ns = until_ns;
}

static void be_free(struct patience *p)
{
    enter(p, PATIENCE_FREE, PATIENCE_POLL, UINT64_MAX);
    p->window_ns = p->alone_ns = p->others_ns = 0;
}

void patience_init(struct patience *p)
{
    *p = (struct patience){0};
    be_free(p);
}

static void count_from(struct patience *p, uint64_t now_ns, uint64_t bytes)
{
    p->begun_ns = now_ns;
    p->begun_bytes = bytes;
}

static void hold(struct patience *p, uint64_t now_ns, uint64_t bytes)
{
    count_from(p, now_ns, bytes);
    enter(p, PATIENCE_HOLD, p->best, now_ns + PATIENCE_HOLD_NS);
}

static void try_next(struct patience *p, uint64_t now_ns, uint64_t bytes)
{
    count_from(p, now_ns, bytes);
    enter(p, PATIENCE_TRIAL, periods[p->period], now_ns + PATIENCE_PERIOD_NS);
}

/* Goes on with a trial that was interrupted a little ago: traffic that comes in bursts finds its
 * way, too. */
static void go_on_trying(struct patience *p, uint64_t now_ns, uint64_t bytes)
{
    if (now_ns >= p->trial_until_ns) {
        p->period = 0;
        memset(p->tried_ns, 0, sizeof(p->tried_ns));
        memset(p->tried_bytes, 0, sizeof(p->tried_bytes));
        p->trial_until_ns = now_ns + PATIENCE_VERDICT_S * NS_PER_S;
    }
    try_next(p, now_ns, bytes);
}

static void judge(struct patience *p, uint64_t now_ns)
{
    uint64_t all_bytes = 0;
    for (uint32_t way = 0; way < PATIENCE_WAYS; way++)
        all_bytes += p->tried_bytes[way];
    p->best_rate = 0;
    for (uint32_t way = 0; way < PATIENCE_WAYS; way++) {
        double rate = (double)p->tried_bytes[way] / (double)p->tried_ns[way];
        if (way > 0 && (rate <= p->best_rate * better || all_bytes < PATIENCE_TRIAL_BYTES))
            continue;
        p->best = (enum patience_way)way;
        p->best_rate = rate;
    }
    p->verdict_until_ns = now_ns + PATIENCE_VERDICT_S * NS_PER_S;
    p->trial_until_ns = 0;
}

/* ---- what follows what */

static void after_free(struct patience *p, uint64_t now_ns, uint64_t bytes)
{
    if (now_ns < p->verdict_until_ns) {
        hold(p, now_ns, bytes);
    } else if (now_ns < p->alert_until_ns) {
        go_on_trying(p, now_ns, bytes);
    } else {
        p->alert_until_ns = now_ns + PATIENCE_PAUSE_NS + PATIENCE_ALERT_NS;
        enter(p, PATIENCE_PAUSE, PATIENCE_WAIT, now_ns + PATIENCE_PAUSE_NS);
    }
}

static void after_period(struct patience *p, uint64_t now_ns, uint64_t bytes)
{
    uint64_t took_ns = now_ns - p->begun_ns;
    /* The traffic has ended meanwhile.  Not so beside many others, whose turns take long. */
    if (took_ns > 4 * PATIENCE_PERIOD_NS && p->way != PATIENCE_POLL) {
        p->alert_until_ns = now_ns + PATIENCE_ALERT_NS;
        be_free(p);
        return;
    }
    p->tried_ns[p->way] += took_ns;
    p->tried_bytes[p->way] += bytes - p->begun_bytes;
    if (++p->period < ARRAY_LEN(periods)) {
        try_next(p, now_ns, bytes);
        return;
    }
    judge(p, now_ns);
    hold(p, now_ns, bytes);
}

static void after_hold(struct patience *p, uint64_t now_ns, uint64_t bytes)
{
    uint64_t took_ns = now_ns - p->begun_ns;
    double rate = (double)(bytes - p->begun_bytes) / (double)took_ns;
    /* A pause says nothing of what comes after it. */
    if (took_ns < 4 * PATIENCE_HOLD_NS &&
        (rate > departed * p->best_rate || rate * departed < p->best_rate)) {
        p->verdict_until_ns = 0;
        p->alert_until_ns = now_ns + PATIENCE_ALERT_NS;
    }
    be_free(p);
}

void patience_turn(struct patience *p, uint64_t now_ns, uint64_t bytes)
{
    switch (p->stage) {
    case PATIENCE_FREE: after_free(p, now_ns, bytes); break;
    case PATIENCE_PAUSE: be_free(p); break;
    case PATIENCE_TRIAL: after_period(p, now_ns, bytes); break;
    case PATIENCE_HOLD: after_hold(p, now_ns, bytes); break;
    }
}

/* ---- yielding */

void patience_yield(struct patience *p)
{
    uint64_t before_ns = clock_now_ns();
    sched_yield();
    uint64_t now_ns = clock_now_ns();

    /* After a sleep or a busy time the window has nothing to say about idling. */
    if (before_ns - p->window_ns > 4 * PATIENCE_WINDOW_NS) {
        p->window_ns = before_ns;
        p->alone_ns = p->others_ns = 0;
    }
    if (now_ns - before_ns < PATIENCE_ALONE_NS) {
        /* The breaths since the last yield were idle as well, when they were short. */
        bool follows = now_ns - p->yielded_ns < PATIENCE_AGAIN_NS + 2 * PATIENCE_ALONE_NS;
        p->alone_ns += now_ns - (follows ? p->yielded_ns : before_ns);
        if (p->stage == PATIENCE_FREE) /* else whoever is woken is let in at once */
            p->again_ns = now_ns + PATIENCE_AGAIN_NS;
    } else {
        p->others_ns += now_ns - before_ns;
    }
    p->yielded_ns = now_ns;
    if (now_ns - p->window_ns >= PATIENCE_WINDOW_NS) {
        /* Not of the whole window: what packets took, or a look at many queues, is nobody's. */
        if (p->stage == PATIENCE_FREE &&
            p->alone_ns * PATIENCE_ALONE_SHARE < p->alone_ns + p->others_ns)
            p->until_ns = now_ns; /* patience_turn is due */
        p->window_ns = now_ns;
        p->alone_ns = p->others_ns = 0;
    }
}
