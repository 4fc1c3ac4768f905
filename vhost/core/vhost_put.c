/* vhost_put.c - writes frames into a guest's buffers: the only copy between two guests.
 *
 * Finding room comes first and changes nothing, so a packet is either written whole or not at all.
 * What the receiver did not negotiate is completed here: checksums, segmentation.
 *
 * All of it is compiled once for each kind of ring, what takes several buffers apart from the usual
 * case.
 *
 * Untrusted:  descriptors: where to write, how much; checked by virtq_chain() and virtq_single().
 * Threads:    the holder of the queue's lock.
 * Source:     virtio 1.2, sections 5.1.6.3 and 5.1.6.4.
 */
#include "vhost/core/vhost_port.h"

/* Longer than any wait and any nap: a frame that did not come again until then will not. */
#define CUT_FORGET_NS (100 * NS_PER_MS)

/* Room for one packet: chains of elems[], their buffers in segs[]. */
struct room {
    uint32_t chains;
    uint32_t segs;
    uint64_t bytes;
};

static enum vhost_put put_pieces_split(struct vhost_queue *q, const struct packet *p);
static enum vhost_put put_pieces_packed(struct vhost_queue *q, const struct packet *p);
static enum vhost_put put_completed(struct vhost_queue *q, struct breath *b, struct packet *p);
static enum vhost_put put_cut(struct vhost_queue *q, struct breath *b, const struct packet *whole);

static uint64_t min_u64(uint64_t a, uint64_t b) { return a < b ? a : b; }

EACH_KIND void write_frame(const struct packet *p, uint8_t *to)
{
    vnet_copy_head(to, p->head, p->head_len);
    if (p->len_bytes == p->head_len)
        return;
    if (p->segs_count == 1)
        copy_bytes(to + p->head_len, p->segs[0].base + p->head_len, p->len_bytes - p->head_len,
                   p->len_bytes - p->head_len);
    else
        pkt_copy(p, p->head_len, to + p->head_len, p->len_bytes - p->head_len);
}

static void make_header(const struct vhost_queue *q, const struct packet *p, uint32_t buffers,
                        uint8_t *header)
{
    if ((p->flags | p->gso_type) != 0)
        vnet_write(p, q->tx->guest_csum, header);
    else
        memset(header, 0, VNET_NUM_BUFFERS_AT);
    header[VNET_NUM_BUFFERS_AT] = (uint8_t)buffers;
    header[VNET_NUM_BUFFERS_AT + 1] = (uint8_t)(buffers >> 8);
}

/* The header of a frame in one buffer that lies in one piece. */
EACH_KIND void write_header(const struct vhost_queue *q, const struct packet *p, uint8_t *to)
{
    static const uint8_t plain[VNET_MAX_BYTES] = {[VNET_NUM_BUFFERS_AT] = 1};
    uint8_t made[VNET_MAX_BYTES];
    const uint8_t *header = plain;
    if (unlikely((p->flags | p->gso_type) != 0)) {
        make_header(q, p, 1, made);
        header = made;
    }
    memcpy(to, header, VNET_NUM_BUFFERS_AT);
    if (q->header_bytes == VNET_MAX_BYTES)
        memcpy(to + VNET_NUM_BUFFERS_AT, header + VNET_NUM_BUFFERS_AT, 2);
}

/* Collects chains until the packet fits.  PUT_DONE: it does. */
EACH_KIND enum vhost_put find_room(struct vhost_queue *q, uint64_t need_bytes, struct room *room,
                                   uint32_t kind)
{
    struct vhost_tx *tx = q->tx;
    struct virtq *vq = &q->vq;
    uint16_t at = vq->next;
    uint32_t descs = 0, walked = 0;
    *room = (struct room){0};
    vq->gpas = vq->kind & VIRTQ_LOGGED ? tx->gpas : NULL;
    while (room->bytes < need_bytes) {
        struct virtq_buffers buffers;
        if (room->chains == VIRTQ_MAX_SEGS || (!tx->mergeable && room->chains == 1))
            return PUT_TOO_BIG;
        enum virtq_found found = virtq_room(vq, kind, at, tx->segs + room->segs,
                                            VIRTQ_MAX_SEGS - room->segs, &buffers);
        if (found == VIRTQ_BROKEN)
            return PUT_FULL; /* the caller sees why */
        if (found == VIRTQ_NO_CHAIN) {
            tx->missing_at = at;
            return descs >= vq->num ? PUT_TOO_BIG : PUT_FULL; /* the driver has no more to give */
        }
        walked += buffers.walked;
        if (buffers.walked > VIRTQ_MAX_SEGS) { /* every sender would walk it again */
            virtq_break(vq, VIRTQ_LOOP);
            return PUT_FULL;
        }
        if (buffers.too_many || walked > VIRTQ_MAX_SEGS)
            return PUT_TOO_BIG;
        tx->elems[room->chains] = buffers.elem;
        tx->sizes[room->chains++] = (uint32_t)min_u64(buffers.len_bytes, need_bytes);
        room->segs += buffers.segs;
        room->bytes += buffers.len_bytes;
        descs += buffers.descs;
        at = virtq_after(vq, kind, at, buffers.elem);
    }
    return PUT_DONE;
}

/* Where the next byte goes. */
struct sink {
    const struct segment *seg;
    uint64_t offset;
};

static void sink_write(struct sink *to, const uint8_t *bytes, uint64_t len_bytes)
{
    while (len_bytes > 0) {
        uint64_t room = to->seg->len_bytes - to->offset;
        uint64_t n = min_u64(room, len_bytes);
        copy_bytes(to->seg->base + to->offset, bytes, n, len_bytes);
        bytes += n;
        len_bytes -= n;
        to->offset += n;
        if (to->offset == to->seg->len_bytes) {
            to->seg++;
            to->offset = 0;
        }
    }
}

static void log_pieces(const struct vhost_tx *tx, struct dirty_log *log, uint64_t len_bytes)
{
    for (uint32_t i = 0; len_bytes > 0; i++) {
        uint64_t n = min_u64(tx->segs[i].len_bytes, len_bytes);
        dirty_mark(log, tx->gpas[i], n);
        len_bytes -= n;
    }
}

/* Chains in several pieces, or several chains. */
EACH_KIND enum vhost_put put_pieces(struct vhost_queue *q, const struct packet *p, uint32_t kind)
{
    struct vhost_tx *tx = q->tx;
    struct virtq *vq = &q->vq;
    uint8_t header[VNET_MAX_BYTES];
    struct room room;
    struct pkt_cursor cursor;
    const uint8_t *piece;
    uint64_t rest = p->len_bytes + (uint64_t)q->header_bytes;
    enum vhost_put found = find_room(q, rest, &room, kind);
    if (found != PUT_DONE)
        return found;
    struct sink sink = {.seg = tx->segs};
    make_header(q, p, room.chains, header);
    sink_write(&sink, header, q->header_bytes);
    pkt_cursor_init(&cursor, p, 0);
    for (uint32_t n; (n = pkt_cursor_next(&cursor, UINT32_MAX, &piece)) != 0;)
        sink_write(&sink, piece, n);
    if (vq->kind & VIRTQ_LOGGED)
        log_pieces(tx, vq->log, rest);
    if (!virtq_has_room(vq, kind, room.chains))
        virtq_publish(vq, vq->kind); /* the driver must see the buffers of one frame at once */
    for (uint32_t i = 0; i < room.chains; i++) {
        uint32_t written = (uint32_t)min_u64(tx->sizes[i], rest);
        virtq_put_used(vq, kind, tx->elems[i], written);
        rest -= written;
    }
    return PUT_DONE;
}

static enum vhost_put put_pieces_split(struct vhost_queue *q, const struct packet *p)
{
    return put_pieces(q, p, VIRTQ_SPLIT);
}

static enum vhost_put put_pieces_packed(struct vhost_queue *q, const struct packet *p)
{
    return put_pieces(q, p, VIRTQ_PACKED);
}

/* The usual case here, everything else in put_pieces(). */
EACH_KIND enum vhost_put put_whole(struct vhost_queue *q, const struct packet *p, uint32_t kind)
{
    struct virtq *vq = &q->vq;
    struct virtq_elem elem;
    uint64_t gpa;
    uint32_t room_bytes;
    uint32_t need_bytes = p->len_bytes + q->header_bytes;
    if (!(kind & VIRTQ_PACKED) && unlikely(!split_has(vq, vq->next))) {
        q->tx->missing_at = vq->next;
        return PUT_FULL;
    }
    uint8_t *to = virtq_single(vq, kind, vq->next, VIRTQ_DESC_WRITE, &room_bytes, &elem, &gpa);
    if (unlikely(to == NULL || room_bytes < need_bytes || !virtq_has_room(vq, kind, 1)))
        return kind & VIRTQ_PACKED ? put_pieces_packed(q, p) : put_pieces_split(q, p);
    write_header(q, p, to);
    write_frame(p, to + q->header_bytes);
    if (kind & VIRTQ_LOGGED)
        dirty_mark(vq->log, gpa, need_bytes);
    virtq_put_used(vq, kind, elem, need_bytes);
    return PUT_DONE;
}

EACH_KIND enum vhost_put put_packet(struct vhost_queue *q, struct breath *b, struct packet *p,
                                    uint32_t kind)
{
    enum vhost_put put = likely((vnet_asks(p) & ~q->tx->grants) == 0) ? put_whole(q, p, kind)
                                                                      : put_completed(q, b, p);
    if (unlikely(put == PUT_TOO_BIG)) {
        if (p->gso_type != GSO_NONE)
            return put_cut(q, b, p);
        vhost_queue_drop(q, b, DROP_OVERSIZE, 1);
        return PUT_DROPPED;
    }
    return put;
}

EACH_KIND void put_burst(struct vhost_queue *q, struct breath *b, struct packet *const *pkts,
                         uint32_t n, struct vhost_hold *h, uint32_t kind)
{
    struct virtq *vq = &q->vq;
    uint16_t before = vq->next;
    if (unlikely(!virtq_usable(vq))) {
        h->stopped = PUT_FULL;
        return;
    }
    virtq_look(vq, kind, n + VIRTQ_AHEAD);
    for (; h->taken < n && h->bytes < TX_HOLD_BYTES; h->taken++) {
        struct packet *p = pkts[h->taken];
        uint64_t bytes = p->len_bytes;
        virtq_run_ahead(vq, kind, vq->next, true);
        enum vhost_put put = put_packet(q, b, p, kind);
        if (unlikely(put >= PUT_FULL)) {
            h->stopped = put;
            break;
        }
        if (likely(put <= PUT_CUT)) {
            h->delivered++;
            h->gso += put == PUT_DONE && p->gso_type != GSO_NONE;
            h->bytes += bytes;
        }
    }
    if (likely(virtq_gave_back(vq, kind, before))) {
        q->tx->waiting_since_ns = 0;
        q->tx->gave_up = false;
        vhost_queue_publish(q, b);
    }
}

#define INSTANCE(name, kind)                                                                 \
    static void name(struct vhost_queue *q, struct breath *b, struct packet *const *pkts,    \
                     uint32_t n, struct vhost_hold *h)                                       \
    {                                                                                        \
        put_burst(q, b, pkts, n, h, kind);                                                   \
    }

INSTANCE(put_split, VIRTQ_SPLIT)
INSTANCE(put_packed, VIRTQ_PACKED)
INSTANCE(put_split_logged, VIRTQ_SPLIT | VIRTQ_LOGGED)
INSTANCE(put_packed_logged, VIRTQ_PACKED | VIRTQ_LOGGED)

/* Buffers that were written to come back one by one, in order or not: each has its length. */
vhost_put_fn *vhost_put_for(uint32_t kind)
{
    if (kind & VIRTQ_LOGGED)
        return kind & VIRTQ_PACKED ? put_packed_logged : put_split_logged;
    return kind & VIRTQ_PACKED ? put_packed : put_split;
}

static enum vhost_put put_checksummed(struct vhost_queue *q, struct packet *p)
{
    if ((p->flags & PKT_NEEDS_CSUM) && !(q->tx->grants & VNET_ASKS_CSUM))
        csum_complete(p);
    return put_whole(q, p, q->vq.kind);
}

bool vhost_cut_is_of(const struct vhost_cut *cut, const struct packet *p)
{
    return cut->next != 0 && cut->base == p->segs[0].base && cut->len_bytes == p->len_bytes &&
           cut->ingress == p->ingress && memcmp(cut->head, p->head, p->head_len) == 0;
}

/* Until the frame comes again; the wait for the ring is bounded, and so is this. */
static void cut_remember(struct vhost_cut *cut, const struct packet *p, const struct breath *b,
                         uint32_t next, uint32_t count)
{
    cut->next = next;
    cut->count = count;
    cut->base = p->segs[0].base;
    cut->len_bytes = p->len_bytes;
    cut->ingress = p->ingress;
    cut->since_ns = b->now_ns;
    memcpy(cut->head, p->head, p->head_len);
}

/* A large frame as the packets it stands for, for a receiver that did not negotiate such frames, or
 * did without having buffers for them (5.1.6.3.1 says only that it should).  When the ring runs
 * full in the middle, the queue remembers how far it came and goes on when the frame is offered
 * again; another frame that has to be cut waits for its end. */
static enum vhost_put put_cut(struct vhost_queue *q, struct breath *b, const struct packet *whole)
{
    struct segment segs[CUT_SEGMENTS];
    struct packet piece;
    struct gso_cut cut;
    struct vhost_cut *begun = &q->tx->cut;
    bool goes_on = begun->next != 0 && b->now_ns - begun->since_ns < CUT_FORGET_NS;
    gso_cut_init(&cut, whole, whole->gso_size);
    if (goes_on && !vhost_cut_is_of(begun, whole))
        return PUT_NOT_YET;
    if (goes_on) {
        cut.next = begun->next;
        cut.count = begun->count;
        pkt_cursor_init(&cut.cursor, whole, cut.headers_bytes + cut.next);
    }
    begun->next = 0;
    for (;;) {
        uint32_t next = cut.next, count = cut.count;
        if (!gso_cut_next(&cut, &piece, segs))
            return PUT_CUT;
        enum vhost_put put = put_checksummed(q, &piece);
        if (put == PUT_FULL) {
            cut_remember(begun, whole, b, next, count);
            return PUT_FULL;
        }
        if (put == PUT_TOO_BIG) { /* and so are those behind it */
            vhost_queue_drop(q, b, DROP_OVERSIZE, 1);
            return PUT_DROPPED;
        }
    }
}

static enum vhost_put put_completed(struct vhost_queue *q, struct breath *b, struct packet *p)
{
    uint32_t asks = vnet_asks(p) & (uint32_t)~VNET_ASKS_CSUM;
    if (asks & ~q->tx->grants)
        return put_cut(q, b, p);
    return put_checksummed(q, p);
}
