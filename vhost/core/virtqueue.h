/* virtqueue.h - device side of a split virtqueue.
 *
 * Reads the chains that the driver made available, gives them back as used, decides on
 * notifications, and nothing else: it knows no Ethernet.  Chains are given back in order, so
 * used->idx alone says where to go on after a restart.
 *
 *     read side                               give-back side
 *     virtq_available()  how many chains      virtq_put_used()  one chain, unseen by the driver
 *     virtq_head()       the i-th one's head  virtq_publish()   all of them, one store
 *     virtq_chain()      its buffers          virtq_wants_call()  once after it
 *
 * Untrusted:  everything in guest memory.  Each field is read once with guest_load*(); a bad chain
 *             breaks the queue (virtq_break) and touches nothing else.
 * Threads:    one at a time: the worker that polls the ring, or the holder of its lock.  The
 *             control thread only while no worker can reach the queue; any may read reason.
 * Source:     virtio 1.2, section 2.7.
 */
#ifndef VHOST_VIRTQUEUE_H
#define VHOST_VIRTQUEUE_H

#include "vhost/core/memory.h"

enum {
    VIRTQ_DESC_NEXT = 1,
    VIRTQ_DESC_WRITE = 2,
    VIRTQ_DESC_INDIRECT = 4,
    VIRTQ_DESC_BYTES = 16,
    VIRTQ_MAX_INDIRECT = 1024,     /* descriptors of one table; Linux uses at most 19 + 1 */
    VIRTQ_MAX_SEGS = 1024          /* pieces that anybody may ask virtq_chain() for */
};

#define VIRTQ_F_INDIRECT_DESC (1ull << 28)
#define VIRTQ_F_EVENT_IDX (1ull << 29)

/* Rings as they lie in guest memory, 2.7.5 to 2.7.8: avail is flags, idx, ring[num], used_event;
 * used is flags, idx, {id, len}[num], avail_event. */
struct virtq_avail {
    uint16_t flags;
    uint16_t idx;
    uint16_t ring[];
};

struct virtq_used {
    uint16_t flags;
    uint16_t idx;
    struct {
        uint32_t id;
        uint32_t len;
    } ring[];
};

struct virtq {
    const uint8_t *desc;
    struct virtq_avail *avail;
    struct virtq_used *used;
    const struct mem_table *table;
    uint32_t hint;         /* region of the last buffer */
    uint32_t reason;       /* enum virtq_reason */
    uint16_t num;
    uint16_t mask;
    uint16_t next;         /* first chain that was not given back */
    uint16_t avail_idx;    /* the driver's, when last looked at */
    uint16_t used_idx;     /* next used entry; published by virtq_publish() */
    uint16_t signalled;    /* used_idx at the last decision about a call */
    bool event_idx;
    bool indirect;
    uint32_t *lost;        /* the port's alarm */
};

/* What a chain is made of. */
struct virtq_buffers {
    uint64_t len_bytes;
    uint32_t segs;         /* pieces written, those of the read part first */
    uint32_t read_segs;    /* of them readable */
    uint32_t descs;        /* ring entries that the chain takes */
    uint32_t walked;       /* buffers, also those of no bytes */
    bool too_many;         /* more pieces than there was room for; len_bytes is short */
};

enum virtq_direction { VIRTQ_READABLE, VIRTQ_WRITABLE, VIRTQ_BOTH };

/* 0 or -errno; resumes where used->idx stands. */
int virtq_init(struct virtq *q, const struct mem_table *t, const struct vhost_ring *ring,
               uint32_t *lost);
void virtq_break(struct virtq *q, enum virtq_reason reason);
/* The buffers of the chain at head; false when the chain broke the queue. */
bool virtq_chain(struct virtq *q, uint16_t head, enum virtq_direction direction,
                 struct segment *segs, uint32_t max, struct virtq_buffers *out);
/* The driver shall notify about what it adds from now on; true when it already has. */
bool virtq_arm(struct virtq *q);
void virtq_disarm(struct virtq *q);

/* One descriptor, each half read once. */
struct virtq_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags;
    uint16_t next;
};

static inline struct virtq_desc virtq_desc_at(const uint8_t *p)
{
    uint64_t low = guest_load64(p), high = guest_load64(p + 8);
    return (struct virtq_desc){.addr = low,
                               .len = (uint32_t)high,
                               .flags = (uint16_t)(high >> 32),
                               .next = (uint16_t)(high >> 48)};
}

static inline bool virtq_broken(const struct virtq *q) { return load_relaxed(&q->reason) != 0; }

/* Chains made available and not given back; looks at the ring.  0 when broken. */
static inline uint32_t virtq_available(struct virtq *q)
{
    if (unlikely(virtq_broken(q)))
        return 0;
    if (unlikely(load_relaxed(q->lost))) {
        virtq_break(q, VIRTQ_MEMORY_LOST);
        return 0;
    }
    q->avail_idx = load_acquire(&q->avail->idx); /* pairs with the driver's barrier, 2.7.13.3 */
    uint16_t count = (uint16_t)(q->avail_idx - q->next);
    if (unlikely(count > q->num)) {
        virtq_break(q, VIRTQ_AVAIL_JUMP);
        return 0;
    }
    return count;
}

/* Head of the i-th chain not given back; may be out of range, virtq_chain() checks. */
static inline uint16_t virtq_head(const struct virtq *q, uint32_t i)
{
    return guest_load16(&q->avail->ring[(uint16_t)(q->next + i) & q->mask]);
}

static inline void virtq_prefetch_desc(const struct virtq *q, uint16_t head)
{
    __builtin_prefetch(q->desc + (uint32_t)(head & q->mask) * VIRTQ_DESC_BYTES);
}

/* Starts to fetch the first bytes of the buffer at head, for reading or for writing.  What it reads
 * of the descriptor decides nothing: the chain is read again when its turn comes. */
static inline void virtq_prefetch_buffer(struct virtq *q, uint16_t head, bool to_write)
{
    uint32_t part;
    const uint8_t *p = q->desc + (uint32_t)(head & q->mask) * VIRTQ_DESC_BYTES;
    const uint8_t *at = mem_at(q->table, &q->hint, guest_load64(p), 1, &part);
    if (at == NULL)
        return;
    if (to_write) {
        __builtin_prefetch(at, 1);
        __builtin_prefetch(at + CACHE_LINE, 1);
    } else {
        __builtin_prefetch(at);
        __builtin_prefetch(at + CACHE_LINE); /* many drivers let the frame begin on a line */
    }
}

/* The only buffer of a chain of one descriptor that lies in one piece, the usual case; NULL when
 * the chain is anything else, also when it is wrong. */
static inline uint8_t *virtq_single(struct virtq *q, uint16_t head, uint16_t flags, uint32_t *len)
{
    uint32_t part;
    if (unlikely(head >= q->num))
        return NULL;
    struct virtq_desc d = virtq_desc_at(q->desc + (uint32_t)head * VIRTQ_DESC_BYTES);
    if (unlikely((d.flags & (VIRTQ_DESC_NEXT | VIRTQ_DESC_WRITE | VIRTQ_DESC_INDIRECT)) != flags))
        return NULL;
    uint8_t *at = mem_at(q->table, &q->hint, d.addr, d.len, &part);
    if (unlikely(at == NULL || part != d.len))
        return NULL;
    *len = d.len;
    return at;
}

/* Gives the chain at head back, behind those given back before. */
static inline void virtq_put_used(struct virtq *q, uint16_t head, uint32_t written_bytes)
{
    uint16_t at = q->used_idx++ & q->mask;
    store_relaxed(&q->used->ring[at].id, head);
    store_relaxed(&q->used->ring[at].len, written_bytes);
    q->next++;
}

static inline void virtq_publish(struct virtq *q)
{
    store_release(&q->used->idx, q->used_idx); /* pairs with the driver's read barrier, 2.7.14 */
}

/* Whether the driver wants to be called about what was published since the last decision. */
static inline bool virtq_wants_call(struct virtq *q)
{
    uint16_t old = q->signalled;
    fence_full(); /* publish, then look: 2.7.7.2 */
    q->signalled = q->used_idx;
    if (!q->event_idx)
        return (guest_load16(&q->avail->flags) & 1) == 0;
    uint16_t event = guest_load16(&q->avail->ring[q->num]);
    return (uint16_t)(q->used_idx - event - 1) < (uint16_t)(q->used_idx - old);
}

#endif
