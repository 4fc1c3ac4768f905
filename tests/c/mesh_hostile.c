/* mesh_hostile.c - strangers on the wire: everything they can send is counted by reason, and the
 * session with which they interfere is as it was. */
#include <sodium.h>

#include "mesh/core/relay.h"
#include "mesh/core/seal.h"
#include "tests/c/mesh_rig.h"

enum { TCP_ACK = 16, LEN = RECORD_EMPTY_BYTES + 52 + 100 };

static struct rig_node a, b;
static struct rig_frame frame;
static struct mesh_endpoint wire_at, stranger_at;
static int wire, stranger;
static uint8_t sealed[2][RIG_FRAME_BYTES];

/* sealed: two records of a's, of which b has had the first, by way of the wire. */
static void begin(void)
{
    struct punt punt;
    rig_pair(&a, &b);
    wire = rig_socket(&wire_at, false);
    stranger = rig_socket(&stranger_at, false);
    CHECK(mesh_session_set_endpoint(a.mesh, a.index, &wire_at) == 0);
    for (int i = 0; i < 2; i++) {
        rig_tcp(&frame, 4, 100, 0, TCP_ACK);
        CHECK(rig_send(&a, &frame) == 1 && rig_wire_take(wire, sealed[i]) == LEN);
    }
    rig_wire_put(wire, &b, sealed[0], LEN);
    static uint8_t out[RIG_FRAME_BYTES];
    CHECK(rig_receive_one(&b, out) == 14 + 52 + 100);
    while (rig_punt(&b, &punt))
        ;
}

static void end(void)
{
    rig_node_free(&a);
    rig_node_free(&b);
    close(wire);
    close(stranger);
}

static struct session_stats stats_of_b(void)
{
    struct session_stats stats;
    memset(&stats, 0, sizeof(stats)); /* compared whole, with what lies between its fields */
    CHECK(mesh_session_stats(b.mesh, b.index, &stats) == 0);
    return stats;
}

/* One datagram of the stranger's: dropped for that reason, and nothing else is different. */
static void expect_nothing(const uint8_t *bytes, uint32_t len, enum drop reason)
{
    struct session_stats before = stats_of_b(), after;
    struct session_window window = rig_session(&b)->rx[0].window;
    uint64_t counted = rig_drops(&b, reason), all = rig_all_drops(&b);
    struct punt punt;
    rig_wire_put(stranger, &b, bytes, len);
    rig_receive_none(&b);
    CHECK(rig_drops(&b, reason) == counted + 1 && rig_all_drops(&b) == all + 1);
    CHECK(!rig_punt(&b, &punt));
    after = stats_of_b();
    CHECK(after.rx_failed == before.rx_failed + (reason == DROP_AUTH && bytes[0] == RECORD_DATA));
    after.rx_failed = before.rx_failed;
    CHECK(memcmp(&before, &after, sizeof(after)) == 0);
    CHECK(endpoint_equal(&after.endpoint, &wire_at));
    CHECK(memcmp(&window, &rig_session(&b)->rx[0].window, sizeof(window)) == 0);
}

/* After all of it, the record that the stranger spoiled copies of is as good as ever. */
static void expect_alive(void)
{
    static uint8_t out[RIG_FRAME_BYTES];
    rig_wire_put(wire, &b, sealed[1], LEN);
    CHECK(rig_receive_one(&b, out) == 14 + 52 + 100);
    struct session_stats stats = stats_of_b();
    CHECK(endpoint_equal(&stats.endpoint, &wire_at));
}

static void test_spoofed_sources(void)
{
    uint8_t forged[LEN];
    begin();
    expect_nothing(sealed[0], LEN, DROP_REPLAY); /* authentic, from elsewhere: too late */
    memcpy(forged, sealed[1], LEN);
    forged[LEN - 1] ^= 1;
    expect_nothing(forged, LEN, DROP_AUTH);
    memset(forged + RECORD_COUNTER_AT + 4, 0x7f, 4); /* a counter far ahead moves no window */
    expect_nothing(forged, LEN, DROP_AUTH);
    expect_alive();
    end();
}

static void test_replays(void)
{
    begin();
    for (int i = 0; i < 1000; i++)
        expect_nothing(sealed[0], LEN, DROP_REPLAY);
    expect_alive();
    for (int i = 0; i < 1000; i++)
        expect_nothing(sealed[i % 2], LEN, DROP_REPLAY);
    end();
}

static void test_bit_flips(void)
{
    begin();
    for (uint32_t bit = 0; bit < LEN * 8; bit++) {
        uint32_t at = bit / 8;
        uint8_t flipped[LEN];
        memcpy(flipped, sealed[1], LEN);
        flipped[at] ^= (uint8_t)(1 << bit % 8);
        if (at == 1 || (at == 0 && flipped[0] == RECORD_RELAY))
            continue; /* hops left may change on the way; relay headers: test_relay_headers */
        /* One that exists, or a port of its own. */
        bool lane = (at == 2 && bit % 8 < 5) || bit == 3 * 8 + 7;
        enum drop reason = at < 4 || (at >= RECORD_NODE_AT && at < RECORD_HEADER_BYTES)
                               ? DROP_BAD_RECORD
                           : at < RECORD_COUNTER_AT ? DROP_UNKNOWN_INDEX
                           : bit == RECORD_COUNTER_AT * 8 ? DROP_REPLAY /* of the first */
                                                          : DROP_AUTH;
        expect_nothing(flipped, LEN, lane ? DROP_AUTH : reason);
    }
    expect_alive();
    end();
}

static void test_truncated_and_oversized(void)
{
    static uint8_t large[65507];
    begin();
    for (uint32_t len = 0; len < LEN; len++)
        expect_nothing(sealed[1], len, len < RECORD_EMPTY_BYTES ? DROP_BAD_RECORD : DROP_AUTH);
    memcpy(large, sealed[1], LEN);
    for (uint32_t len = LEN + 1; len < sizeof(large); len += 1 + len / 7)
        expect_nothing(large, len, DROP_AUTH);
    expect_nothing(large, sizeof(large), DROP_AUTH);
    expect_alive();
    end();
}

static void test_handshakes(void)
{
    static uint8_t large[65507];
    begin();
    for (uint8_t type = RECORD_INITIATION; type <= RECORD_COOKIE; type++) {
        memset(large, 0, 200);
        large[0] = type;
        for (uint32_t len = 1; len < sizeof(large); len += len < 200 ? 1 : len / 3) {
            enum drop reason = type == RECORD_INITIATION ? DROP_BAD_MAC1 : DROP_UNKNOWN_INDEX;
            expect_nothing(large, len, len == handshake_bytes(type) ? reason : DROP_BAD_RECORD);
        }
    }
    for (uint32_t type = 0; type < 256; type++) {
        large[0] = (uint8_t)type;
        if (type == 0 || type > RECORD_RELAY)
            expect_nothing(large, 200, DROP_BAD_RECORD);
    }
    expect_alive();
    end();
}

static void test_relay_headers(void)
{
    uint8_t bytes[MESH_RELAY_BYTES + LEN];
    begin();
    memcpy(bytes + MESH_RELAY_BYTES, sealed[1], LEN);
    relay_seal(rig_session(&a), 0, MESH_RELAY_HOPS, b.mesh->node_id, bytes + MESH_RELAY_BYTES, LEN);
    uint32_t covered = MESH_RELAY_BYTES + RECORD_HEADER_BYTES;
    for (uint32_t bit = 0; bit < covered * 8; bit++) {
        uint32_t at = bit / 8;
        bool lane = (at == 2 && bit % 8 < 5) || bit == 3 * 8 + 7;
        bytes[at] ^= (uint8_t)(1 << bit % 8);
        enum drop reason = at == 0 || at == 2 || at == 3 ? DROP_BAD_RECORD
                           : at >= 4 && at < 8          ? DROP_UNKNOWN_INDEX
                                                        : DROP_AUTH;
        /* Another type in front, or within, is another message, of a wrong length. */
        if (at != 0 && at != MESH_RELAY_BYTES)
            expect_nothing(bytes, sizeof(bytes), lane ? DROP_AUTH : reason);
        bytes[at] ^= (uint8_t)(1 << bit % 8);
    }
    for (uint32_t len = 0; len < sizeof(bytes); len++)
        expect_nothing(bytes, len,
                       len < MESH_RELAY_BYTES + RECORD_EMPTY_BYTES ? DROP_BAD_RECORD : DROP_AUTH);
    expect_alive();
    end();
}

/* A lane that the kernel steers to another worker, whose window it is. */
static void test_stray_lane(void)
{
    begin();
    sealed[1][RECORD_LANE_AT] ^= 1;
    expect_nothing(sealed[1], LEN, DROP_AUTH);
    b.mesh->lanes_count = 2;
    expect_nothing(sealed[1], LEN, DROP_BAD_RECORD);
    sealed[1][RECORD_LANE_AT] ^= 1;
    expect_alive();
    end();
}

int main(void)
{
    CHECK(sodium_init() >= 0);
    test_spoofed_sources();
    test_replays();
    test_bit_flips();
    test_truncated_and_oversized();
    test_handshakes();
    test_relay_headers();
    test_stray_lane();
    puts("ok");
    return 0;
}
