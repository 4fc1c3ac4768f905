/* announce.c - a receive queue that yields RARP requests of the guest behind the port.
 *
 * What switches learn from is the source address alone; the request asks for nothing that anybody
 * would answer.
 *
 * Untrusted:  see announce.h.
 * Threads:    see announce.h.
 * Source:     RFC 903; vhost-user specification, VHOST_USER_SEND_RARP.
 */
#include <sys/eventfd.h>
#include <unistd.h>

#include "vhost/core/vhost_port.h"

static uint32_t announce_burst(struct rxq *rxq, struct breath *b, struct packet **out, uint32_t max)
{
    struct announcer *a = CONTAINER_OF(rxq, struct announcer, rxq);
    uint32_t count = load_acquire(&a->put) - a->taken; /* pairs with vhost_port_announce */
    count = min_u32(count, max);
    for (uint32_t i = 0; i < count; i++) {
        struct packet *p = &b->packets[i];
        uint8_t *frame = a->frames[(a->taken + i) % ANNOUNCE_FRAMES];
        memset(p, 0, offsetof(struct packet, head));
        memcpy(p->head, frame, ANNOUNCE_BYTES);
        b->segs[i] = (struct segment){.base = frame, .len_bytes = ANNOUNCE_BYTES};
        p->segs = &b->segs[i];
        p->segs_count = 1;
        p->len_bytes = p->head_len = ANNOUNCE_BYTES;
        p->ingress = rxq->port->id;
        out[i] = p;
    }
    return count;
}

static void announce_done(struct rxq *rxq, struct breath *b, uint32_t n)
{
    struct announcer *a = CONTAINER_OF(rxq, struct announcer, rxq);
    struct counters *c = port_counters(rxq->port, b);
    store_release(&a->taken, a->taken + n); /* pairs with vhost_port_announce */
    counter_add(&c->rx_packets, n);
    counter_add(&c->rx_bytes, (uint64_t)n * ANNOUNCE_BYTES);
}

static bool announce_arm(struct rxq *rxq)
{
    struct announcer *a = CONTAINER_OF(rxq, struct announcer, rxq);
    return load_acquire(&a->put) != a->taken; /* the event comes after put, and is seen later */
}

int announcer_init(struct announcer *a, struct port *p)
{
    a->rxq = (struct rxq){.burst = announce_burst,
                          .done = announce_done,
                          .arm = announce_arm,
                          .port = p,
                          .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    return a->rxq.fd < 0 ? -errno : 0;
}

void announcer_fini(struct announcer *a) { close(a->rxq.fd); }

struct rxq *vhost_port_announcer(struct port *p) { return &vhost_port_of(p)->announcer.rxq; }

int vhost_port_announce(struct port *p, const uint8_t *mac)
{
    static const uint8_t request[] = {0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3};
    struct announcer *a = &vhost_port_of(p)->announcer;
    uint64_t one = 1;
    if (a->put - load_acquire(&a->taken) == ANNOUNCE_FRAMES) /* pairs with announce_done */
        return -EAGAIN;
    uint8_t *frame = a->frames[a->put % ANNOUNCE_FRAMES];
    memset(frame, 0, ANNOUNCE_BYTES);
    memset(frame, 0xff, 6);
    memcpy(frame + 6, mac, 6);
    memcpy(frame + 12, request, sizeof(request));
    memcpy(frame + 22, mac, 6); /* sender and target hardware address, each before its IP */
    memcpy(frame + 32, mac, 6);
    store_release(&a->put, a->put + 1); /* pairs with announce_burst */
    return write(a->rxq.fd, &one, sizeof(one)) < 0 && errno != EAGAIN ? -errno : 0;
}
