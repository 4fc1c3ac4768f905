/* vhost_changes.h - a guest that changes its memory while it is read (double fetch), in two ways.
 *
 * The compiler calls us before every load (-fsanitize-coverage=trace-loads), so a change can be
 * made right before the n-th load of guest memory: the same every time, wherever the input says.
 * And a second thread does what nobody thought of.
 */
#ifndef VHOST_CHANGES_H
#define VHOST_CHANGES_H

#include <pthread.h>
#include <sched.h>

#include "tests/fuzz/vhost_guest.h"

/* A change that is to come; n == 0: none. */
struct change {
    uint32_t n;              /* loads of guest memory until then */
    uint8_t bits;            /* to turn over; 0: those that say whose turn a descriptor is */
    uint8_t at;              /* byte of what is loaded */
};

static struct change changes[4];
static uint32_t mutating, mutations;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;

UNTRACED static void before_load(uint8_t *at, uint32_t bytes)
{
    if (changes[0].n == 0 || !is_inside(at, bytes) || --changes[0].n > 0)
        return;
    if (changes[0].bits != 0) {
        at[changes[0].at % bytes] ^= changes[0].bits;
    } else if (bytes == 8) { /* the second half of a descriptor */
        at[6] ^= PACKED_AVAIL;
        at[7] ^= PACKED_USED >> 8;
    }
    memmove(changes, changes + 1, sizeof(changes) - sizeof(changes[0]));
    changes[ARRAY_LEN(changes) - 1].n = 0;
}

#define BEFORE_LOAD(bytes, type)                                                              \
    void __sanitizer_cov_load##bytes(type *at);                                               \
    UNTRACED void __sanitizer_cov_load##bytes(type *at) { before_load((uint8_t *)at, bytes); }

BEFORE_LOAD(1, uint8_t)
BEFORE_LOAD(2, uint16_t)
BEFORE_LOAD(4, uint32_t)
BEFORE_LOAD(8, uint64_t)
BEFORE_LOAD(16, __int128)

static void change_later(uint8_t bits, uint8_t at, uint8_t n)
{
    for (uint32_t i = 0; i < ARRAY_LEN(changes); i++)
        if (changes[i].n == 0) {
            changes[i] = (struct change){.n = n + 1u, .bits = bits, .at = at};
            return;
        }
}

/* The other CPU of the guest: turns bytes of rings and headers over, in no order; mostly those that
 * decide, among them whose turn a descriptor of a packed ring is. */
static void *mutate(void *arg)
{
    uint32_t seed = 1;
    (void)arg;
    for (;;) {
        if (!load_acquire(&mutating)) { /* pairs with thread_begin */
            pthread_mutex_lock(&lock);
            while (!load_relaxed(&mutating))
                pthread_cond_wait(&wake, &lock);
            pthread_mutex_unlock(&lock);
        }
        seed = seed * 1664525 + 1013904223;
        uint32_t random = seed >> 8;
        uint8_t *at = &first->base[random % MUTATED_BYTES];
        if (random & 1 << 20) {
            const struct ring *r = &rings[random % RINGS];
            at = r->part[DESC] + random / RINGS % r->num * VIRTQ_DESC_BYTES + 12 + (seed >> 30);
        }
        if (!is_inside(at, 1)) /* of two layouts at once: the next run has begun */
            continue;
        store_relaxed(at, random & 1 << 21 ? load_relaxed(at) ^ 0x80 : (uint8_t)(seed >> 24));
        store_relaxed(&mutations, mutations + 1);
    }
    return NULL;
}

static void thread_begin(void)
{
    pthread_mutex_lock(&lock);
    store_release(&mutating, 1); /* pairs with mutate */
    pthread_cond_signal(&wake);
    pthread_mutex_unlock(&lock);
}

static void thread_start(void)
{
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, mutate, NULL) == 0);
}

static void thread_end(void)
{
    store_release(&mutating, 0); /* pairs with mutate */
}

#endif
