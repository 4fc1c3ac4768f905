/* tap.c - a tap device as a port: the host itself, with offloads passed both ways.
 *
 * The kernel has no buffers of ours to lend, so frames are read into a fixed area, reused every
 * breath.  Writes are gathered from where the frame lies: one copy, the kernel's.
 *
 * Untrusted:  frames that the kernel hands us: any process of the host may have made them.
 * Threads:    rx: the worker that polls it.  tx: any worker; the kernel takes whole frames.
 */
#include "vswitch/core/port.h"

#include <linux/virtio_net.h>
#include <sys/uio.h>
#include <unistd.h>

enum { SLOT_BYTES = 66 * 1024, TAP_BURST = 16, HEADER_BYTES = 12 };
enum { CUT_MAX_PIECES = 128 }; /* a system call each; Linux makes no larger USO frames */

_Static_assert(sizeof(struct virtio_net_hdr_mrg_rxbuf) == HEADER_BYTES, "TUNSETVNETHDRSZ says 12");

struct tap_port {
    struct port port;
    struct rxq rxq;
    int fd;
    uint32_t held;                 /* packets read and not done yet, oldest first from slot first */
    uint32_t first;
    uint64_t full_since_ns;        /* the device takes nothing since */
    struct packet packets[TAP_BURST];
    struct segment segs[TAP_BURST];
    uint8_t (*slots)[SLOT_BYTES];  /* TAP_BURST of them, header included */
};

/* ---- receive: from the host */

static bool take_offload(struct packet *p, const struct virtio_net_hdr *h)
{
    static const uint8_t udp_gso = 5; /* VIRTIO_NET_HDR_GSO_UDP_L4; not in older headers */
    uint8_t type = h->gso_type & (uint8_t)~VIRTIO_NET_HDR_GSO_ECN;
    p->flags = 0;
    p->gso_type = GSO_NONE;
    p->gso_size = 0;
    if (h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) {
        p->flags |= PKT_NEEDS_CSUM;
        p->csum_start = h->csum_start;
        p->csum_offset = h->csum_offset;
    } else if (h->flags & VIRTIO_NET_HDR_F_DATA_VALID) {
        p->flags |= PKT_CSUM_VALID;
    }
    if (type == VIRTIO_NET_HDR_GSO_TCPV4)
        p->gso_type = GSO_TCP4;
    else if (type == VIRTIO_NET_HDR_GSO_TCPV6)
        p->gso_type = GSO_TCP6;
    else if (type == udp_gso)
        p->gso_type = GSO_UDP4; /* or IPv6's: pkt_offload_ok() */
    else if (type != VIRTIO_NET_HDR_GSO_NONE)
        return false;
    if (p->gso_type == GSO_NONE)
        return p->flags == 0 || pkt_offload_ok(p);
    p->gso_size = h->gso_size;
    if (h->gso_type & VIRTIO_NET_HDR_GSO_ECN) /* says nothing about a frame that is not cut */
        p->flags |= PKT_GSO_ECN;
    return pkt_offload_ok(p);
}

static bool describe(struct tap_port *t, struct breath *b, uint32_t slot, size_t got)
{
    struct packet *p = &t->packets[slot];
    uint8_t *frame = t->slots[slot] + HEADER_BYTES;
    struct virtio_net_hdr header;
    if (got < HEADER_BYTES + 14u) {
        port_drop(&t->port, b, DROP_SHORT, 1);
        return false;
    }
    memcpy(&header, t->slots[slot], sizeof(header));
    t->segs[slot] = (struct segment){frame, got - HEADER_BYTES};
    p->segs = &t->segs[slot];
    p->segs_count = 1;
    p->len_bytes = (uint32_t)(got - HEADER_BYTES);
    p->head_len = (uint16_t)min_u32(p->len_bytes, HEAD_BYTES);
    p->ingress = t->port.id;
    memcpy(p->head, frame, p->head_len);
    if (!take_offload(p, &header)) {
        port_drop(&t->port, b, DROP_BAD_OFFLOAD, 1);
        return false;
    }
    return true;
}

/* Into the first slot behind those held; false: there is none that is right. */
static bool read_frame(struct tap_port *t, struct breath *b)
{
    uint32_t slot = (t->first + t->held) % TAP_BURST;
    ssize_t got;
    do {
        got = read(t->fd, t->slots[slot], SLOT_BYTES);
    } while (got > 0 && !describe(t, b, slot, (size_t)got));
    t->held += got > 0;
    return got > 0;
}

static uint32_t tap_burst(struct rxq *q, struct breath *b, struct packet **out, uint32_t max)
{
    struct tap_port *t = CONTAINER_OF(q, struct tap_port, rxq);
    uint32_t want = min_u32(max, TAP_BURST), n = 0, bytes = 0;
    /* Those that wait are described anew: routing and checksums have written into their heads. */
    for (uint32_t i = 0; i < t->held; i++) {
        uint32_t slot = (t->first + i) % TAP_BURST;
        (void)describe(t, b, slot, HEADER_BYTES + t->segs[slot].len_bytes); /* was right before */
    }
    while (n < want && bytes < RX_BURST_BYTES && (n < t->held || read_frame(t, b))) {
        out[n] = &t->packets[(t->first + n) % TAP_BURST];
        bytes += out[n++]->len_bytes;
    }
    return n;
}

static void tap_done(struct rxq *q, struct breath *b, uint32_t n)
{
    struct tap_port *t = CONTAINER_OF(q, struct tap_port, rxq);
    struct counters *c = port_counters(&t->port, b);
    for (uint32_t i = 0; i < n; i++) {
        const struct packet *p = &t->packets[(t->first + i) % TAP_BURST];
        counter_add(&c->rx_bytes, p->len_bytes);
        counter_add(&c->rx_gso_packets, p->gso_type != GSO_NONE);
    }
    counter_add(&c->rx_packets, n);
    t->first = (t->first + n) % TAP_BURST;
    t->held -= n;
}

/* The kernel tells of every arrival while the file is watched, so there is nothing to ask for: what
 * came before the last read that found nothing was taken, what comes later makes an edge. */
static bool tap_arm(struct rxq *q)
{
    (void)q;
    return false;
}

static void tap_disarm(struct rxq *q)
{
    (void)q;
}

/* ---- transmit: to the host */

static void put_header(const struct packet *p, struct virtio_net_hdr_mrg_rxbuf *out)
{
    static const uint8_t gso[] = {[GSO_NONE] = VIRTIO_NET_HDR_GSO_NONE,
                                  [GSO_TCP4] = VIRTIO_NET_HDR_GSO_TCPV4,
                                  [GSO_TCP6] = VIRTIO_NET_HDR_GSO_TCPV6,
                                  [GSO_UDP4] = 5, [GSO_UDP6] = 5};
    struct virtio_net_hdr *h = &out->hdr;
    memset(out, 0, sizeof(*out));
    if (p->flags & PKT_NEEDS_CSUM) {
        h->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
        h->csum_start = p->csum_start;
        h->csum_offset = p->csum_offset;
    } else if (p->flags & PKT_CSUM_VALID) {
        h->flags = VIRTIO_NET_HDR_F_DATA_VALID;
    }
    if (p->gso_type != GSO_NONE) {
        h->gso_type = gso[p->gso_type];
        if (p->flags & PKT_GSO_ECN)
            h->gso_type |= VIRTIO_NET_HDR_GSO_ECN;
        h->gso_size = p->gso_size;
        h->hdr_len = p->l4_offset;
        h->hdr_len += p->l4_protocol == 6 ? (p->head[p->l4_offset + 12] >> 4) * 4u : 8u;
    }
}

static ssize_t write_frame(struct tap_port *t, const struct packet *p)
{
    struct virtio_net_hdr_mrg_rxbuf header;
    struct iovec iov[CUT_SEGMENTS + 1]; /* of a frame its header, its head, and all behind */
    struct pkt_cursor cursor;
    int count = 1;
    const uint8_t *piece;
    put_header(p, &header);
    iov[0] = (struct iovec){&header, sizeof(header)};
    pkt_cursor_init(&cursor, p, 0);
    for (uint32_t n; (n = pkt_cursor_next(&cursor, UINT32_MAX, &piece)) != 0;)
        iov[count++] = (struct iovec){(void *)(uintptr_t)piece, n};
    return writev(t->fd, iov, count);
}

/* True when the packet is dealt with, sent or not. */
static bool send_frame(struct tap_port *t, struct breath *b, const struct packet *p, uint32_t flags)
{
    struct counters *c = port_counters(&t->port, b);
    if (write_frame(t, p) >= 0) {
        counter_add(&c->tx_packets, 1);
        counter_add(&c->tx_bytes, p->len_bytes);
        counter_add(&c->tx_gso_packets, p->gso_type != GSO_NONE);
        store_relaxed(&t->full_since_ns, 0);
        return true;
    }
    if (errno != EAGAIN) { /* EIO: the device is down */
        port_drop(&t->port, b, errno == EIO ? DROP_PORT_DOWN : DROP_SEND, 1);
        return true;
    }
    uint64_t since = load_relaxed(&t->full_since_ns);
    if (since == 0)
        store_relaxed(&t->full_since_ns, b->now_ns);
    if ((flags & TX_MAY_WAIT) && (since == 0 || b->now_ns - since < TX_WAIT_NS))
        return false;
    port_drop(&t->port, b, DROP_RING_FULL, 1);
    return true;
}

/* The datagrams that a large frame stands for.  The first one may wait; the rest is not worth
 * remembering how far it got. */
static bool send_cut(struct tap_port *t, struct breath *b, const struct packet *whole,
                     uint32_t flags)
{
    struct segment segs[CUT_SEGMENTS];
    struct packet piece;
    struct gso_cut cut;
    gso_cut_init(&cut, whole, whole->gso_size);
    if (cut.payload_bytes > CUT_MAX_PIECES * cut.mss_bytes) {
        port_drop(&t->port, b, DROP_SEGMENTS, 1);
        return true;
    }
    while (gso_cut_next(&cut, &piece, segs)) {
        if (!send_frame(t, b, &piece, flags))
            return false;
        flags &= ~(uint32_t)TX_MAY_WAIT;
    }
    return true;
}

static uint32_t tap_tx(struct port *port, struct breath *b, struct packet *const *pkts, uint32_t n,
                       uint32_t flags)
{
    struct tap_port *t = CONTAINER_OF(port, struct tap_port, port);
    for (uint32_t i = 0; i < n; i++) {
        if (!send_frame(t, b, pkts[i], flags))
            return i;
    }
    return n;
}

static uint32_t tap_tx_without_uso(struct port *port, struct breath *b,
                                   struct packet *const *pkts, uint32_t n, uint32_t flags)
{
    struct tap_port *t = CONTAINER_OF(port, struct tap_port, port);
    for (uint32_t i = 0; i < n; i++) {
        const struct packet *p = pkts[i];
        bool uso = p->gso_type == GSO_UDP4 || p->gso_type == GSO_UDP6;
        if (!(uso ? send_cut(t, b, p, flags) : send_frame(t, b, p, flags)))
            return i;
    }
    return n;
}

/* ---- life */

struct port *tap_port_new(uint16_t id, int fd, uint32_t uso)
{
    size_t bytes = (sizeof(struct tap_port) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    struct tap_port *t = aligned_alloc(CACHE_LINE, bytes);
    if (!t)
        return NULL;
    memset(t, 0, sizeof(*t));
    t->slots = malloc(TAP_BURST * sizeof(*t->slots));
    if (!t->slots || port_init(&t->port, id) != 0) {
        free(t->slots);
        free(t);
        return NULL;
    }
    t->fd = fd;
    t->port.tx = uso ? tap_tx : tap_tx_without_uso;
    t->rxq = (struct rxq){.burst = tap_burst, .done = tap_done, .arm = tap_arm,
                          .disarm = tap_disarm, .port = &t->port, .fd = fd};
    return &t->port;
}

void tap_port_free(struct port *p)
{
    if (!p)
        return;
    struct tap_port *t = CONTAINER_OF(p, struct tap_port, port);
    close(t->fd);
    port_fini(p);
    free(t->slots);
    free(t);
}

struct rxq *tap_port_rxq(struct port *p)
{
    return &CONTAINER_OF(p, struct tap_port, port)->rxq;
}
