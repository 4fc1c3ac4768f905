/* naps.c - a worker on a CPU that somebody else always wants: how it meets a stream, and two guests
 * that answer each other.  Clock, scheduler and epoll are ours.
 */
#define _GNU_SOURCE /* epoll_pwait2 */
#include "vswitch/core/worker.h"

#include <sched.h>
#include <stdio.h>
#include <sys/epoll.h>

enum { TURN_NS = 3 * 1000 * 1000, BREATH_NS = 300, ANSWER_NS = 20 * 1000, GUESTS = 2 };

struct guest {
    struct rxq rxq;
    uint64_t ready_ns;             /* when its next packet is there */
    struct guest *other;
    bool answers;
};

static uint64_t time_ns;
static uint32_t naps;

int clock_gettime(clockid_t clock, struct timespec *t)
{
    (void)clock;
    *t = (struct timespec){(time_t)(time_ns / NS_PER_S), (long)(time_ns % NS_PER_S)};
    return 0;
}

int sched_yield(void)
{
    time_ns += TURN_NS;
    return 0;
}

int epoll_pwait2(int fd, struct epoll_event *events, int max, const struct timespec *timeout,
                 const sigset_t *mask)
{
    (void)fd, (void)events, (void)max, (void)mask;
    naps += timeout->tv_nsec > 0;
    time_ns += (uint64_t)timeout->tv_nsec;
    return 0;
}

static uint32_t burst(struct rxq *q, struct breath *b, struct packet **out, uint32_t max)
{
    struct guest *guest = CONTAINER_OF(q, struct guest, rxq);
    (void)out, (void)max;
    if (time_ns < guest->ready_ns)
        return 0;
    guest->ready_ns = guest->answers ? UINT64_MAX : time_ns + ANSWER_NS;
    if (guest->answers)
        guest->other->ready_ns = time_ns + ANSWER_NS;
    b->passed_on++;
    return 0;
}

/* Naps in a second. */
static uint32_t naps_of(bool answers)
{
    static struct port port;
    struct guest guests[GUESTS] = {{.answers = answers}, {.answers = answers}};
    struct worker *w = worker_new(0);
    struct snapshot *s = snapshot_new(1);
    uint64_t end_ns;

    naps = 0;
    time_ns = 10 * NS_PER_S;
    end_ns = time_ns + NS_PER_S;
    port_init(&port, 0);
    snapshot_add_port(s, &port, -1);
    for (uint32_t i = 0; i < GUESTS; i++) {
        guests[i].rxq = (struct rxq){.burst = burst, .port = &port, .fd = -1};
        guests[i].other = &guests[!i];
        guests[i].ready_ns = answers && i > 0 ? UINT64_MAX : 0;
        snapshot_add_rxq(s, 0, &guests[i].rxq);
    }
    worker_publish(w, s);
    while (time_ns < end_ns) {
        uint32_t moved = worker_breathe(w, time_ns);
        time_ns += BREATH_NS;
        worker_rest(w, moved, 0);
    }
    worker_publish(w, NULL);
    worker_breathe(w, time_ns);
    worker_free(w);
    snapshot_free(s);
    port_fini(&port);
    return naps;
}

int main(void)
{
    uint32_t most = NS_PER_S / PATIENCE_NAP_NS, stream = naps_of(false), answers = naps_of(true);
    printf("a stream is met in naps: %d\n", stream > most / 2 && stream <= most);
    printf("naps are tried on who answers: %d\n", answers >= PATIENCE_TRIAL);
    printf("ever less often: %d\n", answers <= 10 * PATIENCE_TRIAL);
    return 0;
}
