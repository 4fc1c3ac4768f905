/* mesh_relay.c - three nodes, a - t - b: what t passes on, and what it does not. */
#define _GNU_SOURCE
#include <sodium.h>
#include <sys/syscall.h>

#include "mesh/core/relay.h"
#include "mesh/core/seal.h"
#include "tests/c/mesh_row.h"

enum { STRANGER = 9 };

static uint8_t got[RIG_FRAME_BYTES], wire_bytes[RIG_FRAME_BYTES];
static int fail_with; /* errno of sendmsg, 0: it works */

/* In place of the C library's. */
ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
    if (fail_with) {
        errno = fail_with;
        return -1;
    }
    return syscall(SYS_sendmsg, fd, msg, flags);
}

static void expect_frame(struct rig_node *n)
{
    CHECK(rig_receive_one(n, got) == frame.packet.len_bytes);
    CHECK(memcmp(got + 14, frame.bytes + 14, frame.packet.len_bytes - 14) == 0);
}

static void test_there_and_back(void)
{
    begin();
    CHECK(rig_send(&a, &frame) == 1);
    rig_receive_none(&t);
    CHECK(t.breath.passed_on == 1);
    expect_frame(&b);
    CHECK(stats_of(&t, 2).relayed_records == 1 && stats_of(&t, 1).relayed_records == 0);
    CHECK(stats_of(&t, 2).relayed_bytes == frame.packet.len_bytes - 14 + 48 + 32);
    CHECK(stats_of(&b, 3).endpoint.via == T_PEER + 1 && stats_of(&b, 3).confirmed);
    CHECK(stats_of(&t, 1).confirmed && stats_of(&b, 2).confirmed);
    CHECK(rig_send(&b, &frame) == 1);
    rig_receive_none(&t);
    expect_frame(&a);
    CHECK(rig_all_drops(&a) + rig_all_drops(&t) + rig_all_drops(&b) == 0);
    end();
}

/* Large frames arrive whole, and what is t's own goes between. */
static void test_trains(void)
{
    static struct rig_frame own;
    struct packet *out[BURST];
    begin();
    rig_tcp(&frame, 4, 60000, 1300, TCP_ACK);
    rig_tcp(&own, 4, 500, 0, TCP_ACK);
    own.packet.peer = B_AT_T;
    for (uint32_t round = 0; round < 20; round++) {
        uint32_t payload = 0, packets = 0;
        CHECK(rig_send(&a, &frame) == 1 && rig_send(&t, &own) == 1);
        rig_receive_none(&t);
        for (uint32_t n; (n = rig_receive(&b, out, 0)) != 0; packets += n) {
            for (uint32_t i = 0; i < n; i++)
                payload += out[i]->peer == RIG_PEER ? out[i]->len_bytes - 66 : 0;
            b.rxq->done(b.rxq, &b.breath, n);
        }
        CHECK(payload == 60000 && packets <= 4);
    }
    CHECK(stats_of(&t, 2).relayed_records == 20 * ((60000 + 1299) / 1300));
    CHECK(rig_all_drops(&t) + rig_all_drops(&b) == 0);
    end();
}

/* What a sends to t, taken from the wire; its length. */
static uint32_t capture(struct rig_node *n, uint32_t index)
{
    CHECK(mesh_session_set_endpoint(n->mesh, index, &wire_at) == 0);
    CHECK(rig_send(n, &frame) == 1);
    return rig_wire_take(wire, wire_bytes);
}

static void expect_drop(struct rig_node *n, uint32_t len, enum drop reason)
{
    uint64_t before = rig_drops(n, reason), all = rig_all_drops(n);
    rig_wire_put(wire, n, wire_bytes, len);
    rig_receive_none(n);
    CHECK(rig_all_drops(n) == all + 1);
    CHECK(reason == DROP_REASONS || rig_drops(n, reason) == before + 1);
    CHECK(stats_of(&t, 2).relayed_records == 0 && stats_of(&t, 1).relayed_records == 0);
}

static void test_forgeries(void)
{
    begin();
    uint32_t len = capture(&a, 1);
    CHECK(len == 32 + 48 + frame.packet.len_bytes - 14);
    for (uint32_t at = 0; at < len; at++) {
        if (at == 32 + RECORD_HEADER_BYTES)
            at = len - RECORD_TAG_BYTES; /* the text: found out by b */
        for (uint32_t bit = 0; bit < 8; bit++) {
            wire_bytes[at] ^= (uint8_t)(1 << bit);
            /* Of the type and lane, and of an index or counter, another check may be first. */
            bool tag_first = at == 1 || at >= 16;
            bool type = at == 32;
            expect_drop(&t, len, tag_first && !type ? DROP_AUTH : DROP_REASONS);
            wire_bytes[at] ^= (uint8_t)(1 << bit);
        }
    }
    for (uint32_t shorter = 1; shorter < len; shorter++)
        expect_drop(&t, shorter, shorter <= 32 + 47 ? DROP_BAD_RECORD : DROP_AUTH);
    CHECK(!stats_of(&t, 1).confirmed && stats_of(&t, 1).last_rx_ns == 0);
    wire_bytes[100] ^= 1; /* the text */
    rig_wire_put(wire, &t, wire_bytes, len);
    rig_receive_none(&t);
    CHECK(stats_of(&t, 2).relayed_records == 1);
    rig_receive_none(&b);
    CHECK(rig_drops(&b, DROP_AUTH) == 1 && !stats_of(&b, 3).confirmed);
    end();
}

static void test_replays(void)
{
    begin();
    uint32_t len = capture(&a, 1);
    rig_wire_put(wire, &t, wire_bytes, len);
    rig_receive_none(&t);
    expect_frame(&b);
    uint64_t relayed = stats_of(&t, 2).relayed_records;
    for (int i = 0; i < 3; i++) {
        rig_wire_put(wire, &t, wire_bytes, len);
        rig_receive_none(&t);
    }
    CHECK(rig_drops(&t, DROP_REPLAY) == 3 && stats_of(&t, 2).relayed_records == relayed);
    rig_receive_none(&b);
    /* The record alone, in another header of a's own: t passes it on, b has seen it. */
    relay_seal(mesh_find_session(a.mesh, 1), 0, 1, b.mesh->node_id, wire_bytes + 32, len - 32);
    rig_wire_put(wire, &t, wire_bytes, len);
    rig_receive_none(&t);
    rig_receive_none(&b);
    CHECK(rig_drops(&b, DROP_REPLAY) == 1);
    end();
}

static void test_no_way_on(void)
{
    static const uint8_t nobody[8] = {1, 2, 3};
    struct punt punt;
    begin();
    struct session *hop = mesh_find_session(a.mesh, 1);
    uint32_t len = capture(&a, 1);
    relay_seal(hop, 0, 0, b.mesh->node_id, wire_bytes + 32, len - 32);
    expect_drop(&t, len, DROP_HOP_LIMIT);
    relay_seal(hop, 0, 8, nobody, wire_bytes + 32, len - 32);
    expect_drop(&t, len, DROP_NO_ROUTE);
    CHECK(mesh_peer_add(t.mesh, STRANGER, nobody) == 0);
    while (rig_punt(&t, &punt))
        CHECK(punt.kind != PUNT_NEED_SESSION);
    relay_seal(hop, 0, 8, nobody, wire_bytes + 32, len - 32);
    expect_drop(&t, len, DROP_NO_SESSION);
    CHECK(rig_punt(&t, &punt) && punt.kind == PUNT_NEED_SESSION && punt.id == STRANGER);
    CHECK(mesh_peer_set_via(t.mesh, STRANGER, STRANGER + 1) == 0); /* behind itself */
    relay_seal(hop, 0, 8, nobody, wire_bytes + 32, len - 32);
    expect_drop(&t, len, DROP_NO_ROUTE);
    /* A relay header behind a relay header. */
    wire_bytes[32] = RECORD_RELAY;
    expect_drop(&t, len, DROP_BAD_RECORD);
    wire_bytes[32] = 0;
    expect_drop(&t, len, DROP_BAD_RECORD);
    mesh_peer_free(mesh_peer_unlink(t.mesh, STRANGER));
    CHECK(!mesh_find_node(t.mesh, nobody) && mesh_find_node(t.mesh, b.mesh->node_id));
    end();
}

/* a believes that b is behind t, t that it is behind a. */
static void test_loop(void)
{
    const struct mesh_endpoint behind_a = {.via = A_AT_T + 1};
    begin();
    CHECK(mesh_session_set_endpoint(t.mesh, 2, &behind_a) == 0);
    CHECK(rig_send(&a, &frame) == 1);
    for (uint32_t i = 0; i < 20; i++) {
        rig_receive_none(&t);
        rig_receive_none(&a);
    }
    CHECK(rig_drops(&t, DROP_HOP_LIMIT) == 1 && rig_all_drops(&a) == 0);
    CHECK(stats_of(&t, 1).relayed_records == 4 && stats_of(&a, 1).relayed_records == 4);
    /* Nor does it last longer when a neighbour says so. */
    CHECK(mesh_session_set_endpoint(a.mesh, 1, &wire_at) == 0 && rig_send(&a, &frame) == 1);
    uint32_t len = rig_wire_take(wire, wire_bytes);
    CHECK(mesh_session_set_endpoint(a.mesh, 1, &t.at) == 0);
    relay_seal(mesh_find_session(a.mesh, 1), 0, 255, b.mesh->node_id, wire_bytes + 32, len - 32);
    rig_wire_put(a.fd, &t, wire_bytes, len);
    for (uint32_t i = 0; i < 20; i++) {
        rig_receive_none(&t);
        rig_receive_none(&a);
    }
    CHECK(rig_drops(&t, DROP_HOP_LIMIT) == 2);
    CHECK(stats_of(&t, 1).relayed_records == 8 && stats_of(&a, 1).relayed_records == 8);
    end();
}

static void test_a_full_kernel(void)
{
    struct packet *out[BURST];
    begin();
    CHECK(rig_send(&a, &frame) == 1 && rig_send(&a, &frame) == 1);
    fail_with = EAGAIN;
    rig_receive_none(&t);
    CHECK(t.rxq->arm(t.rxq)); /* something waits: not asleep */
    /* What comes meanwhile must not be read to where the two are. */
    fail_with = 0;
    CHECK(rig_send(&a, &frame) == 1 && rig_send(&a, &frame) == 1);
    fail_with = EAGAIN;
    rig_receive_none(&t);
    fail_with = 0;
    rig_receive_none(&t);
    CHECK(rig_receive(&b, out, RIG_WAIT_MS) == 4);
    CHECK(rig_all_drops(&t) + rig_all_drops(&b) == 0);
    b.rxq->done(b.rxq, &b.breath, 4);
    CHECK(rig_send(&a, &frame) == 1);
    fail_with = EAGAIN;
    rig_receive_none(&t);
    t.breath.now_ns += TX_WAIT_NS;
    rig_receive_none(&t);
    CHECK(rig_drops(&t, DROP_SEND) == 1);
    fail_with = 0;
    CHECK(rig_send(&a, &frame) == 1);
    rig_receive_none(&t);
    expect_frame(&b);
    end();
}

static void test_control(void)
{
    uint8_t initiation[152] = {RECORD_INITIATION}, key[32];
    struct punt punt;
    begin();
    CHECK(mesh_send_keepalive(a.mesh, RIG_PEER) == 0);
    rig_receive_none(&t);
    rig_receive_none(&b);
    CHECK(stats_of(&b, 3).rx_records == 1 && stats_of(&b, 3).last_rx_packet_ns == 0);
    while (rig_punt(&b, &punt))
        CHECK(punt.kind == PUNT_SESSION_CONFIRMED || punt.via == T_PEER + 1);
    memset(key, 3, sizeof(key));
    crypto_generichash(initiation + 120, 16, initiation, 120, key, sizeof(key));
    const uint8_t *node = b.mesh->node_id;
    /* Under load, too: a neighbour is known, and who is behind it could not be sent a cookie. */
    b.mesh->gate->load.full_ns = b.breath.now_ns + 2 * NS_PER_S;
    CHECK(mesh_send_through(a.mesh, T_PEER, node, initiation, sizeof(initiation)) == 0);
    rig_receive_none(&t);
    rig_receive_none(&b);
    CHECK(rig_punt(&b, &punt) && punt.kind == PUNT_HANDSHAKE && punt.via == T_PEER + 1);
    CHECK(punt.port == 0 && memcmp(punt.data, initiation, sizeof(initiation)) == 0);
    CHECK(mesh_send_through(a.mesh, T_PEER, node, initiation, 151) == -EINVAL);
    CHECK(mesh_send_through(a.mesh, STRANGER, node, initiation, 152) == -ENOENT);
    introduce(&a, STRANGER, &a);
    CHECK(mesh_send_through(a.mesh, STRANGER, node, initiation, 152) == -ENOKEY);
    end();
}

int main(void)
{
    test_there_and_back();
    test_trains();
    test_forgeries();
    test_replays();
    test_no_way_on();
    test_loop();
    test_a_full_kernel();
    test_control();
    printf("ok\n");
    return 0;
}
