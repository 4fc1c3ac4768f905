/* virtqueue.c - device side of a virtqueue: setting up, walking buffers, asking for kicks.
 *
 * Untrusted:  see virtqueue.h.  Every walk is bounded: a chain by the ring's size, a table by
 *             VIRTQ_MAX_INDIRECT, pieces by what the caller has room for.
 * Threads:    see virtqueue.h.
 * Source:     virtio 1.2, sections 2.7 and 2.8.
 */
#include <errno.h>

#include "vhost/core/ring.h"

static bool aligned(const void *p, uintptr_t to) { return ((uintptr_t)p & (to - 1)) == 0; }

static int init_split(struct virtq *q, const struct vhost_ring *ring)
{
    uint32_t num = ring->num;
    if ((num & (num - 1)) != 0)
        return -EINVAL;
    /* Both rings end in an event index, used or not: 2.7.6 and 2.7.8. */
    uint8_t *avail = mem_user(q->table, ring->avail, 6 + 2ull * num);
    uint8_t *used = mem_user(q->table, ring->used, 6 + 8ull * num);
    if (avail == NULL || used == NULL)
        return -EFAULT;
    if (!aligned(avail, 2) || !aligned(used, 4)) /* 2.7 */
        return -EINVAL;
    q->avail = (struct virtq_avail *)(void *)avail;
    q->used = (struct virtq_used *)(void *)used;
    q->mask = (uint16_t)(num - 1);
    /* Not what SET_VRING_BASE says: a front-end that reconnects may not know how far we came, and
     * some send avail->idx, which would skip what was never finished. */
    q->next = guest_load16(&q->used->idx);
    q->signalled = q->next;
    q->avail_idx = q->next;
    q->logged = q->next;
    return 0;
}

/* Whether the driver has written nothing yet.
 *
 * SPEC: User Mode Linux (virtio_uml) begins every ring at 0, although its wrap counter is 1 then
 * (2.8.1).  A ring that did stop at slot 0 with the counter at 0 has been written all around. */
static bool is_untouched(const struct virtq *q)
{
    return (guest_load16(packed_desc(q, 0) + 14) & (PACKED_AVAIL | PACKED_USED)) == 0;
}

static int init_packed(struct virtq *q, const struct vhost_ring *ring)
{
    const uint8_t *driver = mem_user(q->table, ring->avail, sizeof(*q->driver_event));
    uint8_t *device = mem_user(q->table, ring->used, sizeof(*q->device_event));
    if (driver == NULL || device == NULL)
        return -EFAULT;
    if (!aligned(driver, 4) || !aligned(device, 4)) /* 2.8 */
        return -EINVAL;
    q->driver_event = (const uint32_t *)(const void *)driver;
    q->device_event = (uint32_t *)(void *)device;
    q->state = ring->state;
    if (q->state == NULL)
        q->state = q->own_state = calloc(1, sizeof(*q->state));
    if (q->state == NULL)
        return -ENOMEM;
    bool resumed = ring->resume && packed_resume(q, ring->told);
    store_relaxed(&q->state->told, ring->told);
    if (resumed)
        return 0;
    if ((ring->base & PACKED_SLOT) >= q->num)
        return -EINVAL;
    /* The upper half, where the used descriptors go, is equal in a ring that was stopped. */
    q->next = (uint16_t)ring->base;
    if (q->next == 0 && is_untouched(q))
        q->next = PACKED_WRAP;
    packed_begin(q);
    return 0;
}

static int init_log(struct virtq *q, const struct vhost_ring *ring)
{
    if (ring->log == NULL || !(ring->features & VIRTQ_F_LOG_ALL))
        return 0;
    if (!mem_user_gpa(q->table, ring->desc, &q->desc_gpa))
        return -EFAULT;
    q->kind |= VIRTQ_LOGGED;
    q->log = ring->log;
    q->log_gpa = ring->log_gpa;
    q->log_used = ring->log_used != 0;
    return 0;
}

int virtq_init(struct virtq *q, const struct mem_table *t, const struct vhost_ring *ring,
               uint32_t *lost)
{
    if (ring->num == 0 || ring->num > VIRTQ_MAX_NUM)
        return -EINVAL;
    uint8_t *desc = mem_user(t, ring->desc, (uint64_t)ring->num * VIRTQ_DESC_BYTES);
    if (desc == NULL)
        return -EFAULT;
    if (!aligned(desc, 16)) /* 2.7, 2.8 */
        return -EINVAL;
    memset(q, 0, sizeof(*q));
    q->desc = desc;
    q->table = t;
    q->lost = lost;
    q->num = (uint16_t)ring->num;
    q->kind = (uint8_t)((ring->features & VIRTQ_F_RING_PACKED ? VIRTQ_PACKED : 0) |
                        (ring->features & VIRTQ_F_IN_ORDER ? VIRTQ_IN_ORDER : 0));
    q->event_idx = (ring->features & VIRTQ_F_EVENT_IDX) != 0;
    q->indirect = (ring->features & VIRTQ_F_INDIRECT_DESC) != 0;
    int rc = init_log(q, ring);
    if (rc < 0)
        return rc;
    return q->kind & VIRTQ_PACKED ? init_packed(q, ring) : init_split(q, ring);
}

void virtq_fini(struct virtq *q) { free(q->own_state); }

void virtq_break(struct virtq *q, enum virtq_reason reason)
{
    if (!virtq_broken(q))
        store_relaxed(&q->reason, (uint32_t)reason);
}

bool virtq_broken_by(struct virtq *q, enum virtq_reason reason)
{
    virtq_break(q, reason);
    return false;
}

bool virtq_table_open(struct virtq *q, const struct virtq_desc *d, struct virtq_table *table)
{
    uint32_t part;
    *table = (struct virtq_table){.gpa = d->addr, .count = d->len / VIRTQ_DESC_BYTES};
    if (!q->indirect)
        return virtq_broken_by(q, VIRTQ_INDIRECT_UNASKED);
    if (d->flags & VIRTQ_DESC_NEXT)
        return virtq_broken_by(q, VIRTQ_INDIRECT_NEXT);
    if (table->count == 0 || table->count > VIRTQ_MAX_INDIRECT || d->len % VIRTQ_DESC_BYTES != 0)
        return virtq_broken_by(q, VIRTQ_INDIRECT_SIZE);
    const uint8_t *base = mem_at(q->table, &q->hint, d->addr, d->len, &part);
    if (base != NULL && part == d->len && aligned(base, 8))
        table->whole = base;
    return true;
}

const uint8_t *virtq_table_at(struct virtq *q, const struct virtq_table *table, uint32_t at,
                              uint8_t *copy)
{
    uint32_t part;
    if (likely(table->whole != NULL))
        return table->whole + (size_t)at * VIRTQ_DESC_BYTES;
    for (uint32_t i = 0; i < VIRTQ_DESC_BYTES; i++) {
        uint64_t gpa = table->gpa + (uint64_t)at * VIRTQ_DESC_BYTES + i;
        const uint8_t *byte = mem_at(q->table, &q->hint, gpa, 1, &part);
        if (byte == NULL) {
            virtq_break(q, VIRTQ_ADDRESS);
            return NULL;
        }
        copy[i] = guest_load8(byte);
    }
    return copy;
}

/* Adds a buffer to the walk, in as many pieces as there are regions beneath it. */
bool virtq_walk_buffer(struct virtq_walk *w, const struct virtq_desc *d)
{
    struct virtq_buffers *out = w->out;
    bool writable = (d->flags & VIRTQ_DESC_WRITE) != 0;
    if (w->direction != VIRTQ_BOTH ? writable != (w->direction == VIRTQ_WRITABLE)
                                   : w->writable && !writable) /* readable ones first: 2.7.4.2 */
        return virtq_broken_by(w->q, VIRTQ_DIRECTION);
    w->writable = writable;
    out->walked++;
    uint64_t gpa = d->addr;
    uint32_t rest = d->len, part;
    while (rest > 0) {
        uint8_t *base = mem_at(w->q->table, &w->q->hint, gpa, rest, &part);
        if (base == NULL)
            return virtq_broken_by(w->q, VIRTQ_ADDRESS);
        if (out->segs < w->max) {
            w->segs[out->segs++] = (struct segment){.base = base, .len_bytes = part};
            if (unlikely(w->q->gpas != NULL))
                *w->q->gpas++ = gpa;
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

void virtq_log_used(struct virtq *q, uint32_t count)
{
    if (!q->log_used)
        return;
    if (q->kind & VIRTQ_PACKED) {
        for (uint32_t i = 0; i < count; i++) {
            uint32_t slot = q->state->used[i].slot & PACKED_SLOT;
            dirty_mark(q->log, q->desc_gpa + (uint64_t)slot * VIRTQ_DESC_BYTES + 8, 8);
        }
        return;
    }
    for (; q->logged != q->next; q->logged++) {
        uint64_t entry = offsetof(struct virtq_used, ring) + 8ull * (q->logged & q->mask);
        dirty_mark(q->log, q->log_gpa + entry, 8);
    }
    dirty_mark(q->log, q->log_gpa, 4);
}

/* What we want to be told was written: at the end of the used ring, or the device's event area. */
static void log_event(struct virtq *q)
{
    uint64_t at = q->kind & VIRTQ_PACKED || !q->event_idx ? 0 : 4 + 8ull * q->num;
    if (q->log_used)
        dirty_mark(q->log, q->log_gpa + at, 2);
}

bool virtq_arm(struct virtq *q)
{
    if (virtq_broken(q))
        return false;
    if (q->kind & VIRTQ_PACKED)
        store_relaxed(q->device_event, q->event_idx ? q->next | EVENT_AT << EVENT_FLAGS_SHIFT
                                                    : EVENT_ENABLE << EVENT_FLAGS_SHIFT);
    else if (q->event_idx)
        store_relaxed((uint16_t *)(void *)&q->used->ring[q->num], q->next);
    else
        store_relaxed(&q->used->flags, 0);
    log_event(q);
    fence_full(); /* ask, then look: 2.7.10 */
    if (q->kind & VIRTQ_PACKED)
        return packed_has(q, q->next);
    return load_acquire(&q->avail->idx) != q->next; /* pairs with the driver's write barrier */
}

void virtq_disarm(struct virtq *q)
{
    if (virtq_broken(q))
        return;
    /* In a split ring with event indices the one that was asked for stays, and is passed once in
     * 65536 chains. */
    if (q->kind & VIRTQ_PACKED)
        store_relaxed(q->device_event, EVENT_DISABLE << EVENT_FLAGS_SHIFT);
    else if (!q->event_idx)
        store_relaxed(&q->used->flags, 1);
    log_event(q);
}
