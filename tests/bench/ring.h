/* ring.h - driver's side of split and packed rings, as fast as a driver is.
 *
 * Threads: the one that drives all rings.
 * Source:  virtio 1.2, sections 2.7 and 2.8.
 */
#ifndef BENCH_RING_H
#define BENCH_RING_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <x86intrin.h>

#include "tests/bench/abi.h"

#define likely(x) __builtin_expect(!!(x), 1)

enum {
    DESC_NEXT = 1,
    DESC_WRITE = 2,
    DESC_BYTES = 16,
    PACKED_AVAIL = 1 << 7,
    PACKED_USED = 1 << 15,
    VNET_BYTES = 12,           /* virtio-net header with num_buffers */
    HEAD_PIECE_BYTES = 256     /* first descriptor of a frame in several */
};

#define PATIENCE_CYCLES 600000000ull

/* What the device gave back. */
struct used {
    uint32_t place;            /* buffer */
    uint32_t len_bytes;
};

static inline uint64_t tsc(void)
{
    return __builtin_ia32_rdtsc();
}

static inline uint8_t *ring_buffer(const struct ring *r, uint32_t place)
{
    return r->buffers + (uint64_t)place * r->stride_bytes;
}

/* Offers len_bytes of the buffer at place, in the ring's number of pieces; seen by the device after
 * ring_publish(). */
void ring_add(struct ring *r, uint32_t place, uint32_t len_bytes, bool write);
/* Makes what was added visible, and kicks when the device wants that. */
void ring_publish(struct ring *r);
/* Whether so many buffers came back beyond those taken; count > 0. */
bool ring_has(const struct ring *r, uint32_t count);
/* The next buffer that came back; false when there is none. */
bool ring_take(struct ring *r, struct used *out);

/* ---- frames.c */

/* Writes virtio-net header and frame into a buffer. */
void frame_write(struct traffic *t, uint8_t *buffer);
/* Writes what stays the same in all frames. */
void frame_begin(const struct traffic *t, uint8_t *buffer);
uint32_t frame_sequence(const struct traffic *t, const uint8_t *buffer);

#endif
