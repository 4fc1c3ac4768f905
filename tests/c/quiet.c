/* quiet.c - a worker that never sleeps, and a queue whose bursts move everything by themselves, as
 * those of a mesh lane do that only passes records on: once it has something, it is polled as busy
 * ones are.
 */
#include "vswitch/core/worker.h"

#include <stdio.h>

enum { QUEUES = 20, QUIET_US = 300, ROUNDS = 100 };

struct lane {
    struct rxq rxq;
    uint32_t bursts;
    bool busy;
};

static uint32_t lane_burst(struct rxq *q, struct breath *b, struct packet **out, uint32_t max)
{
    struct lane *lane = CONTAINER_OF(q, struct lane, rxq);
    (void)out, (void)max;
    lane->bursts++;
    b->passed_on += lane->busy;
    return 0;
}

int main(void)
{
    static struct port port;
    static struct lane lanes[QUEUES];
    struct lane *busy = &lanes[QUEUES / 2];
    struct worker *w = worker_new(0);
    struct snapshot *s = snapshot_new(1);
    struct rxq_counters counters;
    uint64_t now_us = 1000 * 1000;
    uint32_t moved = 0, others = 0;

    snapshot_set_idle(s, IDLE_POLL);
    port_init(&port, 0);
    snapshot_add_port(s, &port, -1);
    for (uint32_t i = 0; i < QUEUES; i++) {
        lanes[i].rxq = (struct rxq){.burst = lane_burst, .port = &port, .fd = -1};
        snapshot_add_rxq(s, 0, &lanes[i].rxq);
    }
    worker_publish(w, s);
    for (uint32_t i = 0; i < 3; i++)
        worker_breathe(w, (now_us += QUIET_US) * NS_PER_US);
    for (uint32_t i = 0; i < QUEUES; i++)
        lanes[i].bursts = 0;
    busy->busy = true;
    for (uint32_t i = 0; i < ROUNDS; i++)
        moved += worker_breathe(w, ++now_us * NS_PER_US);
    for (uint32_t i = 0; i < QUEUES; i++) {
        rxq_counters_read(&lanes[i].rxq, &counters);
        others += &lanes[i] != busy && counters.packets > 0;
    }
    rxq_counters_read(&busy->rxq, &counters);
    printf("polled as busy: %d\n", busy->bursts >= ROUNDS - 3);
    printf("all counted: %d\n", counters.packets == busy->bursts && moved == busy->bursts);
    printf("others that moved: %u\n", others);

    worker_publish(w, NULL);
    worker_breathe(w, now_us * NS_PER_US);
    worker_free(w);
    snapshot_free(s);
    port_fini(&port);
    return 0;
}
