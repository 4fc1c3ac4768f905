/* ways.c - a worker on a CPU that others want: which way it finds for which traffic.  Clock,
 * scheduler and epoll are ours.
 */
#define _GNU_SOURCE /* epoll_pwait2 */
#include "vswitch/core/worker.h"

#include <sched.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { BREATH_NS = 300, SEND_NS = 20 * 1000, PACKET_BYTES = 1000, GUESTS = 2,
       BURST_NS = 60 * 1000 * 1000, BURST_GAP_NS = 1000 * 1000 * 1000, BURSTS = 12 };

struct traffic {
    uint64_t turn_ns;              /* that a yield gives to others */
    uint64_t wake_ns;              /* that a kick and its wake take */
    uint64_t disturbed_ns;         /* that a sender loses when its packets are taken */
    uint32_t window;               /* packets that it sends until then */
    bool answers;                  /* each sends when it got one */
};

static const struct traffic
    stream = {.turn_ns = 3 * NS_PER_MS, .disturbed_ns = 30 * 1000, .window = 64},
    small_window = {.turn_ns = 3 * NS_PER_MS, .disturbed_ns = 30 * 1000, .window = 4},
    answers_beside_work = {.turn_ns = 3 * NS_PER_MS, .window = 1, .answers = true},
    answers = {.turn_ns = 5 * 1000, .wake_ns = 30 * 1000, .window = 1, .answers = true};

struct guest {
    struct rxq rxq;
    uint64_t ready_ns;             /* when its next packet is there */
    struct guest *other;
};

/* What was done in a time. */
struct found {
    uint32_t waits, polls, short_naps, long_naps;
};

static uint64_t time_ns = 10 * NS_PER_S;
static const struct traffic *traffic;
static struct port port;
static struct guest guests[GUESTS];
static struct found found;

int clock_gettime(clockid_t clock, struct timespec *t)
{
    (void)clock;
    *t = (struct timespec){(time_t)(time_ns / NS_PER_S), (long)(time_ns % NS_PER_S)};
    return 0;
}

int sched_yield(void)
{
    time_ns += traffic->turn_ns;
    found.polls++;
    return 0;
}

int epoll_pwait2(int fd, struct epoll_event *events, int max, const struct timespec *timeout,
                 const sigset_t *mask)
{
    uint64_t asked_ns = (uint64_t)timeout->tv_sec * NS_PER_S + (uint64_t)timeout->tv_nsec;
    struct guest *first = NULL;
    (void)fd, (void)max, (void)mask;
    found.short_naps += asked_ns == PATIENCE_SHORT_NAP_NS;
    found.long_naps += asked_ns == PATIENCE_LONG_NAP_NS;
    found.waits += asked_ns == SLEEP_NS;
    for (uint32_t i = 0; i < GUESTS; i++) {
        if (guests[i].rxq.armed && (!first || guests[i].ready_ns < first->ready_ns))
            first = &guests[i];
    }
    if (!first || first->ready_ns > time_ns + asked_ns) {
        time_ns += asked_ns;
        return 0;
    }
    if (first->ready_ns > time_ns)
        time_ns = first->ready_ns;
    time_ns += traffic->wake_ns;
    events[0].data.ptr = &first->rxq;
    return 1;
}

static bool arm(struct rxq *q)
{
    return CONTAINER_OF(q, struct guest, rxq)->ready_ns <= time_ns;
}

static void disarm(struct rxq *q)
{
    (void)q;
}

static uint32_t burst(struct rxq *q, struct breath *b, struct packet **out, uint32_t max)
{
    struct guest *g = CONTAINER_OF(q, struct guest, rxq);
    (void)out, (void)max;
    if (time_ns < g->ready_ns)
        return 0;
    uint64_t sent = 1 + (time_ns - g->ready_ns) / SEND_NS;
    uint32_t n = sent < traffic->window ? (uint32_t)sent : traffic->window;
    g->ready_ns = traffic->answers ? UINT64_MAX : time_ns + traffic->disturbed_ns + SEND_NS;
    if (traffic->answers)
        g->other->ready_ns = time_ns + SEND_NS;
    counter_add(&port_counters(&port, b)->tx_bytes, (uint64_t)n * PACKET_BYTES);
    b->passed_on += n;
    return 0;
}

static void begin(const struct traffic *t)
{
    traffic = t;
    for (uint32_t i = 0; i < GUESTS; i++)
        guests[i].ready_ns = t->answers && i > 0 ? UINT64_MAX : time_ns;
}

static void stop(void)
{
    for (uint32_t i = 0; i < GUESTS; i++)
        guests[i].ready_ns = UINT64_MAX;
}

static struct found run_for(struct worker *w, uint64_t duration_ns)
{
    uint64_t end_ns = time_ns + duration_ns;
    found = (struct found){0};
    while (time_ns < end_ns) {
        uint32_t moved = worker_breathe(w, time_ns);
        time_ns += BREATH_NS;
        worker_rest(w, moved, 0);
    }
    return found;
}

/* Of some bursts, how many were met in long naps. */
static uint32_t bursts_settled(struct worker *w)
{
    uint32_t settled = 0, naps = BURST_NS / PATIENCE_LONG_NAP_NS;
    for (uint32_t i = 0; i < BURSTS; i++) {
        stop();
        run_for(w, BURST_GAP_NS);
        begin(&stream);
        settled += run_for(w, BURST_NS).long_naps > naps * 8 / 10;
    }
    return settled;
}

int main(void)
{
    struct worker *w = worker_new(0);
    struct snapshot *s = snapshot_new(1);
    port_init(&port, 0);
    snapshot_add_port(s, &port, -1);
    for (uint32_t i = 0; i < GUESTS; i++) {
        struct guest *g = &guests[i];
        g->rxq = (struct rxq){.burst = burst, .arm = arm, .disarm = disarm, .port = &port};
        g->rxq.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        g->other = &guests[!i];
        snapshot_add_rxq(s, 0, &g->rxq);
    }
    worker_publish(w, s);

    begin(&stream);
    run_for(w, NS_PER_S);
    struct found f = run_for(w, NS_PER_S);
    uint32_t naps = NS_PER_S / PATIENCE_LONG_NAP_NS;
    printf("a stream is met in long naps: %d\n", f.long_naps > naps * 8 / 10 && f.short_naps == 0);

    begin(&small_window);
    run_for(w, NS_PER_S);
    f = run_for(w, NS_PER_S);
    naps = NS_PER_S / PATIENCE_SHORT_NAP_NS;
    printf("one of a small window in short ones: %d\n",
           f.short_naps > naps * 8 / 10 && f.long_naps == 0);

    begin(&answers_beside_work);
    run_for(w, NS_PER_S);
    f = run_for(w, NS_PER_S);
    printf("beside work, who answers is waited for: %d\n",
           f.waits > NS_PER_S / SEND_NS / 2 && f.short_naps + f.long_naps == 0);

    begin(&answers);
    run_for(w, NS_PER_S);
    f = run_for(w, NS_PER_S);
    printf("where that takes long, it is polled for: %d\n",
           f.polls > NS_PER_S / SEND_NS && f.short_naps + f.long_naps + f.waits == 0);

    f = run_for(w, 5 * PATIENCE_VERDICT_S * NS_PER_S);
    naps = 2 * (uint32_t)(PATIENCE_PERIOD_NS / PATIENCE_SHORT_NAP_NS);
    printf("now and then all are tried: %d\n",
           f.short_naps >= 4 * naps && f.short_naps <= 6 * naps && f.long_naps > 0);

    printf("bursts find their way, too: %d\n", bursts_settled(w) >= BURSTS / 4);

    worker_publish(w, NULL);
    worker_breathe(w, time_ns);
    worker_free(w);
    snapshot_free(s);
    for (uint32_t i = 0; i < GUESTS; i++)
        close(guests[i].rxq.fd);
    port_fini(&port);
    return 0;
}
