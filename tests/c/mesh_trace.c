/* mesh_trace.c - a - t - b: who answers traces, whom, how often; and traces that lie. */
#include <sodium.h>

#include "mesh/core/probe.h"
#include "mesh/core/relay.h"
#include "mesh/core/trace.h"
#include "tests/c/mesh_row.h"

enum { STRANGER = 9, LEN = MESH_RELAY_BYTES + TRACE_BYTES, END_AT = 1, ORIGIN_AT = 16 };

static const uint8_t nobody[RECORD_NODE_BYTES] = {1, 2, 3};
static uint8_t wire_bytes[RIG_FRAME_BYTES];

/* The next answer that a hands up. */
static bool answer(struct trace_reply *reply)
{
    struct punt punt;
    while (rig_punt(&a, &punt)) {
        CHECK(punt.kind != PUNT_NEED_SESSION);
        if (punt.kind != PUNT_TRACE_REPLY)
            continue;
        CHECK(punt.id == 1 && punt.len_bytes == sizeof(*reply));
        memcpy(reply, punt.data, sizeof(*reply));
        return true;
    }
    return false;
}

static void everybody(uint32_t rounds)
{
    for (uint32_t i = 0; i < rounds; i++) {
        rig_receive_none(&t);
        rig_receive_none(&b);
        rig_receive_none(&a);
    }
}

static void expect_answer(uint64_t id, enum trace_end end_, const struct rig_node *by)
{
    struct trace_reply reply;
    CHECK(answer(&reply) && reply.id == id && reply.end == end_);
    CHECK(memcmp(reply.public_key, by->mesh->public_key, MESH_PUBLIC_KEY_BYTES) == 0);
    CHECK(!answer(&reply));
}

static void no_punts(struct rig_node *n)
{
    struct punt punt;
    while (rig_punt(n, &punt))
        CHECK(punt.kind == PUNT_SESSION_CONFIRMED || punt.kind == PUNT_ENDPOINT);
}

static void test_each_hop(void)
{
    begin();
    uint64_t began_ns = clock_now_ns();
    for (uint32_t hops = 0; hops <= MESH_RELAY_HOPS; hops++) {
        CHECK(mesh_send_trace(a.mesh, T_PEER, hops, hops + 77) == 0);
        everybody(1);
        expect_answer(hops + 77, TRACE_REACHED, &t);
        CHECK(mesh_send_trace(a.mesh, RIG_PEER, hops, hops + 177) == 0);
        everybody(2);
        expect_answer(hops + 177, hops ? TRACE_REACHED : TRACE_HOPS, hops ? &b : &t);
    }
    struct trace_reply reply;
    CHECK(mesh_send_trace(a.mesh, T_PEER, 0, UINT64_MAX) == 0);
    everybody(1);
    CHECK(answer(&reply) && reply.id == UINT64_MAX);
    CHECK(reply.received_ns >= began_ns && reply.received_ns <= clock_now_ns());
    CHECK(mesh_send_trace(a.mesh, T_PEER, MESH_RELAY_HOPS + 1, 1) == -EINVAL);
    CHECK(mesh_send_trace(a.mesh, STRANGER, 0, 1) == -ENOENT);
    CHECK(mesh_peer_add(a.mesh, STRANGER, nobody) == 0);
    CHECK(mesh_send_trace(a.mesh, STRANGER, 0, 1) == -ENOKEY);
    CHECK(rig_all_drops(&a) + rig_all_drops(&t) + rig_all_drops(&b) == 0);
    no_punts(&t);
    no_punts(&b);
    end();
}

/* A trace of a's or t's own making, to the other.  end_: TRACE_ASK, or an invented answer. */
static void put_from(struct rig_node *from, uint64_t id, uint8_t hops, const uint8_t *node,
                     const uint8_t *origin, uint8_t end_)
{
    struct rig_node *to = from == &a ? &t : &a;
    uint8_t *message = wire_bytes + MESH_RELAY_BYTES;
    trace_ask(a.mesh, id, message);
    message[END_AT] = end_;
    memcpy(message + ORIGIN_AT, origin, RECORD_NODE_BYTES);
    relay_seal(mesh_find_session(from->mesh, 1), 0, hops, node, message, TRACE_BYTES);
    rig_wire_put(from->fd, to, wire_bytes, LEN);
    rig_receive_none(to);
}

static void put(uint64_t id, uint8_t hops, const uint8_t *node, const uint8_t *origin, uint8_t end_)
{
    put_from(&a, id, hops, node, origin, end_);
}

static void test_where_it_ends(void)
{
    begin();
    put(1, 8, nobody, a.mesh->node_id, TRACE_ASK);
    everybody(1);
    expect_answer(1, TRACE_UNKNOWN, &t);
    CHECK(mesh_peer_add(t.mesh, STRANGER, nobody) == 0);
    put(2, 8, nobody, a.mesh->node_id, TRACE_ASK);
    everybody(1);
    expect_answer(2, TRACE_NO_SESSION, &t);
    CHECK(mesh_peer_set_via(t.mesh, STRANGER, STRANGER + 1) == 0); /* behind itself */
    put(3, 8, nobody, a.mesh->node_id, TRACE_ASK);
    everybody(1);
    expect_answer(3, TRACE_UNKNOWN, &t);
    no_punts(&t); /* a trace looks on: it asks for no session */
    CHECK(rig_all_drops(&a) + rig_all_drops(&t) == 0);
    end();
}

/* Nobody else gets an answer, whoever is said to have asked. */
static void test_only_who_asked_is_answered(void)
{
    const struct mesh_endpoint behind_b = {.via = B_AT_T + 1, .pinned = 1};
    begin();
    put(1, 0, nobody, b.mesh->node_id, TRACE_ASK);
    CHECK(stats_of(&t, 2).relayed_records == 0 && stats_of(&t, 1).relayed_records == 1);
    rig_receive_none(&a); /* which passes it on, as it would whatever came from t */
    CHECK(stats_of(&a, 1).relayed_records == 1);
    rig_receive_none(&t);
    rig_receive_none(&b);
    struct punt punt;
    uint32_t handed_up = 0;
    while (rig_punt(&b, &punt))
        handed_up += punt.kind == PUNT_TRACE_REPLY;
    CHECK(handed_up == 1 && rig_all_drops(&t) == 0);
    struct trace_reply reply;
    CHECK(!answer(&reply));
    /* Nor does b, when a is held to be behind it. */
    CHECK(mesh_session_set_endpoint(t.mesh, 1, &behind_b) == 0);
    uint64_t relayed = stats_of(&t, 2).relayed_records;
    put(2, 0, nobody, a.mesh->node_id, TRACE_ASK);
    CHECK(rig_drops(&t, DROP_NO_SESSION) == 1 && stats_of(&t, 2).relayed_records == relayed);
    end();
}

/* Of an ask, only id and origin come back. */
static void test_every_byte(void)
{
    uint8_t got[RIG_FRAME_BYTES], *message = wire_bytes + MESH_RELAY_BYTES;
    uint8_t expected[TRACE_BYTES] = {RECORD_TRACE, TRACE_REACHED};
    begin();
    trace_ask(a.mesh, 0x1122334455667788, message);
    memset(message + 2, 0xff, 6);
    memset(message + ORIGIN_AT + RECORD_NODE_BYTES, 0xff, MESH_PUBLIC_KEY_BYTES);
    memcpy(expected + 8, message + 8, 8 + RECORD_NODE_BYTES);
    memcpy(expected + ORIGIN_AT + RECORD_NODE_BYTES, t.mesh->public_key, MESH_PUBLIC_KEY_BYTES);
    relay_seal(mesh_find_session(a.mesh, 1), 0, 0, t.mesh->node_id, message, TRACE_BYTES);
    rig_wire_put(wire, &t, wire_bytes, LEN);
    rig_receive_none(&t);
    CHECK(rig_wire_take(wire, got) == LEN);
    CHECK(got[0] == RECORD_RELAY && got[1] == MESH_RELAY_HOPS);
    CHECK(memcmp(got + RELAY_NODE_AT, a.mesh->node_id, RECORD_NODE_BYTES) == 0);
    CHECK(memcmp(got + MESH_RELAY_BYTES, expected, sizeof(expected)) == 0);
    end();
}

static uint64_t answers_of_t(void)
{
    return stats_of(&t, 1).relayed_records;
}

static void expect_drop(uint32_t len)
{
    uint64_t before = rig_all_drops(&t);
    rig_wire_put(wire, &t, wire_bytes, len);
    rig_receive_none(&t);
    CHECK(rig_all_drops(&t) == before + 1 && answers_of_t() == 0);
    CHECK(stats_of(&t, 2).relayed_records == 0 && !stats_of(&t, 1).confirmed);
}

static void test_forgeries(void)
{
    begin();
    CHECK(mesh_session_set_endpoint(a.mesh, 1, &wire_at) == 0);
    CHECK(mesh_send_trace(a.mesh, T_PEER, 0, 1) == 0);
    CHECK(rig_wire_take(wire, wire_bytes) == LEN);
    for (uint32_t bit = 0; bit < LEN * 8; bit++) {
        wire_bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        expect_drop(LEN);
        wire_bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    uint64_t malformed = rig_drops(&t, DROP_BAD_RECORD);
    memset(wire_bytes + LEN, 0, 2000);
    for (uint32_t len = 1; len < LEN + 2000; len++) {
        if (len != LEN) {
            expect_drop(len);
            malformed++;
        }
    }
    CHECK(rig_drops(&t, DROP_BAD_RECORD) == malformed);
    rig_wire_put(wire, &t, wire_bytes + MESH_RELAY_BYTES, TRACE_BYTES); /* without a header */
    rig_receive_none(&t);
    CHECK(rig_drops(&t, DROP_BAD_RECORD) == malformed + 1);
    for (int i = 0; i < 3; i++) { /* the true one, and replays of it */
        rig_wire_put(wire, &t, wire_bytes, LEN);
        rig_receive_none(&t);
    }
    CHECK(answers_of_t() == 1 && rig_drops(&t, DROP_REPLAY) == 2);
    end();
}

/* An answer that cannot be delivered is dropped like a record; none is answered. */
static void test_answers_end_quietly(void)
{
    struct punt punt;
    begin();
    put(1, 0, b.mesh->node_id, a.mesh->node_id, TRACE_HOPS);
    CHECK(rig_drops(&t, DROP_HOP_LIMIT) == 1);
    put(1, 8, nobody, a.mesh->node_id, TRACE_HOPS);
    CHECK(rig_drops(&t, DROP_NO_ROUTE) == 1);
    CHECK(mesh_peer_add(t.mesh, STRANGER, nobody) == 0);
    put(1, 8, nobody, a.mesh->node_id, TRACE_HOPS);
    CHECK(rig_drops(&t, DROP_NO_SESSION) == 1 && answers_of_t() == 0);
    for (uint32_t end_ = TRACE_ENDS; end_ < 256; end_++)
        put(1, 8, t.mesh->node_id, a.mesh->node_id, (uint8_t)end_);
    CHECK(rig_drops(&t, DROP_BAD_RECORD) == 256 - TRACE_ENDS && answers_of_t() == 0);
    while (rig_punt(&t, &punt))
        CHECK(punt.kind != PUNT_TRACE_REPLY);
    end();
}

/* b->now_ns stands still: no more than a burst, each way; other things go on. */
static void test_floods(void)
{
    static uint8_t out[RIG_FRAME_BYTES];
    struct trace_reply reply;
    struct punt punt;
    uint32_t handed_up = 0, probes = 0;
    begin();
    for (uint32_t i = 0; i < 200; i++)
        put(i, 0, i % 2 ? b.mesh->node_id : t.mesh->node_id, a.mesh->node_id, TRACE_ASK);
    CHECK(answers_of_t() >= TRACE_BURST && answers_of_t() <= TRACE_BURST + 1);
    CHECK(rig_drops(&t, DROP_RATE_LIMIT) == 200 - answers_of_t());
    CHECK(rig_send(&a, &frame) == 1);
    rig_receive_none(&t);
    CHECK(rig_receive_one(&b, out) == frame.packet.len_bytes);
    t.breath.now_ns += NS_PER_S;
    put(1, 0, t.mesh->node_id, a.mesh->node_id, TRACE_ASK);
    CHECK(rig_drops(&t, DROP_RATE_LIMIT) + answers_of_t() == 201);
    everybody(20);
    while (answer(&reply))
        continue;
    /* Answers that nobody asked for. */
    a.breath.now_ns += NS_PER_S;
    uint64_t limited = rig_drops(&a, DROP_RATE_LIMIT);
    for (uint32_t i = 0; i < 200; i++)
        put_from(&t, i, 8, a.mesh->node_id, a.mesh->node_id, TRACE_HOPS);
    while (answer(&reply))
        handed_up++;
    CHECK(handed_up >= TRACE_BURST && handed_up <= TRACE_BURST + 1);
    CHECK(rig_drops(&a, DROP_RATE_LIMIT) - limited == 200 - handed_up);
    /* They leave probes, by which ways are judged, alone. */
    CHECK(mesh_send_probe(a.mesh, 1, &t.at, 5, 100) == 0);
    everybody(1);
    while (rig_punt(&a, &punt))
        probes += punt.kind == PUNT_PROBE_REPLY;
    CHECK(probes == 1);
    end();
}

int main(void)
{
    CHECK(sodium_init() >= 0);
    test_each_hop();
    test_where_it_ends();
    test_only_who_asked_is_answered();
    test_every_byte();
    test_forgeries();
    test_answers_end_quietly();
    test_floods();
    puts("ok");
    return 0;
}
