/* worker.c - the breath: the one loop that moves data.
 *
 * A breath adopts the newest snapshot, visits each queue on the poll list once, and forwards what
 * it finds to completion.  A queue that stays quiet is armed for a notification and leaves the
 * list; a worker with an empty list sleeps in epoll.  Watched files are edge-triggered, so nobody
 * has to read a kick's counter, and an event that nobody wanted costs nothing but a look.
 *
 * Untrusted:  nothing here looks into packets.
 * Threads:    worker_run and worker_breathe: the worker's own thread.  worker_publish, worker_sync,
 *             worker_stop, counters and punts: the control thread, at any time.
 *             Grace: the breath.  Whoever publishes or unlinks takes a ticket (asked); the worker
 *             shows the newest ticket that it saw at the start of a breath (seen).  Once seen
 *             reaches the ticket, the worker has let go of everything older.
 */
#include "vswitch/core/worker.h"

#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

struct worker *worker_new(uint32_t index)
{
    if (index >= MAX_WORKERS)
        return NULL;
    struct worker *w = aligned_alloc(CACHE_LINE, sizeof(*w));
    if (!w)
        return NULL;
    memset(w, 0, sizeof(*w));
    w->forward.breath.worker = index;
    w->forward.breath.packets = w->packets;
    w->forward.breath.segs = w->segs;
    w->until_timed = TIMED_EVERY;
    w->epoll_fd = -1;
    w->control_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    w->punts = w->forward.breath.punts = punt_ring_new();
    if (w->control_fd < 0 || !w->punts) {
        worker_free(w);
        return NULL;
    }
    return w;
}

void worker_free(struct worker *w)
{
    if (!w)
        return;
    ASSERT(!load_acquire(&w->running));
    if (w->control_fd >= 0)
        close(w->control_fd);
    if (w->epoll_fd >= 0)
        close(w->epoll_fd);
    punt_ring_free(w->punts);
    free(w->active);
    free(w);
}

/* ---- adopting a snapshot */

static int watch(struct worker *w, int fd, void *what)
{
    struct epoll_event e = {.events = EPOLLIN | EPOLLET, .data.ptr = what};
    return epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, fd, &e);
}

/* Starts from an empty epoll: a queue that is no longer listed may be gone with its file already.
 * All queues begin on the poll list, so an edge lost in between is made up for. */
static void adopt(struct worker *w, const struct snapshot *s)
{
    const struct poll_list *list = s ? &s->polls[w->forward.breath.worker] : NULL;
    uint32_t count = list ? list->count : 0;

    if (count > w->active_room) {
        struct rxq **grown = realloc(w->active, count * sizeof(struct rxq *));
        ASSERT(grown); /* a few bytes per queue: without them nothing works */
        w->active = grown;
        w->active_room = count;
    }
    if (w->epoll_fd >= 0)
        close(w->epoll_fd);
    w->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    ASSERT(w->epoll_fd >= 0);
    watch(w, w->control_fd, NULL);
    for (uint32_t i = 0; i < count; i++) {
        struct rxq *q = list->rxqs[i];
        q->armed = false;
        q->quiet_since_ns = 0;
        if (!q->homed)
            worker_home(w, q);
        if (q->disarm)
            q->disarm(q);
        /* A file that can't be watched (a regular one, say) is polled. */
        q->sleeps = q->fd >= 0 && watch(w, q->fd, q) == 0;
        w->active[i] = q;
    }
    w->active_count = count;
    w->armed_count = w->quiet_count = 0;
    patience_init(&w->patience); /* what was delivered went to other ports */
    w->tick_ns = 0; /* a new MAC table is told the time before it learns */
    w->forward.snapshot = s;
}

static void look_at_control(struct worker *w)
{
    uint64_t asked = load_acquire(&w->asked); /* pairs with take_ticket */
    if (likely(asked == load_relaxed(&w->seen)))
        return;
    uint64_t published = load_acquire(&w->published_count); /* pairs with worker_publish */
    if (published != w->adopted_count) {
        adopt(w, load_acquire(&w->published)); /* pairs with worker_publish */
        w->adopted_count = published;
    }
    store_release(&w->seen, asked); /* pairs with worker_sync */
}

/* ---- the breath */

static void forget_active(struct worker *w, uint32_t i)
{
    w->active[i] = w->active[--w->active_count];
}

static void swap_queues(struct worker *w, uint32_t i, uint32_t k)
{
    struct rxq *q = w->active[i];
    w->active[i] = w->active[k];
    w->active[k] = q;
}

static void count_burst(struct rxq *q, uint32_t moved)
{
    counter_add(&q->counters.packets, moved);
    counter_add(&q->counters.bursts, 1);
}

/* What the last burst moved by itself. */
static uint32_t take_passed_on(struct worker *w)
{
    uint32_t passed_on = w->forward.breath.passed_on;
    w->forward.breath.passed_on = 0;
    return passed_on;
}

/* Looks at some of the quiet queues of a worker that never sleeps; those with packets join the
 * others, whose turn comes next.  The quiet ones stand behind the active ones, those that had their
 * look in this round before those that did not.  Returns the packets that a look moved. */
static uint32_t look_at_quiet(struct worker *w)
{
    struct packet *burst[BURST];
    uint32_t all = 0;
    uint32_t looks = min_u32(w->quiet_count, QUIET_LOOKS);
    for (uint32_t n = 0; n < looks; n++) {
        if (w->quiet_at >= w->quiet_count)
            w->quiet_at = 0;
        uint32_t i = w->active_count + w->quiet_at;
        struct rxq *q = w->active[i];
        uint32_t found = q->burst(q, &w->forward.breath, burst, 1);
        uint32_t passed_on = take_passed_on(w);
        if (found == 0 && passed_on == 0) {
            w->quiet_at++;
            continue;
        }
        if (passed_on > 0)
            count_burst(q, passed_on);
        all += passed_on;
        q->quiet_since_ns = 0;
        swap_queues(w, i, w->active_count++);
        w->quiet_count--;
    }
    return all;
}

/* Arms a queue that has been quiet for long enough, or puts it with the quiet ones; true when it
 * left the poll list. */
static bool rest_queue(struct worker *w, uint32_t i)
{
    struct rxq *q = w->active[i];
    uint64_t now_ns = w->forward.breath.now_ns;
    bool poll = w->forward.snapshot->idle == IDLE_POLL;
    if (!q->sleeps && !poll)
        return false;
    if (q->quiet_since_ns == 0)
        q->quiet_since_ns = now_ns;
    if (poll) {
        if (now_ns - q->quiet_since_ns < SPIN_NS)
            return false;
        swap_queues(w, i, --w->active_count);
        w->quiet_count++;
        w->quiet_at++;
        return true;
    }
    if (now_ns - q->quiet_since_ns < SPIN_NS && w->patience.way != PATIENCE_WAIT)
        return false;
    if (q->arm(q)) {
        q->disarm(q);
        return false;
    }
    q->armed = true;
    w->armed_count++;
    forget_active(w, i);
    return true;
}

/* A burst during which somebody else had the CPU says nothing about the queue. */
static void count_time(struct rxq *q, uint32_t moved, uint64_t cycles)
{
    if (cycles > TIMED_CYCLES_MAX)
        return;
    counter_add(&q->counters.timed_packets, moved);
    counter_add(&q->counters.timed_cycles, cycles);
}

/* Visits each queue on the poll list once.  timed: is a constant where this is called. */
static ALWAYS_INLINE uint32_t visit_queues(struct worker *w, bool timed)
{
    struct packet *burst[BURST];
    uint32_t all = 0;
    for (uint32_t i = 0; i < w->active_count;) {
        struct rxq *q = w->active[i];
        uint64_t before = timed ? cycles_now() : 0;
        uint32_t n = q->burst(q, &w->forward.breath, burst, BURST);
        uint32_t passed_on = take_passed_on(w);
        if (n > 0 || unlikely(passed_on > 0)) {
            q->quiet_since_ns = 0;
            uint32_t moved = passed_on;
            if (likely(n > 0))
                moved += forward_burst(&w->forward, q, burst, n);
            all += moved;
            count_burst(q, moved);
            if (timed)
                count_time(q, moved, cycles_now() - before);
        } else {
            counter_add(&q->counters.empty, 1);
            if (rest_queue(w, i))
                continue;
        }
        i++;
    }
    return all;
}

static uint32_t visit_queues_timed(struct worker *w)
{
    w->until_timed = TIMED_EVERY;
    return visit_queues(w, true);
}

/* Every so often: forget old MAC addresses, a slice at a time. */
static void tick(struct worker *w)
{
    const struct snapshot *s = w->forward.snapshot;
    for (uint32_t i = 0; s && i < s->bridges_count; i++)
        fdb_sweep(s->bridges[i].fdb, w->forward.breath.now_ns);
    w->tick_ns = w->forward.breath.now_ns + TICK_NS;
}

static uint32_t breathe(struct worker *w, uint64_t now_ns)
{
    w->forward.breath.now_ns = now_ns;
    look_at_control(w);
    if (unlikely(now_ns >= w->tick_ns))
        tick(w);
    uint32_t moved = w->quiet_count > 0 ? look_at_quiet(w) : 0;
    return moved + (unlikely(--w->until_timed == 0) ? visit_queues_timed(w)
                                                    : visit_queues(w, false));
}

/* ---- running */

uint32_t worker_breathe(struct worker *w, uint64_t now_ns)
{
    if (w->armed_count > 0)
        worker_look(w, 0);
    return breathe(w, now_ns);
}

static void account(struct worker *w, uint32_t moved, uint64_t cycles)
{
    counter_add(&w->counters.breaths, 1);
    if (moved > 0) {
        counter_add(&w->counters.busy_breaths, 1);
        counter_add(&w->counters.packets, moved);
        counter_add(&w->counters.cycles_busy, cycles);
    } else {
        counter_add(&w->counters.cycles_idle, cycles);
    }
}

int worker_run(struct worker *w)
{
    sigset_t all, old;
    sigfillset(&all);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    sigdelset(&all, SIGTRAP);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    prctl(PR_SET_TIMERSLACK, 1ul, 0ul, 0ul, 0ul); /* else a nap is half as long again */

    store_release(&w->running, 1); /* pairs with worker_sync */
    fence_full();                  /* running is seen before published is read: see worker_sync */
    add_relaxed(&w->asked, 1);     /* adopt what was published while we did not run */
    if (w->epoll_fd < 0)
        adopt(w, NULL);            /* nothing was: sleep until something is */
    uint64_t before = cycles_now();
    while (!load_acquire(&w->stop)) { /* pairs with worker_stop */
        uint32_t moved = breathe(w, clock_now_ns());
        uint64_t after = cycles_now();
        account(w, moved, after - before);
        before = worker_rest(w, moved, after);
    }
    store_release(&w->running, 0); /* pairs with worker_sync */
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return 0;
}
