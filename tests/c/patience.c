/* patience.c - how a worker tells who wants its CPU, with a clock and scheduler of our own.
 */
#include "vswitch/core/patience.h"

#include <sched.h>
#include <stdio.h>

static uint64_t time_ns = 10 * NS_PER_S, turn_ns; /* what the next yield takes */

int clock_gettime(clockid_t clock, struct timespec *t)
{
    (void)clock;
    *t = (struct timespec){(time_t)(time_ns / NS_PER_S), (long)(time_ns % NS_PER_S)};
    return 0;
}

int sched_yield(void)
{
    time_ns += turn_ns;
    return 0;
}

/* 20 ms of breaths, each breath_ns long and followed by a yield; says whether polling stopped. */
static bool stops(uint64_t breath_ns, const uint64_t *turns_ns, uint32_t count)
{
    struct patience p = {0};
    bool out = false;
    uint64_t end_ns = time_ns + 20 * NS_PER_MS;
    for (uint32_t i = 0; time_ns < end_ns; i++) {
        time_ns += breath_ns;
        turn_ns = turns_ns[i % count];
        patience_yield(&p);
        out = out || patience_way(&p, time_ns) != PATIENCE_POLL;
    }
    return out;
}

int main(void)
{
    const uint64_t alone[] = {400}, ready[] = {3000000};
    const uint64_t answers[] = {20000, 400, 400, 400, 400, 400, 400,
                                400,   400, 400, 400, 400, 400, 400};
    printf("idle and alone: %d\n", stops(300, alone, 1));
    printf("many queues: %d\n", stops(20000, alone, 1));
    printf("busy but for moments: %d\n", stops(60000, alone, 1));
    printf("a guest that answers: %d\n", stops(300, answers, 14));
    printf("a guest that is always ready: %d\n", stops(300, ready, 1));
    return 0;
}
