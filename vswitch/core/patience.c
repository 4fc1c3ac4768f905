/* patience.c - see patience.h.
 *
 * Untrusted, Threads: see patience.h.
 */
#include "vswitch/core/patience.h"

#include <sched.h>

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
            p->out_until_ns = now_ns + PATIENCE_SLEEP_NS;
        p->window_ns = now_ns;
        p->alone_ns = p->others_ns = 0;
    }
}
