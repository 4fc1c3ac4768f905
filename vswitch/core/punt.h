/* punt.h - what a worker hands up to Python: a ring of fixed slots and an eventfd.
 *
 * Untrusted:  the data inside a slot, which strangers may have sent; its length is bounded.
 * Threads:    punt_put: the worker that owns the ring.  punt_next, punt_ring_new and _free: the
 *             control thread.  head is written by the reader, tail by the writer.
 */
#ifndef VSW_PUNT_H
#define VSW_PUNT_H

#include "vswitch/core/port.h"

enum { PUNT_SLOTS = 256 };

struct punt_ring {
    int fd;                        /* eventfd, non-blocking: readable after a put */
    CACHE_ALIGNED uint32_t tail;   /* next slot to write */
    CACHE_ALIGNED uint32_t head;   /* next slot to read */
    struct punt slots[PUNT_SLOTS];
};

struct punt_ring *punt_ring_new(void);
void punt_ring_free(struct punt_ring *r);
/* The oldest punt; false when there is none. */
bool punt_next(struct punt_ring *r, struct punt *out);

#endif
