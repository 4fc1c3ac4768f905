/* port.h - the plug: a port gives and takes bursts of packets.
 *
 * A port type fills in the functions of struct port and of one struct rxq per receive queue; a
 * worker calls them and knows no more.  Embed both as the first or any member and use CONTAINER_OF.
 *
 * Untrusted:  nothing in these structs; port types check what comes from guests and peers.
 * Threads:    rxq functions: the worker that polls the queue.  tx: any worker, also at the same
 *             time; the port locks per queue (struct trylock).  Python changes an rxq only while no
 *             published snapshot lists it; what tx reads is swapped by pointer, old memory is freed
 *             after worker_sync() of all workers.
 */
#ifndef VSW_PORT_H
#define VSW_PORT_H

#include "vswitch/core/base.h"
#include "vswitch/core/abi.h"
#include "vswitch/core/packet.h"

_Static_assert((int)HEAD_CAPACITY == (int)HEAD_BYTES, "packet.h repeats abi.h, which has no guard");
_Static_assert((int)DROP_REASONS <= 32, "struct counters has room for 32 reasons");

/* What a worker lends to the port functions it calls. */
struct punt_ring;

struct breath {
    uint64_t now_ns;             /* read once per breath */
    uint32_t worker;             /* index: own counters, own lane */
    uint32_t tx_queue;           /* preferred queue of a destination; see struct rxq */
    uint32_t passed_on;          /* packets that the burst at hand moved itself, all the way */
    struct packet *packets;      /* BURST of them, for rx bursts that keep none of their own */
    struct segment *segs;        /* SEGMENT_POOL of them, ditto; all free at each rx burst */
    struct punt_ring *punts;
};

enum { SEGMENT_POOL = 1024 };    /* a burst ends early when its packets use them up */

/* A receive queue: where a worker takes packets from.
 *
 * burst:  describes up to max packets, oldest first, starting at the first that is not done;
 *         without done() in between it yields the same packets again, read anew, and possibly more.
 *         Bounded in packets and in bytes (RX_BURST_BYTES).  Packets dropped by the port itself are
 *         counted and do not appear.
 * done:   the first n packets of the last burst are finished; their descriptors go back.  Here, not
 *         in burst, rx_packets and rx_bytes are counted; tx counts what it delivers.
 * arm:    asks for a notification on fd; true when packets came in meanwhile (then not asleep).
 * disarm: notifications are not wanted (the queue is being polled).
 * fd:     watched edge-triggered while a snapshot lists the queue; -1: none (then never asleep).
 * tx_queue: which of a destination's queues its packets go to: its worker's number, so that workers
 *         do not meet.  A queue that moves to another worker keeps it until it was quiet for long:
 *         no flow shall overtake itself in another queue of the destination.
 * sent:   worker's: bit i is set when packet i of the next burst was sent already, because one
 *         before it waits for a full destination.  A burst that drops packets by itself shifts
 *         their bits out.
 */
struct rxq {
    uint32_t (*burst)(struct rxq *q, struct breath *b, struct packet **out, uint32_t max);
    void (*done)(struct rxq *q, struct breath *b, uint32_t n);
    bool (*arm)(struct rxq *q);
    void (*disarm)(struct rxq *q);
    struct port *port;
    int fd;
    uint32_t sent;
    uint32_t tx_queue;
    uint64_t flood_paid_ns;      /* forward.c's: up to when its flooding is paid for */
    uint64_t quiet_since_ns;     /* worker's: 0 while busy */
    bool armed;                  /* worker's: off the poll list until fd tells */
    bool homed;                  /* worker's: tx_queue is chosen */
    bool sleeps;                 /* worker's: fd is watched, so the queue may be armed */
    struct rxq_counters counters; /* worker's; anyone reads */
};

enum { RX_BURST_BYTES = 256 * 1024 };

enum tx_flags {
    TX_MAY_WAIT = 1,             /* the caller keeps what is not taken and comes again */
};

/* tx: takes the first packets of pkts, in order, and returns how many; each was delivered, or
 *     dropped and counted here.  With TX_MAY_WAIT a full queue (or one that another worker holds)
 *     may take fewer, for at most TX_WAIT_NS until it drops; without, all are taken.  Must not
 *     change the packets other than head bytes it has to complete (checksums): a flooded packet
 *     goes to several ports.
 */
struct port {
    uint32_t (*tx)(struct port *p, struct breath *b, struct packet *const *pkts, uint32_t n,
                   uint32_t flags);
    struct counters *counters;   /* MAX_WORKERS of them, each on cache lines of its own */
    /* The mesh's: by peer, the largest IP packet that it can be sent; the control thread writes
     * while workers read.  NULL: none is smaller than its bridge's. */
    const uint32_t *peer_mtus;
    uint16_t id;                 /* unique in the switch, < MAX_PORTS */
};

enum { TX_WAIT_NS = 100 * 1000, TX_HOLD_BYTES = 64 * 1024 };

/* ---- port.c */

int port_init(struct port *p, uint16_t id);   /* allocates counters */
void port_fini(struct port *p);

#define PORT_COUNTERS_STRIDE ((sizeof(struct counters) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE)

static inline struct counters *port_counters(const struct port *p, const struct breath *b)
{
    return (struct counters *)(void *)((char *)p->counters + b->worker * PORT_COUNTERS_STRIDE);
}

static inline void port_drop(const struct port *p, const struct breath *b, enum drop reason,
                             uint32_t packets)
{
    counter_add(&port_counters(p, b)->drops[reason], packets);
}

/* ---- punt.c: one ring per worker, worker writes, control thread reads */

/* False (and nothing done) when the ring is full. */
bool punt_put(struct punt_ring *r, const struct punt *head, const void *data, uint32_t len_bytes);

#endif
