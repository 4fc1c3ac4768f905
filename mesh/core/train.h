/* train.h - equal-sized records for one address, handed to the kernel with one call.
 *
 * Records are sealed into the area one behind the other; a train is a run of them, all of one size
 * but the last, which UDP_SEGMENT cuts into datagrams again (at most 64).
 * Trains that the kernel does not take yet wait in the area, in order.
 *
 * Untrusted:  nothing; what is in the area is sealed.
 * Threads:    the worker that owns the lane.
 * Source:     udp(7), UDP_SEGMENT.
 */
#ifndef MESH_TRAIN_H
#define MESH_TRAIN_H

#include "mesh/core/session.h"

enum {
    TRAIN_RECORDS = 64,
    /* With IPv6, UDP and a tagged Ethernet header at most 65536, a device's usual limit for
     * segmentation: beyond it the kernel cuts before the device, at several times the cost
     * (tests/platform/test_udp.py). */
    TRAIN_BYTES = 65536 - 40 - 8 - 22,
    TRAIN_AREA_BYTES = 256 * 1024,
    TRAIN_QUEUE = 32,
    /* The largest frame, and whether there is room for it before it is begun. */
    TRAIN_FRAME_RECORDS = 1024,
    TRAIN_FRAME_TRAINS = TRAIN_FRAME_RECORDS / TRAIN_RECORDS + TRAIN_AREA_BYTES / TRAIN_BYTES + 2,
};

_Static_assert((int)TRAIN_FRAME_TRAINS <= (int)TRAIN_QUEUE, "an empty queue takes any frame");

struct train {
    struct mesh_endpoint to;
    const struct session *session;
    uint32_t offset;          /* of the first unsent record in the area */
    uint32_t len_bytes;
    uint16_t record_bytes;    /* of all records but the last */
    uint16_t records;
    uint16_t packets;         /* that end in it, for the counters */
    uint16_t gso_packets;
    bool open;                /* takes more records */
    uint64_t packet_bytes;
};

struct train_queue {
    int fds[2];               /* by endpoint_by_own(): the common port's, the lane's own */
    uint32_t lane;
    bool v6;                  /* the sockets' family */
    bool stuck;               /* the kernel used up its wait and has taken nothing since */
    uint32_t first;
    uint32_t count;
    uint32_t used_bytes;      /* of the area */
    uint64_t blocked_since_ns;
    uint64_t no_gso_until_ns; /* the route's device cannot do it */
    uint8_t *area;            /* the owner's */
    struct train trains[TRAIN_QUEUE];
};

enum train_room { TRAIN_ROOM, TRAIN_WAIT, TRAIN_FULL };

/* own_fd: -1: none.  area: what trains are in, TRAIN_AREA_BYTES where train_record() is to be
 * used. */
int train_init(struct train_queue *q, uint32_t lane, int fd, int own_fd, uint8_t *area);

/* Whether a frame of that many records and bytes can be sealed now; sends what is waiting first.
 * WAIT: only with TX_MAY_WAIT.  FULL: the caller drops its packet as DROP_SEND. */
enum train_room train_make_room(struct train_queue *q, const struct port *port, struct breath *b,
                                uint32_t records, uint32_t bytes, uint32_t flags);
/* Memory for one record, part of a train to that address; there is room. */
uint8_t *train_record(struct train_queue *q, const struct port *port, struct breath *b,
                      const struct session *s, const struct mesh_endpoint *to, uint32_t len_bytes);
/* One datagram that lies in the area already, at offset: to be sent from there.  Of a queue that
 * has nothing else.  False: the kernel is full, and so is the queue. */
bool train_pass_on(struct train_queue *q, const struct port *port, struct breath *b,
                   const struct session *s, const struct mesh_endpoint *to, uint32_t offset,
                   uint32_t len_bytes);
/* The last record ended a packet; frame_bytes: of its Ethernet frame, as counters count it. */
void train_end_packet(struct train_queue *q, uint32_t frame_bytes, bool gso);
/* Sends all that the kernel takes. */
void train_flush(struct train_queue *q, const struct port *port, struct breath *b);

static inline bool train_pending(const struct train_queue *q)
{
    return q->count != 0;
}

/* One datagram at once, for what is not data of a worker.  0 or -errno. */
int train_send_one(int fd, bool v6, const struct mesh_endpoint *to, const uint8_t *bytes,
                   uint32_t len_bytes);

#endif
