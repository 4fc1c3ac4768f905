/* patience.c - see patience.h.
 *
 * Untrusted, Threads: see patience.h.
 */
#include "vswitch/core/patience.h"

#include <sched.h>

static void trial_begin(struct patience *p)
{
    p->taken = p->busy = p->again = 0;
}

/* Somebody else is always ready. */
static void run_out(struct patience *p, uint64_t now_ns)
{
    p->out_until_ns = now_ns + PATIENCE_SLEEP_NS;
    p->naps = now_ns >= p->trial_ns;
    trial_begin(p);
}

void patience_napped(struct patience *p, uint64_t now_ns, uint32_t busy, uint32_t again)
{
    p->busy += busy;
    p->again += again;
    if (++p->taken < PATIENCE_TRIAL)
        return;
    p->naps = p->again > 0 && 2 * p->again >= p->busy;
    p->gap_ns = p->naps ? 0 : p->gap_ns > 0 ? 2 * p->gap_ns : PATIENCE_GAP_NS;
    if (p->gap_ns > PATIENCE_GAP_MAX_NS)
        p->gap_ns = PATIENCE_GAP_MAX_NS;
    p->trial_ns = now_ns + p->gap_ns;
    trial_begin(p);
}

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
        p->again_ns = now_ns + PATIENCE_AGAIN_NS;
    } else {
        p->others_ns += now_ns - before_ns;
    }
    p->yielded_ns = now_ns;
    if (now_ns - p->window_ns >= PATIENCE_WINDOW_NS) {
        /* Not of the whole window: what packets took, or a look at many queues, is nobody's. */
        if (p->alone_ns * PATIENCE_ALONE_SHARE < p->alone_ns + p->others_ns)
            run_out(p, now_ns);
        p->window_ns = now_ns;
        p->alone_ns = p->others_ns = 0;
    }
}
