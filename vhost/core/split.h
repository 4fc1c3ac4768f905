/* split.h - a split virtqueue: three areas, of which the driver writes two and we write one.
 *
 * used->idx alone says how far we are, so it also says where to go on after a restart.
 *
 * Untrusted:  see virtqueue.h.
 * Threads:    see virtqueue.h.
 * Source:     virtio 1.2, section 2.7.
 */
#ifndef VHOST_SPLIT_H
#define VHOST_SPLIT_H

#include "vhost/core/virtqueue.h"

/* Any chain; see virtq_chain(). */
enum virtq_found split_chain(struct virtq *q, uint16_t at, enum virtq_direction direction,
                             struct segment *segs, uint32_t max, struct virtq_buffers *out);

static inline struct virtq_desc split_desc_at(const uint8_t *p)
{
    uint64_t low = guest_load64(p), high = guest_load64(p + 8);
    return (struct virtq_desc){.addr = low,
                               .len = (uint32_t)high,
                               .flags = (uint16_t)(high >> 32),
                               .next = (uint16_t)(high >> 48)};
}

/* Chains made available and not given back; looks at the ring.  0 when it is broken now. */
static inline uint32_t split_available(struct virtq *q)
{
    q->avail_idx = load_acquire(&q->avail->idx); /* pairs with the driver's barrier, 2.7.13.3 */
    uint16_t count = (uint16_t)(q->avail_idx - q->next);
    if (unlikely(count > q->num)) {
        q->avail_idx = q->next;
        virtq_break(q, VIRTQ_AVAIL_JUMP);
        return 0;
    }
    return count;
}

/* Whether there is a chain at a position; looks at the ring only when those known are used up. */
static inline bool split_has(struct virtq *q, uint16_t at)
{
    return at != q->avail_idx || split_available(q) > (uint16_t)(at - q->next);
}

/* First descriptor of the chain at a position; may be out of range. */
static inline uint16_t split_head(const struct virtq *q, uint16_t at)
{
    return guest_load16(&q->avail->ring[at & q->mask]);
}

static inline const uint8_t *split_first(const struct virtq *q, uint16_t at)
{
    return q->desc + (uint32_t)(split_head(q, at) & q->mask) * VIRTQ_DESC_BYTES;
}

/* See virtq_run_ahead(). */
static inline void split_run_ahead(struct virtq *q, uint16_t at, bool to_write)
{
    uint16_t left = (uint16_t)(q->avail_idx - at), done = (uint16_t)(q->ahead - at);
    uint16_t wanted = left < VIRTQ_AHEAD ? left : VIRTQ_AHEAD;
    if (done > VIRTQ_AHEAD) /* what was asked for lies behind us */
        done = 0;
    for (; done < wanted; done++) {
        uint16_t i = (uint16_t)(at + done);
        if (done + VIRTQ_AHEAD < left)
            __builtin_prefetch(split_first(q, (uint16_t)(i + VIRTQ_AHEAD)));
        virtq_prefetch_at(q, guest_load64(split_first(q, i)), to_write);
    }
    q->ahead = (uint16_t)(at + done);
}

static inline uint8_t *split_single(struct virtq *q, uint16_t at, uint16_t flags, uint32_t *len,
                                    struct virtq_elem *elem, uint64_t *gpa)
{
    uint32_t part;
    uint16_t head = split_head(q, at);
    if (unlikely(head >= q->num))
        return NULL;
    struct virtq_desc d = split_desc_at(q->desc + (uint32_t)head * VIRTQ_DESC_BYTES);
    if (unlikely((d.flags & (VIRTQ_DESC_NEXT | VIRTQ_DESC_WRITE | VIRTQ_DESC_INDIRECT)) != flags))
        return NULL;
    uint8_t *base = mem_at(q->table, &q->hint, d.addr, d.len, &part);
    if (unlikely(base == NULL || part != d.len))
        return NULL;
    *elem = (struct virtq_elem){.id = head, .slots = 1};
    *len = d.len;
    *gpa = d.addr;
    return base;
}

static inline void split_put_used(struct virtq *q, struct virtq_elem elem, uint32_t written_bytes)
{
    struct virtq_used_elem used = {elem.id, written_bytes};
    memcpy(&q->used->ring[q->next & q->mask], &used, sizeof(used)); /* seen by nobody yet */
    q->next++;
}

/* Gives n chains back with one entry, at the place of the first: the id of the last says how many
 * they are (2.7.9). */
static inline void split_skip_used(struct virtq *q, struct virtq_elem last, uint32_t n)
{
    split_put_used(q, last, 0);
    q->next = (uint16_t)(q->next + n - 1);
}

static inline void split_publish(struct virtq *q)
{
    store_release(&q->used->idx, q->next); /* pairs with the driver's read barrier, 2.7.14 */
}

static inline bool split_wants_call(struct virtq *q)
{
    uint16_t old = q->signalled;
    fence_full(); /* publish, then look: 2.7.7.2 */
    q->signalled = q->next;
    if (!q->event_idx)
        return (guest_load16(&q->avail->flags) & 1) == 0;
    uint16_t event = guest_load16(&q->avail->ring[q->num]);
    return (uint16_t)(q->next - event - 1) < (uint16_t)(q->next - old);
}

#endif
