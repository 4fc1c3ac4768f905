/* virtqueue.h - device side of a virtqueue: what its two layouts, split and packed, have in common.
 *
 * Reads the chains that the driver made available, gives them back as used, decides on
 * notifications, and nothing else: it knows no Ethernet.  Chains are given back in order.  ring.h
 * has the functions for callers; split.h and packed.h are the layouts.
 *
 *     read side                                give-back side
 *     virtq_usable()  before a burst           virtq_put_used()    one chain, unseen by the driver
 *     virtq_single()  a chain of one buffer    virtq_publish()     all of them at once
 *     virtq_chain()   any chain                virtq_wants_call()  once after it
 *     virtq_after()   where the next one is
 *
 * A position says where a chain is: in a split ring the index in the available ring, counted modulo
 * 65536; in a packed ring the slot of its first descriptor, with the wrap counter as bit 15.
 *
 * Kind: the hot functions take the kind of the ring as a constant and are compiled once for each
 * (see ring.h), so no loop asks what kind its ring is.
 *
 * Untrusted:  everything in guest memory.  Each field is read once with guest_load*(); a bad chain
 *             breaks the queue (virtq_break) and touches nothing else.
 * Threads:    one at a time: the worker that polls the ring, or the holder of its lock.  The
 *             control thread only while no worker can reach the queue; any may read reason.
 * Source:     virtio 1.2, sections 2.7 and 2.8.
 */
#ifndef VHOST_VIRTQUEUE_H
#define VHOST_VIRTQUEUE_H

#include "vhost/core/dirty.h"

enum {
    VIRTQ_DESC_NEXT = 1,
    VIRTQ_DESC_WRITE = 2,
    VIRTQ_DESC_INDIRECT = 4,
    VIRTQ_DESC_BYTES = 16,
    VIRTQ_MAX_INDIRECT = 1024,     /* descriptors of one table; Linux uses at most 19 + 1 */
    VIRTQ_MAX_SEGS = 1024,         /* pieces that anybody may ask virtq_chain() for */
    VIRTQ_AHEAD = 8                /* chains; measured: 4 is late, 32 crowds out what is needed */
};

#define VIRTQ_F_LOG_ALL (1ull << 26) /* VHOST_F_LOG_ALL */
#define VIRTQ_F_INDIRECT_DESC (1ull << 28)
#define VIRTQ_F_EVENT_IDX (1ull << 29)
#define VIRTQ_F_RING_PACKED (1ull << 34)
#define VIRTQ_F_IN_ORDER (1ull << 35)

/* What a ring is, by the negotiated features. */
enum virtq_kind {
    VIRTQ_SPLIT = 0,
    VIRTQ_PACKED = 1,
    VIRTQ_IN_ORDER = 2,            /* a batch may be given back by its last chain alone */
    VIRTQ_LOGGED = 4               /* what we write is marked in the dirty log */
};

/* A split ring as it lies in guest memory, 2.7.5 to 2.7.8: avail is flags, idx, ring[num],
 * used_event; used is flags, idx, {id, len}[num], avail_event. */
struct virtq_avail {
    uint16_t flags;
    uint16_t idx;
    uint16_t ring[];
};

struct virtq_used_elem {
    uint32_t id;
    uint32_t len;
};

struct virtq_used {
    uint16_t flags;
    uint16_t idx;
    struct virtq_used_elem ring[];
};

struct virtq {
    uint8_t *desc;
    union {
        struct virtq_avail *avail;
        const uint32_t *driver_event;  /* packed, 2.8.10: what the driver wants to be told */
    };
    union {
        struct virtq_used *used;
        uint32_t *device_event;        /* packed: what we want to be told */
    };
    const struct mem_table *table;
    struct vhost_ring_state *state;    /* packed: the batch in the making, and how far we are */
    uint32_t hint;         /* region of the last buffer */
    uint32_t reason;       /* enum virtq_reason */
    uint32_t pending;      /* packed: used chains that are not published */
    uint32_t unsignalled;  /* packed: slots published since the last decision about a call */
    uint16_t num;
    uint16_t mask;         /* split */
    uint16_t next;         /* position of the first chain that was not given back */
    uint16_t avail_idx;    /* split: the driver's, when last looked at */
    uint16_t ahead;        /* where run_ahead goes on; packed: a slot */
    uint16_t signalled;    /* split: next at the last decision about a call */
    uint8_t kind;          /* enum virtq_kind */
    bool event_idx;
    bool indirect;
    uint32_t *lost;        /* the port's alarm */
    struct vhost_ring_state *own_state; /* packed, when nobody gave one */
    struct dirty_log *log; /* logged */
    uint64_t *gpas;        /* logged: where a walk leaves each piece's guest address; or NULL */
    uint64_t log_gpa;      /* logged: the used ring, or the device's event area */
    uint64_t desc_gpa;     /* logged, packed */
    uint16_t logged;       /* logged, split: used entries up to this one are marked */
    bool log_used;         /* logged: the ring itself, too */
};

/* How a chain is given back. */
struct virtq_elem {
    uint16_t id;           /* split: its first descriptor; packed: the driver's own number */
    uint16_t slots;        /* packed: of the ring */
};

/* What a chain is made of. */
struct virtq_buffers {
    struct virtq_elem elem;
    uint64_t len_bytes;
    uint32_t segs;         /* pieces written, those of the read part first */
    uint32_t read_segs;    /* of them readable */
    uint32_t descs;        /* ring entries that the chain takes */
    uint32_t walked;       /* buffers, also those of no bytes */
    bool too_many;         /* more pieces than there was room for; len_bytes is short */
};

enum virtq_direction { VIRTQ_READABLE, VIRTQ_WRITABLE, VIRTQ_BOTH };

/* What is at a position. */
enum virtq_found { VIRTQ_CHAIN, VIRTQ_NO_CHAIN, VIRTQ_BROKEN };

/* 0 or -errno.  A split ring resumes where used->idx stands, a packed one where ring->state says or
 * else ring->base.  virtq_fini() must follow in any case, with q zeroed before. */
int virtq_init(struct virtq *q, const struct mem_table *t, const struct vhost_ring *ring,
               uint32_t *lost);
void virtq_fini(struct virtq *q);
void virtq_break(struct virtq *q, enum virtq_reason reason);
/* Marks what was published: of a packed ring, count used descriptors of the last batch. */
void virtq_log_used(struct virtq *q, uint32_t count);
/* The driver shall notify about what it adds from now on; true when it already has. */
bool virtq_arm(struct virtq *q);
void virtq_disarm(struct virtq *q);

/* ---- walking chains, for split.c and packed.c */

/* One descriptor, each half read once. */
struct virtq_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags;
    uint16_t next;         /* packed: id */
};

/* A walk over one chain. */
struct virtq_walk {
    struct virtq *q;
    enum virtq_direction direction;
    struct segment *segs;
    uint32_t max;
    struct virtq_buffers *out;
    bool writable;         /* has come to the writable part */
};

/* An indirect table, which may lie at any address and across two regions. */
struct virtq_table {
    const uint8_t *whole;  /* NULL: in pieces, or at an odd address */
    uint64_t gpa;
    uint32_t count;        /* descriptors */
};

/* All of these break the queue when they return false. */
bool virtq_walk_buffer(struct virtq_walk *w, const struct virtq_desc *d);
bool virtq_table_open(struct virtq *q, const struct virtq_desc *d, struct virtq_table *table);
/* The bytes of a descriptor, in the table itself or in copy. */
const uint8_t *virtq_table_at(struct virtq *q, const struct virtq_table *table, uint32_t at,
                              uint8_t *copy);
/* Breaks the queue; false. */
bool virtq_broken_by(struct virtq *q, enum virtq_reason reason);

static inline bool virtq_broken(const struct virtq *q) { return load_relaxed(&q->reason) != 0; }

/* Whether the queue may be used; before a burst. */
static inline bool virtq_usable(struct virtq *q)
{
    if (unlikely(virtq_broken(q)))
        return false;
    if (unlikely(load_relaxed(q->lost))) {
        virtq_break(q, VIRTQ_MEMORY_LOST);
        return false;
    }
    return true;
}

/* Starts to fetch the first bytes of a buffer, for reading or for writing. */
static inline void virtq_prefetch_at(struct virtq *q, uint64_t gpa, bool to_write)
{
    uint32_t part;
    const uint8_t *at = mem_at(q->table, &q->hint, gpa, 1, &part);
    if (at == NULL)
        return;
    if (to_write) {
        prefetch_to_write(at);
        prefetch_to_write(at + CACHE_LINE);
    } else {
        __builtin_prefetch(at);
        __builtin_prefetch(at + CACHE_LINE); /* many drivers let the frame begin on a line */
    }
}

#endif
