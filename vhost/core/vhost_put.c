/* vhost_put.c - writes one frame into a guest's buffers: the only copy between two guests.
 *
 * Finding room comes first and changes nothing, so a packet is either written whole or not at all.
 * What the receiver did not negotiate is completed here: checksums, segmentation.
 *
 * Untrusted:  descriptors: where to write, how much; checked by virtq_chain() and virtq_single().
 * Threads:    the holder of the queue's lock.
 * Source:     virtio 1.2, sections 5.1.6.3 and 5.1.6.4.
 */
#include "vhost/core/vhost_port.h"

enum { PREFETCH_AHEAD = 4 };

/* Room for one packet: chains of heads[], their buffers in segs[]. */
struct room {
    uint32_t chains;
    uint32_t segs;
    uint64_t bytes;
};

static enum vhost_put put_whole(struct vhost_queue *q, const struct packet *p);
static enum vhost_put put_completed(struct vhost_queue *q, struct breath *b, struct packet *p);
static enum vhost_put put_cut(struct vhost_queue *q, struct breath *b, const struct packet *whole);

static uint64_t min_u64(uint64_t a, uint64_t b) { return a < b ? a : b; }

static enum vhost_put dropped(struct vhost_queue *q, struct breath *b, enum drop reason)
{
    vhost_queue_drop(q, b, reason, 1);
    return PUT_DROPPED;
}

enum vhost_put vhost_put_packet(struct vhost_queue *q, struct breath *b, struct packet *p)
{
    enum vhost_put put = likely((vnet_asks(p) & ~q->tx->grants) == 0) ? put_whole(q, p)
                                                                      : put_completed(q, b, p);
    if (unlikely(put == PUT_TOO_BIG))
        return p->gso_type != GSO_NONE ? put_cut(q, b, p) : dropped(q, b, DROP_OVERSIZE);
    return put;
}

/* Chains that can be had now, looking at the ring only when the ones known are used up. */
static uint32_t chains_left(struct virtq *q)
{
    uint16_t left = (uint16_t)(q->avail_idx - q->next);
    return left != 0 ? left : virtq_available(q);
}

static void write_frame(const struct packet *p, uint8_t *to)
{
    vnet_copy_head(to, p->head, p->head_len);
    if (p->len_bytes == p->head_len)
        return;
    if (p->segs_count == 1)
        memcpy(to + p->head_len, p->segs[0].base + p->head_len, p->len_bytes - p->head_len);
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
static void write_header(const struct vhost_queue *q, const struct packet *p, uint8_t *to)
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
static enum vhost_put find_room(struct vhost_queue *q, uint64_t need_bytes, struct room *room)
{
    struct vhost_tx *tx = q->tx;
    uint32_t available = chains_left(&q->vq), descs = 0, walked = 0;
    *room = (struct room){0};
    while (room->bytes < need_bytes) {
        struct virtq_buffers buffers;
        if (room->chains >= available) {
            available = virtq_available(&q->vq);
            if (room->chains >= available) /* the driver has no more to give: it will never fit */
                return descs >= q->vq.num ? PUT_TOO_BIG : PUT_FULL;
        }
        if (room->chains == VIRTQ_MAX_SEGS || (!tx->mergeable && room->chains == 1))
            return PUT_TOO_BIG;
        uint16_t head = virtq_head(&q->vq, room->chains);
        if (!virtq_chain(&q->vq, head, VIRTQ_WRITABLE, tx->segs + room->segs,
                         VIRTQ_MAX_SEGS - room->segs, &buffers))
            return PUT_FULL; /* broken: the caller sees that */
        walked += buffers.walked;
        if (buffers.walked > VIRTQ_MAX_SEGS) { /* every sender would walk it again */
            virtq_break(&q->vq, VIRTQ_LOOP);
            return PUT_FULL;
        }
        if (buffers.too_many || walked > VIRTQ_MAX_SEGS)
            return PUT_TOO_BIG;
        tx->heads[room->chains] = head;
        tx->sizes[room->chains++] = (uint32_t)min_u64(buffers.len_bytes, need_bytes);
        room->segs += buffers.segs;
        room->bytes += buffers.len_bytes;
        descs += buffers.descs;
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
        memcpy(to->seg->base + to->offset, bytes, n);
        bytes += n;
        len_bytes -= n;
        to->offset += n;
        if (to->offset == to->seg->len_bytes) {
            to->seg++;
            to->offset = 0;
        }
    }
}

/* Chains in several pieces, or several chains. */
static enum vhost_put put_pieces(struct vhost_queue *q, const struct packet *p)
{
    struct vhost_tx *tx = q->tx;
    uint8_t header[VNET_MAX_BYTES];
    struct room room;
    struct pkt_cursor cursor;
    const uint8_t *piece;
    uint64_t rest = p->len_bytes + (uint64_t)q->header_bytes;
    enum vhost_put found = find_room(q, rest, &room);
    if (found != PUT_DONE)
        return found;
    struct sink sink = {.seg = tx->segs};
    make_header(q, p, room.chains, header);
    sink_write(&sink, header, q->header_bytes);
    pkt_cursor_init(&cursor, p, 0);
    for (uint32_t n; (n = pkt_cursor_next(&cursor, UINT32_MAX, &piece)) != 0;)
        sink_write(&sink, piece, n);
    for (uint32_t i = 0; i < room.chains; i++) {
        uint32_t written = (uint32_t)min_u64(tx->sizes[i], rest);
        virtq_put_used(&q->vq, tx->heads[i], written);
        rest -= written;
    }
    return PUT_DONE;
}

/* The usual case here, everything else in put_pieces(). */
static enum vhost_put put_whole(struct vhost_queue *q, const struct packet *p)
{
    uint32_t room_bytes;
    uint32_t need_bytes = p->len_bytes + q->header_bytes;
    uint32_t left = chains_left(&q->vq);
    if (unlikely(left == 0))
        return PUT_FULL;
    if (likely(left > 2 * PREFETCH_AHEAD)) {
        virtq_prefetch_desc(&q->vq, virtq_head(&q->vq, 2 * PREFETCH_AHEAD));
        virtq_prefetch_buffer(&q->vq, virtq_head(&q->vq, PREFETCH_AHEAD), true);
    }
    uint16_t head = virtq_head(&q->vq, 0);
    uint8_t *to = virtq_single(&q->vq, head, VIRTQ_DESC_WRITE, &room_bytes);
    if (unlikely(to == NULL || room_bytes < need_bytes))
        return put_pieces(q, p);
    write_header(q, p, to);
    write_frame(p, to + q->header_bytes);
    virtq_put_used(&q->vq, head, need_bytes);
    return PUT_DONE;
}

static enum vhost_put put_checksummed(struct vhost_queue *q, struct packet *p)
{
    if ((p->flags & PKT_NEEDS_CSUM) && !(q->tx->grants & VNET_ASKS_CSUM))
        csum_complete(p);
    return put_whole(q, p);
}

/* A large frame as the packets it stands for, for a receiver that did not negotiate such frames, or
 * did without having buffers for them (5.1.6.3.1 says only that it should).  Begun only when all of
 * them are likely to fit, and finished in any case: what a ring that runs full leaves over is
 * dropped. */
static enum vhost_put put_cut(struct vhost_queue *q, struct breath *b, const struct packet *whole)
{
    struct segment segs[CUT_SEGMENTS];
    struct packet piece;
    struct gso_cut cut;
    uint32_t done = 0;
    gso_cut_init(&cut, whole, whole->gso_size);
    uint32_t count = (cut.payload_bytes + cut.mss_bytes - 1) / cut.mss_bytes;
    if (virtq_available(&q->vq) < min_u32(count, q->vq.num / 2u))
        return PUT_FULL;
    while (gso_cut_next(&cut, &piece, segs)) {
        enum vhost_put put = put_checksummed(q, &piece);
        if (put != PUT_DONE) {
            vhost_queue_drop(q, b, put == PUT_FULL ? DROP_RING_FULL : DROP_OVERSIZE, 1);
            break;
        }
        done++;
    }
    return done > 0 ? PUT_CUT : PUT_DROPPED;
}

static enum vhost_put put_completed(struct vhost_queue *q, struct breath *b, struct packet *p)
{
    uint32_t asks = vnet_asks(p) & (uint32_t)~VNET_ASKS_CSUM;
    if (asks & ~q->tx->grants)
        return put_cut(q, b, p);
    return put_checksummed(q, p);
}
