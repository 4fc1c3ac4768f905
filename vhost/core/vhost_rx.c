/* vhost_rx.c - takes frames from a guest: describes the chains of its TX ring as packets.
 *
 * A burst gives nothing back, so it may be taken again; what cannot become a packet is given back
 * when it is the oldest, and ends the burst before it when it is not.
 *
 * Untrusted:  ring and buffers.  The virtio-net header and the frame's first bytes are copied once;
 *             nothing decides by what is in guest memory afterwards.
 * Threads:    the worker that polls the queue.
 * Source:     virtio 1.2, section 5.1.6.2.
 */
#include "vhost/core/vhost_port.h"

/* Beside enum drop. */
enum { KEPT = -1, NONE = -2 };

enum {
    SHORTEST_FRAME = 14,                           /* addresses and type */
    CHAIN_SEGMENTS = MAX_SEGMENTS + VNET_MAX_BYTES /* a byte of header in each of the first */
};

EACH_KIND int describe(struct vhost_queue *q, uint32_t kind, uint16_t at, struct segment *segs,
                       struct packet *p, struct virtq_elem *elem);
static uint32_t burst_nothing(struct vhost_queue *q, struct breath *b, uint32_t max);

EACH_KIND uint32_t burst(struct rxq *rxq, struct breath *b, struct packet **out, uint32_t max,
                         uint32_t kind)
{
    struct vhost_queue *q = CONTAINER_OF(rxq, struct vhost_queue, rxq);
    struct virtq *vq = &q->vq;
    struct vhost_rx *rx = &q->rx;
    uint32_t n = virtq_usable(vq) ? virtq_at_most(vq, kind, min_u32(max, BURST)) : 0;
    uint32_t count = 0, dropped = 0, segs = 0, bytes = 0, slots = 0;
    if (n == 0 || unlikely(!load_relaxed(&q->enabled)))
        return burst_nothing(q, b, n);
    rx->walked = 0;
    uint16_t at = vq->next;
    for (uint32_t i = 0; i < n && bytes < RX_BURST_BYTES && rx->walked < BURST_DESCS &&
                         segs + CHAIN_SEGMENTS <= SEGMENT_POOL; i++) {
        virtq_run_ahead(vq, kind, at, false);
        struct packet *p = &b->packets[count];
        struct virtq_elem *elem = &rx->elems[count];
        int reason = describe(q, kind, at, b->segs + segs, p, elem);
        if (unlikely(reason != KEPT)) {
            if (count > 0 || reason == NONE)
                break;
            virtq_put_read(vq, kind, elem, 1);
            at = vq->next;
            vhost_queue_drop(q, b, (enum drop)reason, 1);
            rxq->sent >>= 1; /* the bits are of the chains behind it */
            dropped++;
            continue;
        }
        slots += elem->slots; /* a driver that turns them over meanwhile could have us go round */
        if (kind & VIRTQ_PACKED && unlikely(slots > vq->num))
            break;
        p->ingress = rxq->port->id;
        rx->bytes[count] = p->len_bytes;
        rx->gso[count] = p->gso_type != GSO_NONE;
        out[count++] = p;
        segs = (uint32_t)(p->segs - b->segs) + p->segs_count;
        bytes += p->len_bytes;
        at = virtq_after(vq, kind, at, *elem);
    }
    if (unlikely(dropped > 0))
        vhost_queue_publish(q, b);
    if (unlikely(virtq_broken(vq)))
        vhost_queue_report(q);
    rx->count = count;
    return count;
}

EACH_KIND void done(struct rxq *rxq, struct breath *b, uint32_t n, uint32_t kind)
{
    struct vhost_queue *q = CONTAINER_OF(rxq, struct vhost_queue, rxq);
    struct counters *c = port_counters(rxq->port, b);
    uint64_t bytes = 0, gso = 0;
    ASSERT(n <= q->rx.count);
    if (n == 0)
        return;
    virtq_put_read(&q->vq, kind, q->rx.elems, n);
    for (uint32_t i = 0; i < n; i++) {
        bytes += q->rx.bytes[i];
        gso += q->rx.gso[i];
    }
    q->rx.count = 0;
    vhost_queue_publish(q, b);
    counter_add(&c->rx_packets, n);
    counter_add(&c->rx_bytes, bytes);
    counter_add(&c->rx_gso_packets, gso);
}

#define INSTANCE(name, kind)                                                                 \
    static uint32_t burst_##name(struct rxq *q, struct breath *b, struct packet **out,       \
                                 uint32_t max)                                               \
    {                                                                                        \
        return burst(q, b, out, max, kind);                                                  \
    }                                                                                        \
    static void done_##name(struct rxq *q, struct breath *b, uint32_t n)                     \
    {                                                                                        \
        done(q, b, n, kind);                                                                 \
    }

INSTANCE(split, VIRTQ_SPLIT)
INSTANCE(packed, VIRTQ_PACKED)
INSTANCE(split_in_order, VIRTQ_SPLIT | VIRTQ_IN_ORDER)
INSTANCE(packed_in_order, VIRTQ_PACKED | VIRTQ_IN_ORDER)

struct vhost_rx_fns vhost_rx_for(uint32_t kind)
{
    static const struct vhost_rx_fns fns[] = {
        [VIRTQ_SPLIT] = {burst_split, done_split},
        [VIRTQ_PACKED] = {burst_packed, done_packed},
        [VIRTQ_SPLIT | VIRTQ_IN_ORDER] = {burst_split_in_order, done_split_in_order},
        [VIRTQ_PACKED | VIRTQ_IN_ORDER] = {burst_packed_in_order, done_packed_in_order}};
    return fns[kind & (VIRTQ_PACKED | VIRTQ_IN_ORDER)];
}

/* Broken, empty, or started but disabled: the last one's frames are taken and dropped, as the
 * vhost-user specification has it under "Ring states". */
static uint32_t burst_nothing(struct vhost_queue *q, struct breath *b, uint32_t max)
{
    struct virtq *vq = &q->vq;
    struct virtq_buffers buffers;
    uint32_t n = 0;
    q->rx.count = 0;
    for (uint32_t walked = 0; n < max && walked < BURST_DESCS; n++, walked += buffers.walked) {
        if (virtq_chain(vq, vq->kind, vq->next, VIRTQ_READABLE, NULL, 0, &buffers) != VIRTQ_CHAIN)
            break;
        virtq_put_read(vq, vq->kind, &buffers.elem, 1);
    }
    if (n > 0) {
        vhost_queue_publish(q, b);
        q->rxq.sent = n < BURST ? q->rxq.sent >> n : 0;
        vhost_queue_drop(q, b, DROP_DISABLED_QUEUE, n);
    }
    if (unlikely(virtq_broken(vq)))
        vhost_queue_report(q);
    return 0;
}

/* Takes the header out of the first segments, which may hold any number of its bytes each
 * (CVE-2022-2132), into a private copy. */
static void take_header(struct packet *p, uint8_t *header, uint32_t header_bytes)
{
    for (uint32_t i = 0; i < header_bytes;) {
        struct segment *s = p->segs;
        uint32_t n = s->len_bytes < header_bytes - i ? (uint32_t)s->len_bytes : header_bytes - i;
        for (uint32_t end = i + n; i < end; i++)
            header[i] = guest_load8(s->base++);
        s->len_bytes -= n;
        if (s->len_bytes == 0) {
            p->segs++;
            p->segs_count--;
        }
    }
}

static void copy_head(struct packet *p)
{
    uint32_t copied = 0;
    for (uint32_t i = 0; i < p->segs_count && copied < p->head_len; i++) {
        uint64_t rest = p->head_len - copied, n = p->segs[i].len_bytes;
        n = n < rest ? n : rest;
        memcpy(p->head + copied, p->segs[i].base, n);
        copied += (uint32_t)n;
    }
}

/* Fills all fields but those that offloads and parsing fill. */
static void packet_begin(struct packet *p, struct segment *segs, uint32_t segs_count,
                         uint32_t len_bytes)
{
    memset(p, 0, offsetof(struct packet, head));
    p->segs = segs;
    p->segs_count = (uint16_t)segs_count;
    p->len_bytes = len_bytes;
    p->head_len = (uint16_t)min_u32(len_bytes, HEAD_BYTES);
}

static int offloads(struct packet *p, const uint8_t *header)
{
    return vnet_read(header, p) && pkt_offload_ok(p) ? KEPT : DROP_BAD_OFFLOAD;
}

/* A chain of several buffers, a wrong one, or none. */
static int describe_chain(struct vhost_queue *q, uint16_t at, struct segment *segs,
                          struct packet *p, struct virtq_elem *elem)
{
    struct virtq_buffers buffers;
    uint8_t header[VNET_MAX_BYTES];
    if (virtq_chain(&q->vq, q->vq.kind, at, VIRTQ_READABLE, segs, CHAIN_SEGMENTS, &buffers) !=
        VIRTQ_CHAIN)
        return NONE;
    *elem = buffers.elem;
    q->rx.walked += buffers.walked;
    if (buffers.too_many)
        return DROP_SEGMENTS;
    if (buffers.len_bytes < q->header_bytes + SHORTEST_FRAME)
        return DROP_SHORT;
    if (buffers.len_bytes > q->header_bytes + (uint64_t)MAX_FRAME_BYTES)
        return DROP_OVERSIZE;
    packet_begin(p, segs, buffers.segs, (uint32_t)buffers.len_bytes - q->header_bytes);
    take_header(p, header, q->header_bytes);
    if (p->segs_count > MAX_SEGMENTS)
        return DROP_SEGMENTS;
    copy_head(p);
    return (header[0] & 1) | header[1] ? offloads(p, header) : KEPT;
}

/* The chain at a position as packet p with its segments at segs: KEPT, NONE when there is none or
 * it broke the ring, or an enum drop. */
EACH_KIND int describe(struct vhost_queue *q, uint32_t kind, uint16_t at, struct segment *segs,
                       struct packet *p, struct virtq_elem *elem)
{
    uint64_t gpa;
    uint32_t len_bytes, frame_bytes;
    uint8_t *base = virtq_single(&q->vq, kind, at, 0, &len_bytes, elem, &gpa);
    if (unlikely(base == NULL || len_bytes < q->header_bytes + SHORTEST_FRAME))
        return describe_chain(q, at, segs, p, elem);
    frame_bytes = len_bytes - q->header_bytes;
    if (unlikely(frame_bytes > MAX_FRAME_BYTES))
        return DROP_OVERSIZE;
    segs[0] = (struct segment){.base = base + q->header_bytes, .len_bytes = frame_bytes};
    packet_begin(p, segs, 1, frame_bytes);
    vnet_copy_head(p->head, segs[0].base, p->head_len);
    if (likely(((guest_load8(base) & 1) | guest_load8(base + 1)) == 0))
        return KEPT;
    uint8_t header[VNET_MAX_BYTES]; /* read anew: what the look above saw decided nothing else */
    for (uint32_t i = 0; i < VNET_NUM_BUFFERS_AT; i++)
        header[i] = guest_load8(base + i);
    return offloads(p, header);
}
