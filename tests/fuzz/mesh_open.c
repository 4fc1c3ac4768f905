/* mesh_open.c - hostile datagrams, and authentic records of a peer that lies.
 *
 * Invariant tested: what was not sealed for us is never delivered and changes no counter but
 * drops; what is delivered lies inside the receive area, is as long as it says, has offload fields
 * that fit its headers, and can be cut and summed.
 *
 * Input: byte 0 even: the rest is one message of datagrams, byte 1 + 1 their stride.  Odd: a list
 * of u16 length (LE), 8 bytes of prefix, packet; each becomes an authentic record of the session.
 * 2 modulo 4: byte 1 whom it is for, byte 2 hops left, then a message, which gets an authentic
 * relay header of a neighbour.
 */
#include "mesh/core/relay.h"
#include "mesh/core/seal.h"
#include "tests/c/mesh_rig.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct rig_node a, b;
static struct lane *lane;
static uint64_t punts_of_neighbour; /* handshake messages that came through it */

static void check_packet(struct packet *p)
{
    static uint8_t bytes[RIG_FRAME_BYTES];
    static struct packet piece;
    static struct segment segs[CUT_SEGMENTS];
    const uint8_t *area = lane->area, *area_end = area + LANE_SLOTS * LANE_SLOT_BYTES;
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
    for (uint32_t n; (n = b.rxq->burst(b.rxq, &b.breath, out, BURST)) != 0; all += n) {
        for (uint32_t i = 0; i < n; i++)
            check_packet(out[i]);
        b.rxq->done(b.rxq, &b.breath, n);
    }
    struct punt punt;
    while (rig_punt(&b, &punt))
        punts_of_neighbour += punt.kind == PUNT_HANDSHAKE && punt.via == RIG_PEER + 1;
    return all;
}

static void hostile(const uint8_t *data, size_t size)
{
    struct session_stats stats;
    uint32_t len = (uint32_t)size - 1;
    CHECK(mesh_session_stats(b.mesh, b.index, &stats) == 0);
    uint64_t records = stats.rx_records;
    memcpy(lane->area, data + 1, len);
    lane->slots[0] = (struct lane_slot){len, min_u32(data[0] + 1u, len), a.at};
    CHECK(receive(1) == 0);
    CHECK(mesh_session_stats(b.mesh, b.index, &stats) == 0 && stats.rx_records == records);
}

/* A neighbour has anything passed on, to us, itself, or a stranger: none of it is a record. */
static void relayed(const uint8_t *data, size_t size)
{
    static const uint8_t nobody[RECORD_NODE_BYTES] = {9};
    const uint8_t *nodes[] = {b.mesh->node_id, a.mesh->node_id, nobody};
    struct session_stats stats;
    uint8_t *message = lane->area + MESH_RELAY_BYTES;
    uint32_t len = (uint32_t)size - 2;
    bool whole = data[2] == RECORD_DATA && len >= RECORD_EMPTY_BYTES;
    if (!whole && (len == 0 || handshake_bytes(data[2]) != len))
        return; /* hostile() has these */
    CHECK(mesh_session_stats(b.mesh, b.index, &stats) == 0);
    uint64_t records = stats.rx_records, passed = stats.relayed_records;
    uint64_t drops = rig_all_drops(&b);
    memcpy(message, data + 2, len);
    bool steered = !whole || (message[2] < MESH_LANES && message[3] == 0);
    if (!steered)
        return; /* no counter in such a lane */
    relay_seal(rig_session(&a), data[1], nodes[data[0] % 3], message, len);
    lane->slots[0] = (struct lane_slot){len + MESH_RELAY_BYTES, len + MESH_RELAY_BYTES, a.at};
    uint64_t handshakes = punts_of_neighbour;
    CHECK(receive(1) == 0);
    CHECK(mesh_session_stats(b.mesh, b.index, &stats) == 0 && stats.rx_records == records);
    /* Each comes to one end: passed on, handed up, or dropped and counted. */
    CHECK(rig_all_drops(&b) - drops + stats.relayed_records - passed +
              punts_of_neighbour - handshakes == 1);
}

/* Seals the listed packets into one message; each gets a datagram, so strides may differ. */
static void lying(const uint8_t *data, size_t size)
{
    static struct rig_frame f;
    struct session *s = rig_session(&a);
    uint32_t slots = 0;
    s->granted = 0;
    while (size >= 10 && slots < LANE_SLOTS) {
        struct record_prefix prefix;
        uint64_t counter;
        uint32_t len = min_u32((uint32_t)data[0] | (uint32_t)data[1] << 8, (uint32_t)size - 10);
        len = min_u32(len, 65000);
        memcpy(&prefix, data + 2, sizeof(prefix));
        memcpy(f.bytes, data + 10, len);
        rig_split(&f, len, 1);
        f.packet.l3_offset = 0;
        CHECK(session_take_counter(s, 0, &counter));
        seal_record(a.mesh, s, 0, counter, &prefix, &f.packet, len,
                    lane->area + slots * LANE_SLOT_BYTES);
        len += MESH_OVERHEAD_BYTES;
        lane->slots[slots++] = (struct lane_slot){len, len, a.at};
        data += len - MESH_OVERHEAD_BYTES + 10;
        size -= len - MESH_OVERHEAD_BYTES + 10;
    }
    receive(slots);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!lane) {
        rig_pair(&a, &b);
        lane = b.mesh->lanes[0];
    }
    if (size < 3 || size > LANE_SLOT_BYTES)
        return 0;
    b.breath.now_ns += NS_PER_S;
    if (data[0] & 1)
        lying(data + 1, size - 1);
    else if (data[0] & 2 && size > 4)
        relayed(data + 1, size - 1);
    else
        hostile(data + 1, size - 1);
    return 0;
}
