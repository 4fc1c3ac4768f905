/* seal.c - packets become records, sealed from where they lie.
 *
 * Untrusted, Threads: see seal.h.
 */
#include "mesh/core/seal.h"

#include "mesh/core/relay.h"

enum {
    /* Up to here copying first and sealing in one call is faster (measured: 39 against 48 ns for 72
     * bytes).  Beyond, only this much is copied, so that the rest starts at a cipher block and is
     * read from guest memory once (160 against 260 ns for 1408 bytes that are not in cache). */
    SEAL_COPY_BYTES = 512,
    SEAL_FIRST_BYTES = 128,
    ASK_INTERVAL_S = 1,
};

/* Where a packet goes.  hop: who passes it on; NULL, and a constant where that matters: nobody. */
struct way {
    const struct mesh_endpoint *to;
    struct session *hop;
    uint16_t field;              /* what the record says of its lane */
};

static bool seal_direct(struct mesh *m, struct lane *lane, struct breath *b, struct session *s,
                        const struct packet *p, uint32_t flags, const struct mesh_endpoint *to);
static bool seal_relayed(struct mesh *m, struct lane *lane, struct breath *b, struct session *s,
                         const struct packet *p, uint32_t flags);

void seal_ask_for_session(const struct mesh *m, struct breath *b, struct mesh_peer *peer)
{
    uint64_t asked = load_relaxed(&peer->asked_ns);
    port_drop(&m->port, b, DROP_NO_SESSION, 1);
    if (asked != 0 && b->now_ns - asked < ASK_INTERVAL_S * NS_PER_S)
        return;
    struct punt punt = {.kind = PUNT_NEED_SESSION, .id = peer->id};
    if (punt_put(b->punts, &punt, NULL, 0))
        store_relaxed(&peer->asked_ns, b->now_ns);
    else
        port_drop(&m->port, b, DROP_PUNT_FULL, 1);
}

/* Without the padding that Ethernet adds to short frames; 0 when the header lies. */
static uint32_t ip_length(const struct packet *p)
{
    const uint8_t *ip = p->head + p->l3_offset;
    uint32_t len = p->ip_version == 4 ? get_be16(ip + 2) : get_be16(ip + 4) + 40u;
    return len <= p->len_bytes - p->l3_offset ? len : 0;
}

bool seal_packet(struct mesh *m, struct lane *lane, struct breath *b, const struct packet *p,
                 uint32_t flags)
{
    struct mesh_peer *peer = NULL;
    if (p->peer < MESH_PEERS)
        peer = load_acquire(&m->peers[p->peer]); /* pairs with mesh_peer_add */
    if (p->ip_version == 0 || !peer) {
        port_drop(&m->port, b, peer ? DROP_NOT_IP : DROP_NO_ROUTE, 1);
        return true;
    }
    struct session *s = load_acquire(&peer->current); /* pairs with session_promote */
    if (unlikely(!s)) {
        seal_ask_for_session(m, b, peer);
        return true;
    }
    const struct mesh_endpoint *to = session_endpoint(s, lane->number);
    if (unlikely(to->via != 0))
        return seal_relayed(m, lane, b, s, p, flags);
    return seal_direct(m, lane, b, s, p, flags, to);
}

/* One record into the lane's train; false: the key is used up. */
static ALWAYS_INLINE bool add_record(struct mesh *m, struct lane *lane, struct breath *b,
                                     struct session *s, const struct way *way,
                                     struct record_prefix *prefix, const struct packet *p,
                                     uint32_t ip_bytes)
{
    uint64_t counter;
    if (unlikely(!session_take_counter(s, lane->number, &counter)))
        return false;
    struct session_tx *tx = &s->tx[lane->number];
    uint32_t len = ip_bytes + MESH_OVERHEAD_BYTES;
    uint32_t relay_bytes = way->hop ? MESH_RELAY_BYTES : 0;
    uint8_t *out = train_record(&lane->trains, &m->port, b, s, way->to, len + relay_bytes);
    out += relay_bytes;
    prefix->flags |= p->flags & PREFIX_OFFLOAD;
    if (p->flags & PKT_NEEDS_CSUM) {
        prefix->csum_start = (uint8_t)(p->csum_start - p->l3_offset);
        prefix->csum_offset = (uint8_t)p->csum_offset;
    }
    seal_record(m, s, way->field, counter, prefix, p, ip_bytes, out);
    counter_add(&tx->records, 1);
    counter_add(&tx->bytes, len);
    store_relaxed(&tx->last_ns, b->now_ns);
    if (way->hop)
        relay_seal(way->hop, endpoint_by_own(way->to, lane->number), MESH_RELAY_HOPS, s->node, out,
                   len);
    return true;
}

static bool room_or_drop(struct mesh *m, struct lane *lane, struct breath *b, uint32_t records,
                         uint32_t bytes, uint32_t flags, bool *taken)
{
    enum train_room room = train_make_room(&lane->trains, &m->port, b, records, bytes, flags);
    *taken = room == TRAIN_FULL;
    if (room == TRAIN_FULL)
        port_drop(&m->port, b, DROP_SEND, 1);
    return room == TRAIN_ROOM;
}

static bool csum_fits(const struct packet *p)
{
    return !(p->flags & PKT_NEEDS_CSUM) ||
           (p->csum_start >= p->l3_offset && p->csum_start - p->l3_offset <= UINT8_MAX &&
            p->csum_offset <= UINT8_MAX);
}

static ALWAYS_INLINE bool seal_single(struct mesh *m, struct lane *lane, struct breath *b,
                                      struct session *s, const struct packet *p, uint32_t flags,
                                      const struct way *way)
{
    uint32_t ip_bytes = ip_length(p), mtu_bytes = load_relaxed(&m->peer_mtus[s->peer_id]);
    uint32_t record_bytes = ip_bytes + MESH_OVERHEAD_BYTES + (way->hop ? MESH_RELAY_BYTES : 0);
    bool taken;
    if (unlikely(ip_bytes == 0 || ip_bytes > mtu_bytes || !csum_fits(p))) {
        port_drop(&m->port, b, ip_bytes > mtu_bytes ? DROP_TOO_BIG : DROP_BAD_OFFLOAD, 1);
        return true;
    }
    if (!room_or_drop(m, lane, b, 1, record_bytes, flags, &taken))
        return taken;
    struct record_prefix prefix = {.flags = PREFIX_LAST};
    if (add_record(m, lane, b, s, way, &prefix, p, ip_bytes))
        train_end_packet(&lane->trains, p->len_bytes, false);
    else
        port_drop(&m->port, b, DROP_COUNTER_LIMIT, 1);
    return true;
}

/* Cuts a GSO frame to the path, whatever gso_size says, and seals the pieces as one run. */
static ALWAYS_INLINE bool seal_frame(struct mesh *m, struct lane *lane, struct breath *b,
                                     struct session *s, const struct packet *p, uint32_t flags,
                                     const struct way *way)
{
    const uint32_t overhead_bytes = MESH_OVERHEAD_BYTES + (way->hop ? MESH_RELAY_BYTES : 0);
    uint32_t mtu_bytes = load_relaxed(&m->peer_mtus[s->peer_id]);
    struct gso_cut cut;
    struct packet piece;
    struct segment segs[CUT_SEGMENTS];
    bool taken;
    gso_cut_init(&cut, p, p->gso_size);
    uint32_t ip_headers = cut.headers_bytes - p->l3_offset;
    if (unlikely(ip_headers >= mtu_bytes || !csum_fits(p))) {
        port_drop(&m->port, b, DROP_BAD_OFFLOAD, 1);
        return true;
    }
    uint32_t mss = min_u32(p->gso_size, mtu_bytes - ip_headers);
    uint32_t records = (cut.payload_bytes + mss - 1) / mss;
    uint32_t bytes = cut.payload_bytes + records * (ip_headers + overhead_bytes);
    if (unlikely(records > TRAIN_FRAME_RECORDS || bytes > TRAIN_AREA_BYTES || records == 0)) {
        port_drop(&m->port, b, records ? DROP_SEGMENTS : DROP_BAD_OFFLOAD, 1);
        return true;
    }
    if (!room_or_drop(m, lane, b, records, bytes, flags, &taken))
        return taken;
    uint8_t type = (uint8_t)(p->gso_type << PREFIX_GSO_SHIFT);
    cut.mss_bytes = mss;
    for (uint32_t i = 0; i < records && gso_cut_next(&cut, &piece, segs); i++) {
        if (i % 256 == 0) /* positions are bytes */
            lane->next_run++;
        struct record_prefix prefix = {.flags = type,
                                       .position = (uint8_t)i,
                                       .run = lane->next_run,
                                       .gso_size = (uint16_t)mss};
        if (i + 1 == records)
            prefix.flags |= PREFIX_LAST;
        if (i == 0)
            prefix.flags |= p->flags & PKT_GSO_ECN;
        uint32_t ip_bytes = piece.len_bytes - piece.l3_offset;
        if (!add_record(m, lane, b, s, way, &prefix, &piece, ip_bytes)) {
            port_drop(&m->port, b, DROP_COUNTER_LIMIT, 1);
            return true;
        }
    }
    train_end_packet(&lane->trains, p->len_bytes, true);
    return true;
}

static bool seal_direct(struct mesh *m, struct lane *lane, struct breath *b, struct session *s,
                        const struct packet *p, uint32_t flags, const struct mesh_endpoint *to)
{
    const struct way way = {to, NULL, endpoint_lane_field(to, lane->number)};
    if (p->gso_type != GSO_NONE)
        return seal_frame(m, lane, b, s, p, flags, &way);
    return seal_single(m, lane, b, s, p, flags, &way);
}

static bool seal_relayed(struct mesh *m, struct lane *lane, struct breath *b, struct session *s,
                         const struct packet *p, uint32_t flags)
{
    struct relay_hop hop = relay_find(m, s->peer, lane->number);
    if (unlikely(!hop.session)) {
        if (hop.missing)
            seal_ask_for_session(m, b, hop.missing);
        else
            port_drop(&m->port, b, DROP_NO_ROUTE, 1);
        return true;
    }
    store_relaxed(&hop.session->tx[lane->number].last_ns, b->now_ns);
    const struct way way = {hop.to, hop.session, (uint16_t)lane->number};
    if (p->gso_type != GSO_NONE)
        return seal_frame(m, lane, b, s, p, flags, &way);
    return seal_single(m, lane, b, s, p, flags, &way);
}

void seal_record(const struct mesh *m, const struct session *s, uint16_t field, uint64_t counter,
                 const struct record_prefix *prefix, const struct packet *p, uint32_t ip_bytes,
                 uint8_t *out)
{
    struct record_header header = {.type = RECORD_DATA,
                                   .lane = field,
                                   .index = s->remote_index,
                                   .counter = counter};
    uint8_t nonce[RECORD_NONCE_BYTES], aad[RECORD_AAD_BYTES];
    uint32_t text_bytes = RECORD_PREFIX_BYTES + ip_bytes;
    uint32_t first = text_bytes <= SEAL_COPY_BYTES ? text_bytes : SEAL_FIRST_BYTES;
    uint8_t *text = out + RECORD_HEADER_BYTES;
    struct pkt_cursor cursor;

    memcpy(header.node, s->node, sizeof(header.node));
    memcpy(out, &header, sizeof(header));
    record_aad(out, aad);
    record_nonce(field, counter, nonce);
    memcpy(text, prefix, sizeof(*prefix));
    if (p)
        pkt_cursor_init(&cursor, p, p->l3_offset);
    for (uint32_t at = RECORD_PREFIX_BYTES; at < first;) {
        const uint8_t *piece;
        uint32_t n = pkt_cursor_next(&cursor, first - at, &piece);
        ASSERT(n != 0);
        memcpy(text + at, piece, n);
        at += n;
    }
    s->cipher->seal(m->library, &s->keys->send, nonce, aad, text, text_bytes, first, &cursor);
}
