/* split.c - walks the chains of a split ring.
 *
 * Untrusted, Threads: see virtqueue.h.
 * Source:     virtio 1.2, section 2.7.5.
 */
#include "vhost/core/split.h"

static bool walk_table(struct virtq_walk *w, const struct virtq_desc *first)
{
    struct virtq *q = w->q;
    struct virtq_table table;
    if (!virtq_table_open(q, first, &table))
        return false;
    for (uint32_t i = 0, at = 0; i < table.count; i++) {
        _Alignas(8) uint8_t copy[VIRTQ_DESC_BYTES];
        const uint8_t *p = virtq_table_at(q, &table, at, copy);
        if (p == NULL)
            return false;
        struct virtq_desc d = split_desc_at(p);
        if (d.flags & VIRTQ_DESC_INDIRECT)
            return virtq_broken_by(q, VIRTQ_INDIRECT_NESTED);
        if (!virtq_walk_buffer(w, &d))
            return false;
        if (!(d.flags & VIRTQ_DESC_NEXT))
            return true;
        if (d.next >= table.count)
            return virtq_broken_by(q, VIRTQ_NEXT_RANGE);
        at = d.next;
    }
    return virtq_broken_by(q, VIRTQ_LOOP);
}

static bool walk_chain(struct virtq_walk *w, uint16_t head)
{
    struct virtq *q = w->q;
    if (head >= q->num)
        return virtq_broken_by(q, VIRTQ_HEAD_RANGE);
    uint16_t at = head;
    for (uint32_t i = 0; i < q->num; i++) {
        struct virtq_desc d = split_desc_at(q->desc + (size_t)at * VIRTQ_DESC_BYTES);
        w->out->descs++;
        if (d.flags & VIRTQ_DESC_INDIRECT)
            return walk_table(w, &d); /* the last of its chain: 2.7.5.3.1 */
        if (!virtq_walk_buffer(w, &d))
            return false;
        if (!(d.flags & VIRTQ_DESC_NEXT))
            return true;
        if (d.next >= q->num)
            return virtq_broken_by(q, VIRTQ_NEXT_RANGE);
        at = d.next;
    }
    return virtq_broken_by(q, VIRTQ_LOOP);
}

enum virtq_found split_chain(struct virtq *q, uint16_t at, enum virtq_direction direction,
                             struct segment *segs, uint32_t max, struct virtq_buffers *out)
{
    struct virtq_walk w = {.q = q, .direction = direction, .segs = segs, .max = max, .out = out};
    *out = (struct virtq_buffers){0};
    if (!split_has(q, at))
        return virtq_broken(q) ? VIRTQ_BROKEN : VIRTQ_NO_CHAIN;
    out->elem = (struct virtq_elem){.id = split_head(q, at), .slots = 1};
    return walk_chain(&w, out->elem.id) ? VIRTQ_CHAIN : VIRTQ_BROKEN;
}
