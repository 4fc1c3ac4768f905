/* virtqueue.c - device side of a split virtqueue: setting up, walking chains, asking for kicks.
 *
 * Untrusted:  see virtqueue.h.  Every walk is bounded: a chain by the ring's size, a table by
 *             VIRTQ_MAX_INDIRECT, pieces by what the caller has room for.
 * Threads:    see virtqueue.h.
 * Source:     virtio 1.2, sections 2.7.5 to 2.7.10.
 */
#include <errno.h>

#include "vhost/core/virtqueue.h"

/* A walk over one chain. */
struct walk {
    struct virtq *q;
    enum virtq_direction direction;
    struct segment *segs;
    uint32_t max;
    struct virtq_buffers *out;
    bool writable; /* has come to the writable part */
};

static bool walk_table(struct walk *w, const struct virtq_desc *d);
static bool walk_buffer(struct walk *w, const struct virtq_desc *d);

static bool aligned(const void *p, uintptr_t to) { return ((uintptr_t)p & (to - 1)) == 0; }

int virtq_init(struct virtq *q, const struct mem_table *t, const struct vhost_ring *ring,
               uint32_t *lost)
{
    uint32_t num = ring->num;
    if (num == 0 || num > VIRTQ_MAX_NUM || (num & (num - 1)) != 0)
        return -EINVAL;
    /* Both rings end in an event index, used or not: 2.7.6 and 2.7.8. */
    uint8_t *desc = mem_user(t, ring->desc, (uint64_t)num * VIRTQ_DESC_BYTES);
    uint8_t *avail = mem_user(t, ring->avail, 6 + 2ull * num);
    uint8_t *used = mem_user(t, ring->used, 6 + 8ull * num);
    if (desc == NULL || avail == NULL || used == NULL)
        return -EFAULT;
    if (!aligned(desc, 16) || !aligned(avail, 2) || !aligned(used, 4)) /* 2.7 */
        return -EINVAL;
    memset(q, 0, sizeof(*q));
    q->desc = desc;
    q->avail = (struct virtq_avail *)(void *)avail;
    q->used = (struct virtq_used *)(void *)used;
    q->table = t;
    q->lost = lost;
    q->num = (uint16_t)num;
    q->mask = (uint16_t)(num - 1);
    q->event_idx = (ring->features & VIRTQ_F_EVENT_IDX) != 0;
    q->indirect = (ring->features & VIRTQ_F_INDIRECT_DESC) != 0;
    /* Not what SET_VRING_BASE says: a front-end that reconnects may not know how far we came, and
     * some send avail->idx, which would skip what was never finished. */
    q->used_idx = guest_load16(&q->used->idx);
    q->next = q->used_idx;
    q->signalled = q->used_idx;
    q->avail_idx = q->used_idx;
    return 0;
}

void virtq_break(struct virtq *q, enum virtq_reason reason)
{
    if (!virtq_broken(q))
        store_relaxed(&q->reason, (uint32_t)reason);
}

static bool broken_by(struct virtq *q, enum virtq_reason reason)
{
    virtq_break(q, reason);
    return false;
}

bool virtq_chain(struct virtq *q, uint16_t head, enum virtq_direction direction,
                 struct segment *segs, uint32_t max, struct virtq_buffers *out)
{
    struct walk w = {.q = q, .direction = direction, .segs = segs, .max = max, .out = out};
    *out = (struct virtq_buffers){0};
    if (head >= q->num)
        return broken_by(q, VIRTQ_HEAD_RANGE);
    uint16_t at = head;
    for (uint32_t i = 0; i < q->num; i++) {
        struct virtq_desc d = virtq_desc_at(q->desc + (uint32_t)at * VIRTQ_DESC_BYTES);
        out->descs++;
        if (d.flags & VIRTQ_DESC_INDIRECT)
            return walk_table(&w, &d); /* the last of its chain: 2.7.5.3.1 */
        if (!walk_buffer(&w, &d))
            return false;
        if (!(d.flags & VIRTQ_DESC_NEXT))
            return true;
        if (d.next >= q->num)
            return broken_by(q, VIRTQ_NEXT_RANGE);
        at = d.next;
    }
    return broken_by(q, VIRTQ_LOOP);
}

/* A descriptor anywhere: of a table that may lie at any address and across two regions. */
static bool desc_read(struct virtq *q, uint64_t gpa, struct virtq_desc *d)
{
    _Alignas(8) uint8_t copy[VIRTQ_DESC_BYTES];
    uint32_t part;
    for (uint32_t i = 0; i < VIRTQ_DESC_BYTES; i++) {
        const uint8_t *at = mem_at(q->table, &q->hint, gpa + i, 1, &part);
        if (at == NULL)
            return false;
        copy[i] = guest_load8(at);
    }
    *d = virtq_desc_at(copy);
    return true;
}

static bool walk_table(struct walk *w, const struct virtq_desc *table)
{
    struct virtq *q = w->q;
    uint32_t part, count = table->len / VIRTQ_DESC_BYTES, at = 0;
    if (!q->indirect)
        return broken_by(q, VIRTQ_INDIRECT_UNASKED);
    if (table->flags & VIRTQ_DESC_NEXT)
        return broken_by(q, VIRTQ_INDIRECT_NEXT);
    if (count == 0 || count > VIRTQ_MAX_INDIRECT || table->len % VIRTQ_DESC_BYTES != 0)
        return broken_by(q, VIRTQ_INDIRECT_SIZE);
    const uint8_t *base = mem_at(q->table, &q->hint, table->addr, table->len, &part);
    bool whole = base != NULL && part == table->len && aligned(base, 8);
    for (uint32_t i = 0; i < count; i++) {
        struct virtq_desc d;
        if (likely(whole))
            d = virtq_desc_at(base + (size_t)at * VIRTQ_DESC_BYTES);
        else if (!desc_read(q, table->addr + (uint64_t)at * VIRTQ_DESC_BYTES, &d))
            return broken_by(q, VIRTQ_ADDRESS);
        if (d.flags & VIRTQ_DESC_INDIRECT)
            return broken_by(q, VIRTQ_INDIRECT_NESTED);
        if (!walk_buffer(w, &d))
            return false;
        if (!(d.flags & VIRTQ_DESC_NEXT))
            return true;
        if (d.next >= count)
            return broken_by(q, VIRTQ_NEXT_RANGE);
        at = d.next;
    }
    return broken_by(q, VIRTQ_LOOP);
}

/* Adds a buffer to the walk, in as many pieces as there are regions beneath it. */
static bool walk_buffer(struct walk *w, const struct virtq_desc *d)
{
    struct virtq_buffers *out = w->out;
    bool writable = (d->flags & VIRTQ_DESC_WRITE) != 0;
    if (w->direction != VIRTQ_BOTH ? writable != (w->direction == VIRTQ_WRITABLE)
                                   : w->writable && !writable) /* readable ones first: 2.7.4.2 */
        return broken_by(w->q, VIRTQ_DIRECTION);
    w->writable = writable;
    out->walked++;
    uint64_t gpa = d->addr;
    uint32_t rest = d->len, part;
    while (rest > 0) {
        uint8_t *base = mem_at(w->q->table, &w->q->hint, gpa, rest, &part);
        if (base == NULL)
            return broken_by(w->q, VIRTQ_ADDRESS);
        if (out->segs < w->max) {
            w->segs[out->segs++] = (struct segment){.base = base, .len_bytes = part};
            out->read_segs += !writable;
            out->len_bytes += part;
        } else {
            out->too_many = true;
        }
        gpa += part;
        rest -= part;
    }
    return true;
}

bool virtq_arm(struct virtq *q)
{
    if (virtq_broken(q))
        return false;
    if (q->event_idx)
        store_relaxed((uint16_t *)(void *)&q->used->ring[q->num], q->next);
    else
        store_relaxed(&q->used->flags, 0);
    fence_full(); /* ask, then look: 2.7.10 */
    return load_acquire(&q->avail->idx) != q->next; /* pairs with the driver's write barrier */
}

void virtq_disarm(struct virtq *q)
{
    /* With event indices the one that was asked for stays, and is passed once in 65536 chains. */
    if (!q->event_idx && !virtq_broken(q))
        store_relaxed(&q->used->flags, 1);
}
