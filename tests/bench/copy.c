/* copy.c - what memcpy alone does with the frames of a phase.
 *
 * The same shape as run_phase(): one CPU writes the sources anew, then another copies them.
 *
 * Threads: the caller writes; a thread of its own, pinned to a CPU, copies; turn says whose it is.
 */
#define _GNU_SOURCE /* CPU_SET */
#include <pthread.h>
#include <sched.h>

#include "tests/bench/ring.h"

struct copier {
    const uint8_t *from;
    uint8_t *to;
    uint32_t stride_bytes;
    uint32_t bytes;
    uint32_t count;
    uint32_t phases;
    int32_t cpu;
    uint32_t turn;             /* even: the writer's; odd: the copier's */
    uint64_t *cycles;
};

static void await_turn(const struct copier *c, uint32_t turn)
{
    while (__atomic_load_n(&c->turn, __ATOMIC_ACQUIRE) != turn)
        _mm_pause();
}

static void *copy_frames(void *arg)
{
    struct copier *c = arg;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(c->cpu, &set);
    pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
    for (uint32_t phase = 0; phase < c->phases; phase++) {
        await_turn(c, 2 * phase + 1);
        uint64_t begun = tsc();
        for (uint32_t i = 0; i < c->count; i++)
            memcpy(c->to + (uint64_t)i * c->stride_bytes, c->from + (uint64_t)i * c->stride_bytes,
                   c->bytes);
        c->cycles[phase] = tsc() - begun;
        __atomic_store_n(&c->turn, 2 * phase + 2, __ATOMIC_RELEASE);
    }
    return NULL;
}

int32_t copy_phases(uint8_t *from, uint8_t *to, uint32_t stride_bytes, uint32_t bytes,
                    uint32_t count, int32_t cpu, uint32_t phases, uint64_t *cycles)
{
    struct copier c = {.from = from, .to = to, .stride_bytes = stride_bytes, .bytes = bytes,
                       .count = count, .phases = phases, .cpu = cpu, .cycles = cycles};
    pthread_t thread;
    int rc = pthread_create(&thread, NULL, copy_frames, &c);
    if (rc != 0)
        return -rc;
    for (uint32_t phase = 0; phase < phases; phase++) {
        for (uint32_t i = 0; i < count; i++)
            memset(from + (uint64_t)i * stride_bytes, (int)(phase + i), bytes);
        __atomic_store_n(&c.turn, 2 * phase + 1, __ATOMIC_RELEASE);
        await_turn(&c, 2 * phase + 2);
    }
    pthread_join(thread, NULL);
    return 0;
}
