/* abi.h - what the vhost-user backend's C shares with Python: plain structs, enums and prototypes.
 *
 * Read by the compiler (through vhost_abi.h, which has the guard) and by cffi.  Functions return 0
 * or -errno unless they say otherwise.
 *
 * Life of a ring: vhost_queue_start(), list its rxq in a snapshot (guest's TX) or its queue in
 * vhost_port_set_tx() (guest's RX), and publish.  To stop it: unlist it, wait until every worker is
 * past that, read vhost_queue_status_read() for the index to resume from, vhost_queue_free().
 *
 * Threads:    the control thread; what says "any time" also while workers use the ring.
 */

enum {
    VHOST_MAX_PAIRS = 128,
    VHOST_MAX_RINGS = 257,         /* 128 pairs and the control queue */
    VHOST_MAX_REGIONS = 509,       /* as many as the kernel's vhost has slots for */
    VIRTQ_MAX_NUM = 32768,         /* virtio 1.2, 2.7 and 2.8: largest ring */
    VHOST_STATE_USED = 1024,       /* chains of one batch: as many as one frame may take */
    VHOST_NO_SLOT = 65536
};

/* Which side of the guest a ring serves. */
enum vhost_role {
    VHOST_ROLE_RX,                 /* the guest receives: we transmit */
    VHOST_ROLE_TX,                 /* the guest transmits: we receive */
    VHOST_ROLE_CONTROL             /* the guest's commands: we serve them */
};

/* Why a ring was given up.  The names are the users' (lower case, without VIRTQ_). */
enum virtq_reason {
    VIRTQ_OK,
    VIRTQ_AVAIL_JUMP,              /* avail->idx is more than a ring ahead */
    VIRTQ_HEAD_RANGE,              /* a chain starts beyond the table */
    VIRTQ_NEXT_RANGE,              /* a descriptor points beyond the table */
    VIRTQ_NEXT_UNAVAILABLE,        /* packed: a chain goes on where nothing is offered */
    VIRTQ_LOOP,                    /* a chain is longer than it can be */
    VIRTQ_ADDRESS,                 /* a buffer is outside of the guest's memory */
    VIRTQ_DIRECTION,               /* writable where we read, or the reverse */
    VIRTQ_INDIRECT_UNASKED,        /* the feature was not negotiated */
    VIRTQ_INDIRECT_NESTED,         /* a table within a table */
    VIRTQ_INDIRECT_NEXT,           /* INDIRECT and NEXT together */
    VIRTQ_INDIRECT_SIZE,           /* empty, too long or not whole descriptors */
    VIRTQ_CONTROL_SHAPE,           /* a command without room for its answer */
    VIRTQ_MEMORY_LOST,             /* the memory shrank beneath us */
    VIRTQ_REASONS
};

struct mem_region;
struct mem_table;
struct dirty_log;
struct vhost_queue;

/* A used descriptor of a packed ring. */
struct vhost_used {
    uint32_t len;                  /* this and the next two as they stand in the descriptor */
    uint16_t id;
    uint16_t flags;
    uint16_t slot;                 /* where, with the wrap counter as bit 15 */
    uint16_t pad;
};

/* How far a packed ring is, which its memory does not say.  May lie in a mapped file, so that the
 * ring goes on behind a process that was killed at any instruction: see packed.h.  All zeros is
 * no valid state: begin with a start that does not resume. */
struct vhost_ring_state {
    uint32_t count;                /* of the batch that is being published; 0: none */
    uint32_t last;                 /* slot of the newest used descriptor; VHOST_NO_SLOT: none */
    uint16_t position;             /* first chain not given back: slot, wrap counter as bit 15 */
    uint16_t next_position;        /* behind the batch */
    uint32_t told;                 /* what the front-end last said of where the ring is */
    struct vhost_used used[1024];  /* VHOST_STATE_USED */
};

/* What SET_VRING_* told about a ring. */
struct vhost_ring {
    uint64_t features;             /* negotiated, virtio's bits */
    uint64_t desc;                 /* user addresses of the front-end */
    uint64_t avail;
    uint64_t used;
    uint32_t num;                  /* size */
    uint32_t role;                 /* enum vhost_role */
    int32_t kick_fd;               /* -1: none, poll */
    int32_t call_fd;               /* -1: none */
    uint32_t enabled;
    uint32_t index;                /* vhost-user's ring number */
    struct vhost_ring_state *state; /* packed: outlives the ring; NULL: the ring has its own */
    uint32_t base;                 /* packed: where to begin, as SET_VRING_BASE has it */
    uint32_t told;                 /* packed: what the front-end last said or heard of that */
    uint32_t resume;               /* packed: go on where state says, if it fits the ring */
    uint32_t log_used;             /* whether what is written to the ring itself is logged, too */
    struct dirty_log *log;         /* of the pages that are written; outlives the ring; or NULL */
    uint64_t log_gpa;              /* the used ring's guest address (packed: the device area's) */
};

struct vhost_queue_status {
    uint32_t reason;               /* enum virtq_reason */
    uint16_t next_avail;           /* first chain not finished: index; packed: slot, wrap bit 15 */
    uint16_t avail_idx;            /* the driver's, as it stands; packed: next_avail */
    uint32_t in_use;               /* 0 while stopped or disabled */
    uint64_t calls_sent;           /* since the ring started, as all that follows */
    uint64_t calls_spared;         /* that the driver did not ask for */
    uint64_t drops[32];            /* by enum drop; those that lie with this ring */
};

/* ---- memory.c */

/* Maps size_bytes of fd from offset on, as guest-physical address gpa and front-end address user.
 * -EINVAL: zero, overflowing; -EBADF: not memory (memfd, tmpfs, hugetlbfs); -EFBIG: the file is
 * shorter; -EMFILE: more regions than the process may have; mmap's errors.  When the file shrinks
 * beneath the mapping, the port's memory is lost: see vhost_port_memory_lost(). */
int mem_region_map(struct port *p, int fd, uint64_t gpa, uint64_t size_bytes, uint64_t user,
                   uint64_t offset, struct mem_region **out);
void mem_region_unmap(struct mem_region *r);
/* NUMA node that holds the region's first byte, or -errno when the kernel does not tell. */
int mem_region_node(const struct mem_region *r);
struct mem_table *mem_table_new(void);
void mem_table_free(struct mem_table *t);
/* Any time: lists these regions from now on, which must outlive the list.  What was listed before
 * is freed by mem_table_reap(), and may be unmapped, when every worker is past this.  -EEXIST: two
 * overlap; -ENOSPC: too many; then nothing has changed. */
int mem_table_set(struct mem_table *t, struct mem_region *const *regions, uint32_t count);
void mem_table_reap(struct mem_table *t);

/* ---- dirty.c */

/* Maps size_bytes of fd from offset on as a log of written pages, a bit for each 4 KiB.  Errors:
 * those of mem_region_map(). */
int dirty_log_new(struct port *p, int fd, uint64_t size_bytes, uint64_t offset,
                  struct dirty_log **out);
void dirty_log_free(struct dirty_log *log);
/* Any time: how often a page was written that the log has no bit for. */
uint64_t dirty_log_beyond(const struct dirty_log *log);

/* ---- vhost_port.c */

struct port *vhost_port_new(uint16_t id);
void vhost_port_free(struct port *p);
/* Becomes readable when a ring broke or memory was lost. */
int vhost_port_event_fd(const struct port *p);
/* 1 once memory was lost; vhost_port_reset() forgets it, for the next connection. */
uint32_t vhost_port_memory_lost(const struct port *p);
void vhost_port_reset(struct port *p);
/* Pairs that the control queue may switch between, and what it is set to. */
void vhost_port_set_max_pairs(struct port *p, uint32_t pairs);
uint32_t vhost_port_pairs(const struct port *p);
/* The guest's RX rings that transmit uses from now on; the former set is kept for those in the
 * middle of it until vhost_port_reap(), which is called when every worker is past this. */
int vhost_port_set_tx(struct port *p, struct vhost_queue *const *queues, uint32_t count);
void vhost_port_reap(struct port *p);
/* While held, a port without rings makes those wait who can, instead of dropping what they send:
 * for rings that are about to go on.  Any time. */
void vhost_port_hold(struct port *p, uint32_t held);

/* ---- announce.c */

/* A receive queue like any other, to be listed by whoever announces. */
struct rxq *vhost_port_announcer(struct port *p);
/* Any time: everyone on the bridge shall hear of mac (6 bytes) from this port.  -EAGAIN: too many
 * are waiting. */
int vhost_port_announce(struct port *p, const uint8_t *mac);

/* ---- call.c */

/* Tells the front-end through one of its descriptors, an event counter or a socket, once. */
void vhost_signal(int fd);

/* ---- vhost_queue.c */

/* -EINVAL: size or alignment; -EFAULT: the rings are not in the table's memory. */
int vhost_queue_start(struct port *p, struct mem_table *t, const struct vhost_ring *ring,
                      struct vhost_queue **out);
void vhost_queue_free(struct vhost_queue *q);
/* A TX or control ring's. */
struct rxq *vhost_queue_rxq(struct vhost_queue *q);
/* Any time. */
void vhost_queue_enable(struct vhost_queue *q, uint32_t enabled);
/* Any time; the former fd may be closed when every worker is past it.  Calls once, so that nothing
 * is missed. */
void vhost_queue_set_call(struct vhost_queue *q, int fd);
void vhost_queue_status_read(const struct vhost_queue *q, struct vhost_queue_status *out);
