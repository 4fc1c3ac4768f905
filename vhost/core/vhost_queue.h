/* vhost_queue.h - one started ring of a vhost port, in any of its three roles.
 *
 * Untrusted:  the ring and its buffers; see virtqueue.h.
 * Threads:    TX and control rings: the worker that polls the rxq.  RX rings: the worker that holds
 *             `lock`.  Made and freed by the control thread while no worker can reach them;
 *             enabled and call it may store at any time.
 */
#ifndef VHOST_QUEUE_H
#define VHOST_QUEUE_H

#include "vhost/core/ring.h"
#include "vhost/core/call.h"
#include "vhost/core/vnet.h"

/* A burst ends when it has read so many descriptors: more than BURST of the longest chains that
 * make a packet.  Descriptors of no bytes cost the guest nothing and us as much as any. */
enum { BURST_DESCS = 4096 };

/* A guest's TX or control ring: what the last burst described. */
struct vhost_rx {
    uint32_t count;            /* chains */
    uint32_t walked;           /* descriptors of long chains */
    struct virtq_elem elems[BURST];
    uint32_t bytes[BURST];
    bool gso[BURST];
};

/* PUT_CUT: as several packets.  From PUT_FULL on nothing was done with the packet.  PUT_NOT_YET:
 * another frame is half cut, and waits for room, or gives up.  PUT_TOO_BIG, within vhost_put.c: the
 * ring will never have room. */
enum vhost_put { PUT_DONE, PUT_CUT, PUT_DROPPED, PUT_FULL, PUT_NOT_YET, PUT_TOO_BIG };

/* A large frame of which some pieces were delivered before the ring ran full; next == 0: none. */
struct vhost_cut {
    uint32_t next;                   /* payload offset and number of the next piece */
    uint32_t count;
    const uint8_t *base;             /* by these it is known again */
    uint32_t len_bytes;
    uint16_t ingress;
    uint8_t head[HEAD_BYTES];
    uint64_t since_ns;
};

/* What became of a burst while the queue was held. */
struct vhost_hold {
    uint32_t taken;                  /* packets finished, delivered or dropped */
    uint32_t delivered;
    uint32_t gso;
    uint64_t bytes;
    enum vhost_put stopped;          /* PUT_FULL or PUT_NOT_YET; PUT_DONE: nothing did */
};

struct vhost_queue;
/* Writes as many packets as one hold of the lock may, whatever has to be done for the receiver. */
typedef void vhost_put_fn(struct vhost_queue *q, struct breath *b, struct packet *const *pkts,
                          uint32_t n, struct vhost_hold *h);

/* A guest's RX ring: room that was found for one packet, and the wait for more. */
struct vhost_tx {
    struct trylock lock;
    vhost_put_fn *put;
    uint32_t grants;                 /* vnet_grants() */
    bool guest_csum;
    bool mergeable;
    bool gave_up;                    /* waited in vain; drops until there is a chain at waited_at */
    uint16_t missing_at;             /* where the last PUT_FULL found none */
    uint16_t waited_at;
    uint64_t waiting_since_ns;       /* 0: not waiting */
    struct vhost_cut cut;
    struct virtq_elem elems[VIRTQ_MAX_SEGS]; /* the chains of one packet */
    uint32_t sizes[VIRTQ_MAX_SEGS];
    struct segment segs[VIRTQ_MAX_SEGS];
    uint64_t gpas[VIRTQ_MAX_SEGS];   /* of segs; logged rings only */
};

struct vhost_queue {
    struct rxq rxq;
    struct virtq vq;
    struct vhost_port *port;
    uint32_t header_bytes;
    uint32_t enabled;
    int call;                        /* call_of(), stored at any time */
    bool reported;                   /* that it broke */
    uint32_t index;
    uint32_t role;
    uint64_t calls_sent;             /* whoever publishes */
    uint64_t calls_spared;
    uint64_t drops[DROP_REASONS];    /* any worker */
    union {
        struct vhost_rx rx;
        struct vhost_tx *tx;
    };
};

/* Gives the used chains to the driver and calls it when it wants that. */
void vhost_queue_publish(struct vhost_queue *q, struct breath *b);
/* Counts packets as dropped, on the ring and on its port. */
void vhost_queue_drop(struct vhost_queue *q, const struct breath *b, enum drop reason,
                      uint32_t packets);
/* Tells the control thread once that the ring broke. */
void vhost_queue_report(struct vhost_queue *q);

/* ---- functions of struct rxq, by kind of ring: vhost_rx.c, ctrlq.c */

struct vhost_rx_fns {
    uint32_t (*burst)(struct rxq *rxq, struct breath *b, struct packet **out, uint32_t max);
    void (*done)(struct rxq *rxq, struct breath *b, uint32_t n);
};

struct vhost_rx_fns vhost_rx_for(uint32_t kind);
uint32_t ctrlq_burst(struct rxq *rxq, struct breath *b, struct packet **out, uint32_t max);
void ctrlq_done(struct rxq *rxq, struct breath *b, uint32_t n);

/* ---- vhost_put.c */

vhost_put_fn *vhost_put_for(uint32_t kind);
/* Whether the frame was begun. */
bool vhost_cut_is_of(const struct vhost_cut *cut, const struct packet *p);

#endif
