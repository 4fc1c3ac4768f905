/* mesh_open.c - hostile datagrams, and authentic records of a peer that lies.
 *
 * Invariant tested: what was not sealed for us is never delivered and changes no counter but
 * drops; what is delivered lies inside the receive area, is as long as it says, has offload fields
 * that fit its headers, and can be cut and summed.  No record is taken twice.
 *
 * Input: byte 0 even: the rest is one message of datagrams, byte 1 + 1 their stride.  Odd: a list
 * of u16 length and flags (LE, enum lie), 8 bytes of prefix, packet; each becomes an authentic
 * record of the session; with bit 2 its endpoint is pinned.  2 modulo 4: byte 1 whom it is for
 * (bit 7: the message gets a right first MAC, 6: comes twice), byte 2 hops left (bit 7: by a port
 * of a lane's own), then a message, also a trace, which gets an authentic relay header of a
 * neighbour.
 */
#include <sodium.h>

#include "mesh/core/open.h"
#include "mesh/core/relay.h"
#include "mesh/core/seal.h"
#include "mesh/core/trace.h"
#include "tests/c/mesh_rig.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Of a record: length of its packet; it comes from another address, or through a neighbour (who is
 * the peer itself); twice; or as the first of many with positions that count up. */
enum lie { LENGTH = 0xfff, ELSEWHERE = 0x1000, THROUGH = 0x2000, TWICE = 0x4000, MANY = 0x8000 };
enum { PINNED = 4, MAC1 = 0x80, RELAYED_TWICE = 0x40, MANY_RECORDS = 60 };
/* Peers of b beside a: behind a; behind each other, in a ring; and nowhere. */
enum { BEHIND = 8, RING1, RING2, MISSING, STRANGER };

static struct rig_node a, b;
static struct mesh_endpoint elsewhere;
static struct lane *lane;
static uint64_t punts_of_neighbour; /* handshake messages and answers to traces */

static void check_packet(struct packet *p)
{
    static uint8_t bytes[RIG_FRAME_BYTES];
    static struct packet piece;
    static struct segment segs[CUT_SEGMENTS];
    const uint8_t *area = lane->area, *area_end = area + RECEIVE_SLOTS * LANE_SLOT_BYTES;
    uint64_t sum = 0;
    CHECK(p->segs_count >= 1 && p->segs_count <= MAX_SEGMENTS);
    for (uint32_t i = 0; i < p->segs_count; i++) {
        CHECK(p->segs[i].base >= area && p->segs[i].base + p->segs[i].len_bytes <= area_end);
        sum += p->segs[i].len_bytes;
    }
    CHECK(sum == p->len_bytes && p->len_bytes <= 65535 + 14 && p->ip_version != 0);
    CHECK(p->head_len == min_u32(p->len_bytes, HEAD_BYTES));
    CHECK(pkt_offload_ok(p) && p->peer == RIG_PEER);
    pkt_copy(p, 0, bytes, p->len_bytes);
    if (p->gso_type != GSO_NONE) {
        struct gso_cut cut;
        uint32_t payload = 0;
        gso_cut_init(&cut, p, p->gso_size);
        while (gso_cut_next(&cut, &piece, segs))
            payload += piece.len_bytes - cut.headers_bytes;
        CHECK(payload == cut.payload_bytes);
    }
    if (p->flags & PKT_NEEDS_CSUM)
        csum_complete(p);
}

static uint32_t receive(uint32_t slots)
{
    struct packet *out[BURST];
    uint32_t all = 0;
    lane->slot = lane->slot_offset = 0;
    lane->slot_count = slots;
    for (uint32_t n = 1; n != 0 || lane->slot != lane->slot_count; all += n) {
        n = b.rxq->burst(b.rxq, &b.breath, out, BURST);
        for (uint32_t i = 0; i < n; i++)
            check_packet(out[i]);
        b.rxq->done(b.rxq, &b.breath, n);
    }
    struct punt punt;
    while (rig_punt(&b, &punt))
        punts_of_neighbour += punt.kind == PUNT_TRACE_REPLY ||
                              (punt.kind == PUNT_HANDSHAKE && punt.via == RIG_PEER + 1);
    return all;
}

static void hostile(const uint8_t *data, size_t size)
{
    struct session_stats stats;
    struct opened opened;
    uint32_t len = (uint32_t)size - 1;
    CHECK(mesh_session_stats(b.mesh, b.index, &stats) == 0);
    uint64_t records = stats.rx_records;
    memcpy(lane->area, data + 1, len);
    if (len >= RECORD_EMPTY_BYTES) /* nor at a port of a lane's own */
        CHECK(!open_unordered(lane, &b.breath, lane->area, len, &a.at, &opened));
    memcpy(lane->area, data + 1, len);
    lane->slots[0] = (struct receive_slot){len, min_u32(data[0] + 1u, len), a.at};
    CHECK(receive(1) == 0);
    CHECK(mesh_session_stats(b.mesh, b.index, &stats) == 0 && stats.rx_records == records);
}

/* A neighbour has anything passed on, to us, itself, others, or a stranger: none of it is a
 * record. */
static void relayed(const uint8_t *data, size_t size)
{
    uint8_t nodes[STRANGER - BEHIND + 3][RECORD_NODE_BYTES];
    struct session_stats stats;
    uint8_t *message = lane->area + MESH_RELAY_BYTES;
    uint32_t len = (uint32_t)size - 2, slots = data[0] & RELAYED_TWICE ? 2 : 1;
    bool whole = data[2] == RECORD_DATA && len >= RECORD_EMPTY_BYTES;
    bool trace = data[2] == RECORD_TRACE && len == TRACE_BYTES;
    if (!whole && !trace && (len == 0 || handshake_bytes(data[2]) != len))
        return; /* hostile() has these */
    CHECK(mesh_session_stats(b.mesh, b.index, &stats) == 0);
    uint64_t records = stats.rx_records, passed = stats.relayed_records;
    uint64_t drops = rig_all_drops(&b), handshakes = punts_of_neighbour;
    memcpy(message, data + 2, len);
    bool steered = !whole || (message[2] < MESH_LANES && (message[3] & 0x7f) == 0);
    if (!steered)
        return; /* no counter in such a lane */
    if (!whole && len > 64 && data[0] & MAC1)
        crypto_generichash(message + len - 32, 16, message, len - 32, b.mesh->gate->mac1_key, 32);
    for (uint8_t i = 0; i <= STRANGER - BEHIND; i++)
        memset(nodes[i], BEHIND + i, RECORD_NODE_BYTES);
    memcpy(nodes[STRANGER - BEHIND + 1], b.mesh->node_id, RECORD_NODE_BYTES);
    memcpy(nodes[STRANGER - BEHIND + 2], a.mesh->node_id, RECORD_NODE_BYTES);
    relay_seal(rig_session(&a), data[1] >> 7, data[1] & 0x7f,
               nodes[(data[0] & 0x3f) % ARRAY_LEN(nodes)], message, len);
    len += MESH_RELAY_BYTES;
    memcpy(lane->area + LANE_SLOT_BYTES, lane->area, len);
    lane->slots[0] = lane->slots[1] = (struct receive_slot){len, len, a.at};
    CHECK(receive(slots) == 0);
    CHECK(mesh_session_stats(b.mesh, b.index, &stats) == 0 && stats.rx_records == records);
    /* Each comes to one end: passed on, answered, handed up, or dropped and counted. */
    CHECK(rig_all_drops(&b) - drops + stats.relayed_records - passed +
              punts_of_neighbour - handshakes == slots);
}

/* One authentic record; returns its length. */
static uint32_t seal(const struct record_prefix *prefix, struct rig_frame *f, uint16_t lies,
                     uint8_t *to)
{
    struct session *s = rig_session(&a);
    uint32_t len = f->packet.len_bytes, relay_bytes = lies & THROUGH ? MESH_RELAY_BYTES : 0;
    uint64_t counter;
    s->granted = 0;
    CHECK(session_take_counter(s, 0, &counter));
    seal_record(a.mesh, s, 0, counter, prefix, &f->packet, len, to + relay_bytes);
    len += MESH_OVERHEAD_BYTES;
    if (relay_bytes)
        relay_seal(s, 0, MESH_RELAY_HOPS, b.mesh->node_id, to + relay_bytes, len);
    return len + relay_bytes;
}

/* Seals the listed packets into one message; each gets a datagram, so strides may differ. */
static void lying(const uint8_t *data, size_t size)
{
    static struct rig_frame f;
    uint32_t slots = 0, twice = 0;
    uint64_t replays = rig_drops(&b, DROP_REPLAY);
    while (size >= 10 && slots < RECEIVE_SLOTS) {
        struct record_prefix prefix;
        uint16_t lies = (uint16_t)(data[0] | data[1] << 8);
        uint32_t len = min_u32(lies & LENGTH, (uint32_t)size - 10), stride, all;
        uint8_t *slot = lane->area + slots * LANE_SLOT_BYTES;
        memcpy(&prefix, data + 2, sizeof(prefix));
        memcpy(f.bytes, data + 10, len);
        rig_split(&f, len, 1);
        f.packet.l3_offset = 0;
        stride = all = seal(&prefix, &f, lies, slot);
        for (uint32_t i = 1; lies & MANY && i < MANY_RECORDS && all + stride <= LANE_SLOT_BYTES;
             i++) {
            prefix.position++;
            all += seal(&prefix, &f, lies, slot + all);
        }
        lane->slots[slots] = (struct receive_slot){all, stride, a.at};
        if (lies & ELSEWHERE)
            lane->slots[slots].from = elsewhere;
        slots++;
        if (lies & TWICE && slots < RECEIVE_SLOTS) {
            memcpy(slot + LANE_SLOT_BYTES, slot, all);
            lane->slots[slots] = lane->slots[slots - 1];
            twice += all / stride;
            slots++;
        }
        data += len + 10;
        size -= len + 10;
    }
    receive(slots);
    CHECK(rig_drops(&b, DROP_REPLAY) - replays == twice);
}

static void begin(void)
{
    uint8_t node[RECORD_NODE_BYTES];
    CHECK(sodium_init() >= 0);
    rig_pair(&a, &b);
    CHECK(rig_socket(&elsewhere, false) >= 0);
    lane = b.mesh->lanes[0];
    for (uint32_t peer = BEHIND; peer < STRANGER; peer++) {
        memset(node, (int)peer, sizeof(node));
        CHECK(mesh_peer_add(b.mesh, peer, node) == 0);
    }
    CHECK(mesh_peer_set_via(b.mesh, BEHIND, RIG_PEER + 1) == 0);
    CHECK(mesh_peer_set_via(b.mesh, RING1, RING2 + 1) == 0);
    CHECK(mesh_peer_set_via(b.mesh, RING2, RING1 + 1) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!lane)
        begin();
    if (size < 3 || size > LANE_SLOT_BYTES)
        return 0;
    struct mesh_endpoint at = a.at;
    at.pinned = data[0] & 1 && data[0] & PINNED;
    CHECK(mesh_session_set_endpoint(b.mesh, b.index, &at) == 0);
    b.breath.now_ns += NS_PER_S;
    if (data[0] & 1)
        lying(data + 1, size - 1);
    else if (data[0] & 2 && size > 4)
        relayed(data + 1, size - 1);
    else
        hostile(data + 1, size - 1);
    return 0;
}
