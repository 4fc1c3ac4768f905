/* vhost_queue.h - one started ring of a vhost port, in any of its three roles.
 *
 * Untrusted:  the ring and its buffers; see virtqueue.h.
 * Threads:    TX and control rings: the worker that polls the rxq.  RX rings: the worker that holds
 *             `lock`.  Made and freed by the control thread while no worker can reach them;
 *             enabled and call_fd it may store at any time.
 */
#ifndef VHOST_QUEUE_H
#define VHOST_QUEUE_H

#include "vhost/core/virtqueue.h"
#include "vhost/core/vnet.h"

/* A burst ends when it has read so many descriptors: more than BURST of the longest chains that
 * make a packet.  Descriptors of no bytes cost the guest nothing and us as much as any. */
enum { BURST_DESCS = 4096 };

/* A guest's TX or control ring: what the last burst described. */
struct vhost_rx {
    uint32_t count;            /* chains */
    uint32_t walked;           /* descriptors of long chains */
    uint16_t heads[BURST];
    uint32_t bytes[BURST];
    bool gso[BURST];
};

/* PUT_CUT: as several packets.  PUT_TOO_BIG, within vhost_put.c: the ring will never have room. */
enum vhost_put { PUT_DONE, PUT_CUT, PUT_DROPPED, PUT_FULL, PUT_TOO_BIG };

/* A guest's RX ring: room that was found for one packet, and the wait for more. */
struct vhost_tx {
    struct trylock lock;
    uint32_t grants;                 /* vnet_grants() */
    bool guest_csum;
    bool mergeable;
    bool gave_up;                    /* waited in vain; drops until avail_idx moves */
    uint16_t waited_at;              /* avail_idx at that time */
    uint64_t waiting_since_ns;       /* 0: not waiting */
    uint16_t heads[VIRTQ_MAX_SEGS];  /* the chains of one packet */
    uint32_t sizes[VIRTQ_MAX_SEGS];
    struct segment segs[VIRTQ_MAX_SEGS];
};

struct vhost_queue {
    struct rxq rxq;
    struct virtq vq;
    struct vhost_port *port;
    uint32_t header_bytes;
    uint32_t enabled;
    int call_fd;
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

/* ---- vhost_rx.c, ctrlq.c: functions of struct rxq */

uint32_t vhost_rx_burst(struct rxq *rxq, struct breath *b, struct packet **out, uint32_t max);
void vhost_rx_done(struct rxq *rxq, struct breath *b, uint32_t n);
uint32_t ctrlq_burst(struct rxq *rxq, struct breath *b, struct packet **out, uint32_t max);
void ctrlq_done(struct rxq *rxq, struct breath *b, uint32_t n);

/* ---- vhost_put.c */

/* Writes one packet to the ring, not yet published, whatever has to be done for the receiver. */
enum vhost_put vhost_put_packet(struct vhost_queue *q, struct breath *b, struct packet *p);

#endif
