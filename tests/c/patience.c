/* patience.c - how a worker tells who wants its CPU, with a clock and scheduler of our own.
 */
#include "vswitch/core/patience.h"

#include <sched.h>
#include <stdio.h>

static uint64_t time_ns = 10 * NS_PER_S, turn_ns; /* what the next yield takes */
static uint32_t yields;

int clock_gettime(clockid_t clock, struct timespec *t)
{
    (void)clock;
    *t = (struct timespec){(time_t)(time_ns / NS_PER_S), (long)(time_ns % NS_PER_S)};
    return 0;
}

int sched_yield(void)
{
    time_ns += turn_ns;
    yields++;
    return 0;
}

/* 20 ms of breaths, each breath_ns long and followed by a yield; says whether polling stopped. */
static bool stops(uint64_t breath_ns, const uint64_t *turns_ns, uint32_t count)
{
    struct patience p;
    bool out = false;
    uint64_t end_ns = time_ns + 20 * NS_PER_MS;
    patience_init(&p);
    for (uint32_t i = 0; time_ns < end_ns; i++) {
        time_ns += breath_ns;
        turn_ns = turns_ns[i % count];
        patience_yield(&p);
        out = out || patience_due(&p, time_ns);
    }
    return out;
}

/* How often a worker yields in a millisecond of idle breaths, 100 ns each. */
static uint32_t yields_of(uint64_t each_turn_ns)
{
    struct patience p;
    uint64_t end_ns = time_ns + NS_PER_MS;
    patience_init(&p);
    yields = 0;
    turn_ns = each_turn_ns;
    while (time_ns < end_ns) {
        uint64_t before_ns = time_ns;
        time_ns += 100;
        patience_rest(&p, before_ns);
    }
    return yields;
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

    uint32_t rare = yields_of(400), at_once = yields_of(20000);
    printf("alone it yields now and then: %d\n",
           rare >= 150 && rare <= NS_PER_MS / PATIENCE_AGAIN_NS);
    printf("beside others in every breath: %d\n", at_once == (NS_PER_MS + 20099) / 20100);
    return 0;
}
