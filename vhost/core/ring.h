/* ring.h - one set of functions for rings of either layout.
 *
 * Each takes the ring's kind.  Where it counts, that is a constant: a caller writes its body once
 * as an always-inlined function of the kind, instantiates it for each kind, and chooses when
 * the ring starts.  Elsewhere it is q->kind.
 *
 * Untrusted:  see virtqueue.h.
 * Threads:    see virtqueue.h.
 */
#ifndef VHOST_RING_H
#define VHOST_RING_H

#include "vhost/core/packed.h"
#include "vhost/core/split.h"

#define EACH_KIND static inline __attribute__((always_inline))

/* Most chains from a position on that can be had without waiting for more than the first. */
EACH_KIND uint32_t virtq_at_most(struct virtq *q, uint32_t kind, uint32_t max)
{
    if (kind & VIRTQ_PACKED)
        return packed_has(q, q->next) ? min_u32(max, q->num) : 0;
    return min_u32(split_available(q), max);
}

/* The only buffer of a chain of one descriptor that lies in one piece, the usual case; NULL when
 * the chain is anything else, also when it is wrong or, in a packed ring, not there. */
EACH_KIND uint8_t *virtq_single(struct virtq *q, uint32_t kind, uint16_t at, uint16_t flags,
                                uint32_t *len, struct virtq_elem *elem, uint64_t *gpa)
{
    return kind & VIRTQ_PACKED ? packed_single(q, at, flags, len, elem, gpa)
                               : split_single(q, at, flags, len, elem, gpa);
}

/* The buffers of the chain at a position, if there is one and it did not break the queue. */
EACH_KIND enum virtq_found virtq_chain(struct virtq *q, uint32_t kind, uint16_t at,
                                       enum virtq_direction direction, struct segment *segs,
                                       uint32_t max, struct virtq_buffers *out)
{
    return kind & VIRTQ_PACKED ? packed_chain(q, at, direction, segs, max, out)
                               : split_chain(q, at, direction, segs, max, out);
}

/* As virtq_chain() for writing, and faster for the usual case: one buffer in one piece. */
EACH_KIND enum virtq_found virtq_room(struct virtq *q, uint32_t kind, uint16_t at,
                                      struct segment *segs, uint32_t max,
                                      struct virtq_buffers *out)
{
    uint32_t len_bytes;
    uint64_t gpa;
    if (max > 0 && (kind & VIRTQ_PACKED || split_has(q, at))) {
        uint8_t *base = virtq_single(q, kind, at, VIRTQ_DESC_WRITE, &len_bytes, &out->elem, &gpa);
        if (likely(base != NULL && len_bytes > 0)) {
            *segs = (struct segment){.base = base, .len_bytes = len_bytes};
            *out = (struct virtq_buffers){.elem = out->elem, .len_bytes = len_bytes, .segs = 1,
                                          .descs = 1, .walked = 1};
            if (unlikely(q->gpas != NULL))
                *q->gpas++ = gpa;
            return VIRTQ_CHAIN;
        }
    }
    return virtq_chain(q, kind, at, VIRTQ_WRITABLE, segs, max, out);
}

EACH_KIND uint16_t virtq_after(const struct virtq *q, uint32_t kind, uint16_t at,
                               struct virtq_elem elem)
{
    return kind & VIRTQ_PACKED ? packed_after(q, at, elem.slots) : (uint16_t)(at + 1);
}

/* Looks for what the driver added when fewer than so many chains are known to be there. */
EACH_KIND void virtq_look(struct virtq *q, uint32_t kind, uint32_t wanted)
{
    if (!(kind & VIRTQ_PACKED) && (uint16_t)(q->avail_idx - q->next) < wanted)
        split_available(q);
}

/* Starts to fetch the buffers of the next VIRTQ_AHEAD chains from a position on, as far as they are
 * known to be there, and the descriptors behind them.  Called for each chain, it asks for one: what
 * another CPU has just written takes as long to come as several frames take to copy.  What it reads
 * decides nothing: all is read again when its turn comes. */
EACH_KIND void virtq_run_ahead(struct virtq *q, uint32_t kind, uint16_t at, bool to_write)
{
    if (kind & VIRTQ_PACKED)
        packed_run_ahead(q, at, to_write);
    else
        split_run_ahead(q, at, to_write);
}

/* Gives a chain back that bytes were written to, behind those given back before. */
EACH_KIND void virtq_put_used(struct virtq *q, uint32_t kind, struct virtq_elem elem,
                              uint32_t written_bytes)
{
    if (kind & VIRTQ_PACKED)
        packed_put_used(q, elem, written_bytes, VIRTQ_DESC_WRITE);
    else
        split_put_used(q, elem, written_bytes);
}

/* Gives chains back that were only read, or nothing was done with. */
EACH_KIND void virtq_put_read(struct virtq *q, uint32_t kind, const struct virtq_elem *elems,
                              uint32_t n)
{
    if (kind & VIRTQ_IN_ORDER) {
        if (kind & VIRTQ_PACKED) {
            struct virtq_elem batch = {.id = elems[n - 1].id, .slots = 0};
            for (uint32_t i = 0; i < n; i++)
                batch.slots = (uint16_t)(batch.slots + elems[i].slots);
            packed_put_used(q, batch, 0, 0); /* 2.8.9: where the first is, with the last one's id */
        } else {
            split_skip_used(q, elems[n - 1], n);
        }
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        if (kind & VIRTQ_PACKED)
            packed_put_used(q, elems[i], 0, 0);
        else
            split_put_used(q, elems[i], 0);
    }
}

EACH_KIND void virtq_publish(struct virtq *q, uint32_t kind)
{
    uint32_t count = q->pending;
    if (kind & VIRTQ_PACKED)
        packed_publish(q);
    else
        split_publish(q);
    if (kind & VIRTQ_LOGGED)
        virtq_log_used(q, count);
}

/* Whether chains were given back since `before` that are still to be published.  In a packed ring
 * whose driver turns descriptors over meanwhile, one may come round to `before`. */
EACH_KIND bool virtq_gave_back(const struct virtq *q, uint32_t kind, uint16_t before)
{
    return kind & VIRTQ_PACKED ? q->pending > 0 : q->next != before;
}

EACH_KIND bool virtq_wants_call(struct virtq *q, uint32_t kind)
{
    return kind & VIRTQ_PACKED ? packed_wants_call(q) : split_wants_call(q);
}

/* So many chains can be given back before virtq_publish(). */
EACH_KIND bool virtq_has_room(const struct virtq *q, uint32_t kind, uint32_t chains)
{
    return !(kind & VIRTQ_PACKED) || q->pending + chains <= VHOST_STATE_USED;
}

#endif
