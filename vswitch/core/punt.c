/* punt.c - single-producer, single-consumer ring from a worker to the control thread.
 *
 * Untrusted, Threads: see punt.h.
 */
#include "vswitch/core/punt.h"

#include <sys/eventfd.h>
#include <unistd.h>

struct punt_ring *punt_ring_new(void)
{
    struct punt_ring *r = aligned_alloc(CACHE_LINE, sizeof(*r));
    if (!r)
        return NULL;
    memset(r, 0, sizeof(*r));
    r->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (r->fd < 0) {
        free(r);
        return NULL;
    }
    return r;
}

void punt_ring_free(struct punt_ring *r)
{
    if (!r)
        return;
    close(r->fd);
    free(r);
}

bool punt_put(struct punt_ring *r, const struct punt *head, const void *data, uint32_t len_bytes)
{
    uint32_t tail = load_relaxed(&r->tail);
    /* load_acquire pairs with punt_next */
    if (len_bytes > PUNT_BYTES || tail - load_acquire(&r->head) == PUNT_SLOTS)
        return false;
    struct punt *slot = &r->slots[tail % PUNT_SLOTS];
    memcpy(slot, head, offsetof(struct punt, data));
    slot->len_bytes = (uint16_t)len_bytes;
    if (len_bytes > 0)
        memcpy(slot->data, data, len_bytes);
    store_release(&r->tail, tail + 1); /* pairs with punt_next */
    uint64_t one = 1;
    /* Fails only when the counter is full, and then the reader is being told already. */
    if (write(r->fd, &one, sizeof(one)) < 0)
        return true;
    return true;
}

bool punt_next(struct punt_ring *r, struct punt *out)
{
    uint32_t head = load_relaxed(&r->head);
    if (load_acquire(&r->tail) == head) { /* pairs with punt_put */
        uint64_t count;
        /* Clear first, look again: a put between the two makes the fd readable anew. */
        if (read(r->fd, &count, sizeof(count)) < 0 || load_acquire(&r->tail) == head)
            return false;
    }
    const struct punt *slot = &r->slots[head % PUNT_SLOTS];
    memcpy(out, slot, offsetof(struct punt, data) + slot->len_bytes);
    store_release(&r->head, head + 1); /* pairs with punt_put */
    return true;
}
