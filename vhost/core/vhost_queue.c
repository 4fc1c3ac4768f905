/* vhost_queue.c - a ring's start and end, its calls and its status.
 *
 * Untrusted:  what the front-end told about the ring: checked here and in virtq_init().
 * Threads:    see vhost_queue.h.
 */
#include <errno.h>
#include <unistd.h>

#include "vhost/core/vhost_port.h"

static bool queue_arm(struct rxq *rxq)
{
    struct vhost_queue *q = CONTAINER_OF(rxq, struct vhost_queue, rxq);
    return virtq_arm(&q->vq);
}

static void queue_disarm(struct rxq *rxq)
{
    virtq_disarm(&CONTAINER_OF(rxq, struct vhost_queue, rxq)->vq);
}

int vhost_queue_start(struct port *p, struct mem_table *t, const struct vhost_ring *ring,
                      struct vhost_queue **out)
{
    struct vhost_queue *q = aligned_alloc(CACHE_LINE, (sizeof(*q) + CACHE_LINE - 1) /
                                                          CACHE_LINE * CACHE_LINE);
    if (q == NULL)
        return -ENOMEM;
    memset(q, 0, sizeof(*q));
    int rc = virtq_init(&q->vq, t, ring, &vhost_port_of(p)->alarm.lost);
    if (rc == 0 && ring->role == VHOST_ROLE_RX) {
        q->tx = calloc(1, sizeof(*q->tx));
        rc = q->tx == NULL ? -ENOMEM : 0;
    }
    if (rc < 0) {
        virtq_fini(&q->vq);
        free(q);
        return rc;
    }
    q->port = vhost_port_of(p);
    q->header_bytes = vnet_header_bytes(ring->features);
    q->enabled = ring->enabled;
    q->call = call_of(ring->call_fd);
    q->index = ring->index;
    q->role = ring->role;
    if (ring->role == VHOST_ROLE_RX) {
        q->tx->put = vhost_put_for(q->vq.kind);
        q->tx->grants = vnet_grants(ring->features);
        q->tx->guest_csum = (ring->features & VNET_F_GUEST_CSUM) != 0;
        q->tx->mergeable = (ring->features & VNET_F_MRG_RXBUF) != 0;
    }
    bool control = ring->role == VHOST_ROLE_CONTROL;
    struct vhost_rx_fns rx = vhost_rx_for(q->vq.kind);
    q->rxq = (struct rxq){.burst = control ? ctrlq_burst : rx.burst,
                          .done = control ? ctrlq_done : rx.done,
                          .arm = queue_arm,
                          .disarm = queue_disarm,
                          .port = p,
                          .fd = ring->kick_fd};
    virtq_disarm(&q->vq);
    /* What was given back before we last stopped may not have been told. */
    call_make(q->call, CALL_CONTROL);
    *out = q;
    return 0;
}

void vhost_queue_free(struct vhost_queue *q)
{
    if (q->role == VHOST_ROLE_RX)
        free(q->tx);
    virtq_fini(&q->vq);
    free(q);
}

struct rxq *vhost_queue_rxq(struct vhost_queue *q) { return &q->rxq; }

void vhost_queue_enable(struct vhost_queue *q, uint32_t enabled)
{
    store_relaxed(&q->enabled, enabled);
}

void vhost_queue_set_call(struct vhost_queue *q, int fd)
{
    int call = call_of(fd);
    store_relaxed(&q->call, call);
    call_make(call, CALL_CONTROL);
}

void vhost_queue_status_read(const struct vhost_queue *q, struct vhost_queue_status *out)
{
    uint16_t next = load_relaxed(&q->vq.next);
    bool packed = q->vq.kind & VIRTQ_PACKED;
    *out = (struct vhost_queue_status){.reason = load_relaxed(&q->vq.reason),
                                       .next_avail = next,
                                       .avail_idx = packed ? next : guest_load16(&q->vq.avail->idx),
                                       .in_use = load_relaxed(&q->enabled),
                                       .calls_sent = load_relaxed(&q->calls_sent),
                                       .calls_spared = load_relaxed(&q->calls_spared)};
    for (uint32_t i = 0; i < DROP_REASONS; i++)
        out->drops[i] = load_relaxed(&q->drops[i]);
}

void vhost_queue_publish(struct vhost_queue *q, struct breath *b)
{
    struct counters *c = port_counters(&q->port->port, b);
    virtq_publish(&q->vq, q->vq.kind);
    if (virtq_wants_call(&q->vq, q->vq.kind)) {
        call_make(load_relaxed(&q->call), b->worker);
        counter_add(&c->notifications_sent, 1);
        counter_add(&q->calls_sent, 1);
    } else {
        counter_add(&c->notifications_spared, 1);
        counter_add(&q->calls_spared, 1);
    }
}

void vhost_queue_drop(struct vhost_queue *q, const struct breath *b, enum drop reason,
                      uint32_t packets)
{
    port_drop(&q->port->port, b, reason, packets);
    add_relaxed(&q->drops[reason], packets); /* several workers may give one ring up at once */
}

void vhost_queue_report(struct vhost_queue *q)
{
    uint64_t one = 1;
    if (q->reported)
        return;
    q->reported = true;
    if (write(q->port->alarm.event_fd, &one, sizeof(one)) < 0)
        return; /* full: the control thread has not looked at the former events yet */
}
