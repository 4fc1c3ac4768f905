/* vhost_port.h - a virtual machine's network card, seen from the switch.
 *
 * Untrusted:  nothing in these structs.
 * Threads:    control thread, but for what says otherwise.
 */
#ifndef VHOST_PORT_H
#define VHOST_PORT_H

#include "vhost/core/announce.h"
#include "vhost/core/vhost_queue.h"

/* The RX rings that take frames.  Immutable; swapped by pointer. */
struct vhost_txset {
    struct vhost_txset *former;      /* the one before, still in someone's hands */
    uint32_t count;
    struct vhost_queue *queues[VHOST_MAX_PAIRS];
};

struct vhost_port {
    struct port port;
    struct vhost_txset *txset;       /* any worker reads it, once per transmit */
    struct mem_alarm alarm;          /* any thread sets it */
    struct announcer announcer;
    uint32_t held;                   /* its rings are about to go on; any worker reads it */
    uint32_t max_pairs;
    uint32_t pairs;                  /* set by the guest's command, by the worker that serves it */
};

static inline struct vhost_port *vhost_port_of(const struct port *p)
{
    return CONTAINER_OF(p, struct vhost_port, port);
}

/* vhost_tx.c */
uint32_t vhost_port_tx(struct port *p, struct breath *b, struct packet *const *pkts, uint32_t n,
                       uint32_t flags);

#endif
