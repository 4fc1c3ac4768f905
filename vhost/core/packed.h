/* packed.h - a packed virtqueue: one area of descriptors that both sides write.
 *
 * A descriptor is available when its AVAIL bit is the wrap counter of the driver's round and its
 * USED bit is not; used when both are the counter (2.8.1).  Its second half (length, id, flags) is
 * one word here, read and written in one piece.
 *
 * Nothing in guest memory says how far we are, so that is kept in a struct vhost_ring_state, which
 * may be a mapped file that outlives us.  It is also where a batch of used chains is gathered:
 *
 *     packed_put_used()   appends to it; nobody sees that
 *     packed_publish()    count := n      from here on the batch is finished whatever happens
 *                         ring := batch   the first one's flags last: all of it or nothing is seen
 *                         last, position := behind the batch;  count := 0
 *
 * Untrusted:  see virtqueue.h.  The state is ours; what a file holds is checked once, when
 *             the ring starts.
 * Threads:    see virtqueue.h.
 * Source:     virtio 1.2, section 2.8.
 */
#ifndef VHOST_PACKED_H
#define VHOST_PACKED_H

#include "vhost/core/virtqueue.h"

enum {
    PACKED_AVAIL = 1 << 7,
    PACKED_USED = 1 << 15,
    PACKED_WRAP = 1 << 15,         /* of a position */
    PACKED_SLOT = PACKED_WRAP - 1
};

/* Event suppression structures, 2.8.10: a position in the lower half, flags in the upper. */
enum { EVENT_ENABLE = 0, EVENT_DISABLE = 1, EVENT_AT = 2, EVENT_FLAGS = 3, EVENT_FLAGS_SHIFT = 16 };

_Static_assert(offsetof(struct vhost_used, flags) == 6 && sizeof(struct vhost_used) == 12,
               "the first eight bytes are a descriptor's second half");

/* Any chain; see virtq_chain(). */
enum virtq_found packed_chain(struct virtq *q, uint16_t at, enum virtq_direction direction,
                              struct segment *segs, uint32_t max, struct virtq_buffers *out);
/* Begins at q->next. */
void packed_begin(struct virtq *q);
/* Takes up what the state says, finishing a batch that was begun; false when it does not fit the
 * ring in memory.  told: see struct vhost_ring. */
bool packed_resume(struct virtq *q, uint32_t told);

static inline uint8_t *packed_desc(const struct virtq *q, uint16_t at)
{
    return q->desc + (size_t)(at & PACKED_SLOT) * VIRTQ_DESC_BYTES;
}

/* AVAIL and USED of a descriptor that is available, or used, in the round of this position. */
static inline uint16_t packed_available_bits(uint16_t at)
{
    return at & PACKED_WRAP ? PACKED_AVAIL : PACKED_USED;
}

static inline uint16_t packed_used_bits(uint16_t at)
{
    return at & PACKED_WRAP ? PACKED_AVAIL | PACKED_USED : 0;
}

static inline uint16_t packed_after(const struct virtq *q, uint16_t at, uint32_t slots)
{
    uint32_t slot = (at & PACKED_SLOT) + slots;
    uint16_t wrap = at & PACKED_WRAP;
    if (slot >= q->num) {
        slot -= q->num;
        wrap ^= PACKED_WRAP;
    }
    return (uint16_t)(slot | wrap);
}

static inline uint32_t packed_between(const struct virtq *q, uint16_t from, uint16_t to)
{
    return (uint32_t)((to & PACKED_SLOT) - (from & PACKED_SLOT)) +
           ((to ^ from) & PACKED_WRAP ? q->num : 0u);
}

/* The second half before the first: what it says about the descriptor's being available covers all
 * that the driver wrote before. */
static inline struct virtq_desc packed_desc_at(const uint8_t *p)
{
    uint64_t high = load_acquire((const uint64_t *)(const void *)(p + 8)); /* pairs with the
                                                      driver's barrier before the flags, 2.8.21.1 */
    return (struct virtq_desc){.addr = guest_load64(p),
                               .len = (uint32_t)high,
                               .next = (uint16_t)(high >> 32),
                               .flags = (uint16_t)(high >> 48)};
}

static inline bool packed_has(const struct virtq *q, uint16_t at)
{
    uint16_t flags = load_acquire((const uint16_t *)(const void *)(packed_desc(q, at) + 14));
    /* pairs with the driver's barrier before the flags, 2.8.21.1 */
    return (flags & (PACKED_AVAIL | PACKED_USED)) == packed_available_bits(at);
}

/* See virtq_run_ahead(). */
static inline void packed_run_ahead(struct virtq *q, uint16_t at, bool to_write)
{
    uint32_t slot = at & PACKED_SLOT, num = q->num;
    uint32_t done = q->ahead >= slot ? q->ahead - slot : q->ahead + num - slot;
    uint32_t wanted = min_u32(VIRTQ_AHEAD, num);
    if (done > VIRTQ_AHEAD) /* what was asked for lies behind us */
        done = 0;
    for (; done < wanted; done++) {
        uint16_t i = packed_after(q, at, done);
        if (!packed_has(q, i))
            break;
        __builtin_prefetch(packed_desc(q, i) + VIRTQ_AHEAD * VIRTQ_DESC_BYTES);
        virtq_prefetch_at(q, guest_load64(packed_desc(q, i)), to_write);
    }
    q->ahead = packed_after(q, at, done) & PACKED_SLOT;
}

static inline uint8_t *packed_single(struct virtq *q, uint16_t at, uint16_t flags, uint32_t *len,
                                     struct virtq_elem *elem, uint64_t *gpa)
{
    uint32_t part;
    struct virtq_desc d = packed_desc_at(packed_desc(q, at));
    uint16_t mask = PACKED_AVAIL | PACKED_USED | VIRTQ_DESC_NEXT | VIRTQ_DESC_WRITE |
                    VIRTQ_DESC_INDIRECT;
    if (unlikely((d.flags & mask) != (flags | packed_available_bits(at))))
        return NULL;
    uint8_t *base = mem_at(q->table, &q->hint, d.addr, d.len, &part);
    if (unlikely(base == NULL || part != d.len))
        return NULL;
    *elem = (struct virtq_elem){.id = d.next, .slots = 1};
    *len = d.len;
    *gpa = d.addr;
    return base;
}

/* written: WRITE when the buffers were written to, else 0; the length counts only with it. */
static inline void packed_put_used(struct virtq *q, struct virtq_elem elem, uint32_t written_bytes,
                                   uint16_t written)
{
    ASSERT(q->pending < VHOST_STATE_USED);
    q->state->used[q->pending++] =
        (struct vhost_used){.len = written_bytes,
                            .id = elem.id,
                            .flags = (uint16_t)(packed_used_bits(q->next) | written),
                            .slot = q->next};
    q->next = packed_after(q, q->next, elem.slots);
}

static inline void packed_write(const struct virtq *q, const struct vhost_used *used)
{
    uint64_t half;
    memcpy(&half, used, sizeof(half));
    /* pairs with the driver's barrier behind the flags, 2.8.21.3 */
    store_release((uint64_t *)(void *)(packed_desc(q, used->slot) + 8), half);
}

static inline void packed_write_batch(const struct virtq *q, uint32_t count)
{
    const struct vhost_used *used = q->state->used;
    for (uint32_t i = 1; i < count; i++)
        packed_write(q, &used[i]);
    packed_write(q, &used[0]);
}

static inline void packed_publish(struct virtq *q)
{
    struct vhost_ring_state *s = q->state;
    uint32_t count = q->pending;
    if (unlikely(count == 0))
        return;
    uint32_t slots = packed_between(q, s->position, q->next);
    store_relaxed(&s->next_position, q->next);
    store_release(&s->count, count); /* pairs with packed_resume, maybe of another process */
    packed_write_batch(q, count);
    store_release(&s->last, s->used[count - 1].slot); /* likewise, as the two that follow */
    store_release(&s->position, q->next);
    store_release(&s->count, 0);
    q->pending = 0;
    q->unsignalled += slots;
}

static inline bool packed_wants_call(struct virtq *q)
{
    uint32_t slots = q->unsignalled;
    fence_full(); /* publish, then look: 2.8.10 */
    q->unsignalled = 0;
    uint32_t event = guest_load32(q->driver_event);
    uint32_t flags = event >> EVENT_FLAGS_SHIFT & EVENT_FLAGS;
    if (!q->event_idx || flags != EVENT_AT)
        return flags != EVENT_DISABLE;
    if (slots >= q->num)
        return true;
    uint16_t at = event & PACKED_SLOT, next = q->next & PACKED_SLOT;
    if ((event ^ q->next) & PACKED_WRAP)
        at = (uint16_t)(at - q->num); /* asked for in the round before */
    return (uint16_t)(next - at - 1) < slots;
}

#endif
