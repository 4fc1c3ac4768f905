/* mesh_lanes.c - lanes with ports of their own: proven, used, given up; what strangers and a lying
 * peer send there; nodes with different numbers of lanes. */
#include <sodium.h>

#include "mesh/core/own_port.h"
#include "mesh/core/probe.h"
#include "mesh/core/relay.h"
#include "mesh/core/seal.h"
#include "tests/c/mesh_rig.h"

enum { LANES_MAX = 4, PROBE_BYTES = 1000 };

/* A node with several lanes, all on the main thread. */
struct lanes_node {
    struct rig_node n;
    uint32_t lanes;
    int fds[LANES_MAX];
    int own_fds[LANES_MAX];
    struct mesh_endpoint own_at[LANES_MAX];
};

static struct lanes_node a, b;
static struct rig_frame frame;

static void node_new(struct lanes_node *node, uint8_t id, uint32_t lanes)
{
    uint8_t bytes[8], key[32];
    struct rig_node *n = &node->n;
    memset(node, 0, sizeof(*node));
    memset(bytes, id, sizeof(bytes));
    memset(key, id, sizeof(key));
    CHECK(mesh_new(&n->mesh, id, bytes, key, key, key, RIG_MTU) == 0);
    CHECK(mesh_set_lanes(n->mesh, lanes) == 0);
    node->lanes = lanes;
    for (uint32_t i = 0; i < lanes; i++) {
        node->fds[i] = rig_group_socket(&n->at, i);
        node->own_fds[i] = i ? rig_socket(&node->own_at[i], false) : -1;
        CHECK(mesh_lane_add(n->mesh, i, node->fds[i], node->own_fds[i]) == 0);
        CHECK((mesh_own_rxq(n->mesh, i) != NULL) == (i > 0));
    }
    CHECK(mesh_steer(node->fds[0], lanes) == 0);
    n->breath = (struct breath){.now_ns = clock_now_ns(), .punts = punt_ring_new()};
}

static void begin(uint32_t lanes_a, uint32_t lanes_b)
{
    node_new(&a, 1, lanes_a);
    node_new(&b, 2, lanes_b);
    rig_install(&a.n, &b.n, 10, true, 0x10001, 0x20002);
    rig_install(&b.n, &a.n, 10, false, 0x20002, 0x10001);
}

static void node_free(struct lanes_node *node)
{
    mesh_free(node->n.mesh);
    punt_ring_free(node->n.breath.punts);
    for (uint32_t i = 0; i < node->lanes; i++) {
        close(node->fds[i]);
        if (i)
            close(node->own_fds[i]);
    }
}

static void end(void)
{
    node_free(&a);
    node_free(&b);
}

/* All workers of the node take what is in their sockets; packets for the guests. */
static uint32_t receive(struct lanes_node *node)
{
    struct packet *out[BURST];
    uint32_t all = 0;
    for (uint32_t i = 0; i < node->lanes; i++) {
        struct rxq *q = mesh_lane_rxq(node->n.mesh, i), *own = mesh_own_rxq(node->n.mesh, i);
        node->n.breath.worker = i;
        uint32_t n = q->burst(q, &node->n.breath, out, BURST);
        q->done(q, &node->n.breath, n);
        all += n;
        if (own)
            CHECK(own->burst(own, &node->n.breath, out, BURST) == 0);
    }
    return all;
}

static void send_packet(struct lanes_node *node, uint32_t lane)
{
    rig_tcp(&frame, 4, 100, 0, 16);
    node->n.breath.worker = lane;
    CHECK(rig_send(&node->n, &frame) == 1);
}

/* The next punt of that kind. */
static bool next_punt(struct lanes_node *node, uint32_t kind, struct punt *punt)
{
    while (rig_punt(&node->n, punt))
        if (punt->kind == kind)
            return true;
    return false;
}

static struct mesh_endpoint endpoint_of(const struct lanes_node *node)
{
    struct session_stats stats;
    CHECK(mesh_session_stats(node->n.mesh, node->n.index, &stats) == 0);
    return stats.endpoint;
}

static void use(struct lanes_node *node, const struct mesh_endpoint *at, uint32_t lanes)
{
    CHECK(mesh_session_set_lanes(node->n.mesh, node->n.index, at, lanes) == 0);
}

/* Each lane of a's is asked for by its own port, whatever lanes b has. */
static void test_proof(uint32_t lanes_a, uint32_t lanes_b)
{
    begin(lanes_a, lanes_b);
    for (uint32_t lane = 1; lane < lanes_a; lane++) {
        struct probe_reply reply;
        struct punt punt;
        CHECK(mesh_send_lane_probe(a.n.mesh, a.n.index, lane, &b.n.at, 70 + lane, PROBE_BYTES) ==
              0);
        CHECK(receive(&b) == 0 && !next_punt(&b, PUNT_ENDPOINT, &punt));
        CHECK(receive(&a) == 0 && next_punt(&a, PUNT_LANE_REPLY, &punt));
        memcpy(&reply, punt.data, sizeof(reply));
        CHECK(punt.id == a.n.index && punt.socket == lane && punt.port == b.n.at.port);
        CHECK(memcmp(punt.address, b.n.at.address, 16) == 0 && punt.via == 0);
        CHECK(reply.id == 70 + lane && reply.ip_bytes == PROBE_BYTES);
    }
    struct mesh_endpoint to = b.n.at;
    CHECK(mesh_send_lane_probe(a.n.mesh, a.n.index, 0, &to, 1, 100) == -EINVAL);
    CHECK(mesh_send_lane_probe(a.n.mesh, a.n.index, lanes_a, &to, 1, 100) == -EINVAL);
    to.via = 1;
    CHECK(mesh_send_lane_probe(a.n.mesh, a.n.index, 1, &to, 1, 100) == -EINVAL);
    CHECK(rig_all_drops(&a.n) == 0 && rig_all_drops(&b.n) == 0);
    end();
}

/* Who sends to a plain socket: the port it came from, and the lane field. */
static uint16_t sent_from(int wire, uint16_t *field)
{
    uint8_t bytes[2000];
    struct sockaddr_in in;
    socklen_t len = sizeof(in);
    CHECK(recvfrom(wire, bytes, sizeof(bytes), 0, (struct sockaddr *)&in, &len) > 0);
    memcpy(field, bytes + RECORD_LANE_AT, sizeof(*field));
    return ntohs(in.sin_port);
}

static void test_ports(void)
{
    struct mesh_endpoint wire_at, other_at;
    uint16_t field;
    begin(3, 2);
    int wire = rig_socket(&wire_at, false), other = rig_socket(&other_at, false);
    CHECK(mesh_session_set_endpoint(a.n.mesh, a.n.index, &wire_at) == 0);
    for (uint32_t lane = 0; lane < 3; lane++) {
        send_packet(&a, lane);
        CHECK(sent_from(wire, &field) == a.n.at.port && field == lane);
    }
    use(&a, &wire_at, 1u << 2);
    CHECK(mesh_session_set_lanes(a.n.mesh, a.n.index, &other_at, 1u << 1) == -ESTALE);
    CHECK(mesh_session_set_lanes(a.n.mesh, a.n.index, &wire_at, 1u << 31) == -EINVAL);
    CHECK(mesh_session_set_lanes(a.n.mesh, a.n.index + 1, &wire_at, 0) == -ENOENT);
    CHECK(endpoint_of(&a).own_lanes == 1u << 2);
    for (uint32_t lane = 0; lane < 3; lane++) {
        bool by_own = lane == 2;
        send_packet(&a, lane);
        CHECK(sent_from(wire, &field) == (by_own ? a.own_at[lane].port : a.n.at.port));
        CHECK(field == (lane | by_own << 15));
    }
    /* Keepalives and probes of the way show where the node is: always by the common port. */
    CHECK(mesh_send_keepalive(a.n.mesh, RIG_PEER) == 0);
    CHECK(sent_from(wire, &field) == a.n.at.port && field == MESH_CONTROL_LANE);
    /* Who sends elsewhere proves anew. */
    CHECK(mesh_session_set_endpoint(a.n.mesh, a.n.index, &other_at) == 0);
    send_packet(&a, 2);
    CHECK(sent_from(other, &field) == a.n.at.port && field == 2);
    CHECK(endpoint_of(&a).own_lanes == 0);
    close(wire);
    close(other);
    end();
}

/* Records by own ports arrive, and move nothing; one by the common port from elsewhere does, and
 * then the lanes of the other side begin by the common port again. */
static void test_roaming(void)
{
    struct mesh_endpoint wire_at;
    struct punt punt;
    uint8_t bytes[2000];
    begin(3, 2);
    send_packet(&a, 0);
    CHECK(receive(&b) == 1);
    use(&a, &b.n.at, 1u << 1 | 1u << 2);
    use(&b, &a.n.at, 1u << 1);
    while (rig_punt(&b.n, &punt))
        continue;
    for (uint32_t i = 0; i < 12; i++) {
        send_packet(&a, i % 3);
        CHECK(receive(&b) == 1 && endpoint_of(&b).own_lanes == 1u << 1);
        send_packet(&b, i % 2);
        CHECK(receive(&a) == 1);
    }
    struct mesh_endpoint at = endpoint_of(&b);
    CHECK(!rig_punt(&b.n, &punt) && endpoint_equal(&at, &a.n.at));
    int wire = rig_socket(&wire_at, false);
    CHECK(mesh_session_set_endpoint(a.n.mesh, a.n.index, &wire_at) == 0);
    for (uint32_t by_own = 0; by_own < 2; by_own++) {
        use(&a, &wire_at, (1 - by_own) << 1); /* first by its own port */
        send_packet(&a, 1);
        uint32_t len = rig_wire_take(wire, bytes);
        rig_wire_put(wire, &b.n, bytes, len);
        CHECK(receive(&b) == 1);
        at = endpoint_of(&b);
        CHECK(endpoint_equal(&at, by_own ? &wire_at : &a.n.at));
        CHECK(at.own_lanes == (by_own ? 0 : 1u << 1));
    }
    CHECK(next_punt(&b, PUNT_ENDPOINT, &punt) && punt.port == wire_at.port);
    CHECK(rig_all_drops(&a.n) == 0 && rig_all_drops(&b.n) == 0);
    close(wire);
    end();
}

/* The same of relay headers, whose lane field is made anew by each node. */
static void test_relayed(void)
{
    struct mesh_endpoint wire_at;
    uint8_t bytes[MESH_RELAY_BYTES + 2000], *record = bytes + MESH_RELAY_BYTES;
    begin(2, 1);
    int wire = rig_socket(&wire_at, false);
    send_packet(&a, 0);
    CHECK(receive(&b) == 1);
    CHECK(mesh_session_set_endpoint(a.n.mesh, a.n.index, &wire_at) == 0);
    for (uint32_t by_own = 2; by_own-- > 0;) {
        send_packet(&a, 1);
        uint32_t len = rig_wire_take(wire, record);
        relay_seal(rig_session(&a.n), by_own, MESH_RELAY_HOPS, b.n.mesh->node_id, record, len);
        CHECK(bytes[RECORD_LANE_AT] == 1 && bytes[RECORD_LANE_AT + 1] == by_own << 7);
        rig_wire_put(wire, &b.n, bytes, len + MESH_RELAY_BYTES);
        uint64_t version = rig_session(&b.n)->endpoint_version;
        CHECK(receive(&b) == 1);
        /* The header names the wire, the record behind it that it came through the neighbour. */
        CHECK((rig_session(&b.n)->endpoint_version - version) / 2 == (by_own ? 1 : 2));
        CHECK(mesh_session_set_endpoint(b.n.mesh, b.n.index, &a.n.at) == 0);
    }
    CHECK(rig_all_drops(&b.n) == 0);
    close(wire);
    end();
}

/* A record of b's, as it would answer a's probe. */
static uint32_t seal_answer(uint32_t id, uint8_t kind, uint32_t type, uint8_t *record)
{
    const struct probe probe = {.kind = kind, .id = id, .size_bytes = PROBE_BYTES};
    struct record_prefix prefix = {.flags = (uint8_t)(PREFIX_LAST | type << PREFIX_GSO_SHIFT)};
    struct segment seg = {(uint8_t *)(uintptr_t)&probe, sizeof(probe)};
    struct packet p = {.segs = &seg, .segs_count = 1, .len_bytes = sizeof(probe)};
    uint64_t counter;
    CHECK(session_take_counter(rig_session(&b.n), 0, &counter));
    seal_record(b.n.mesh, rig_session(&b.n), 0, counter, &prefix, &p, sizeof(probe), record);
    return sizeof(probe) + MESH_OVERHEAD_BYTES;
}

/* One datagram to a's own port, from somewhere: dropped for that reason. */
static void expect_drop(int wire, const uint8_t *bytes, uint32_t len, enum drop reason)
{
    uint64_t counted = rig_drops(&a.n, reason), all = rig_all_drops(&a.n);
    struct session_stats before, after;
    struct punt punt;
    CHECK(mesh_session_stats(a.n.mesh, a.n.index, &before) == 0);
    CHECK(train_send_one(wire, false, &a.own_at[1], bytes, len) == 0);
    CHECK(receive(&a) == 0 && !rig_punt(&a.n, &punt));
    CHECK(rig_drops(&a.n, reason) == counted + 1 && rig_all_drops(&a.n) == all + 1);
    CHECK(mesh_session_stats(a.n.mesh, a.n.index, &after) == 0);
    CHECK(after.last_rx_ns == before.last_rx_ns && after.rx_records == before.rx_records);
    CHECK(endpoint_equal(&after.endpoint, &before.endpoint));
}

static void ask(uint32_t id)
{
    CHECK(mesh_send_lane_probe(a.n.mesh, a.n.index, 1, &b.n.at, id, PROBE_BYTES) == 0);
}

static void test_strangers_at_own_ports(void)
{
    struct mesh_endpoint wire_at;
    uint8_t answer[256] = {0}, flipped[256];
    struct punt punt;
    begin(2, 1);
    int wire = rig_socket(&wire_at, false);
    uint32_t len = seal_answer(5, PROBE_ANSWER, PREFIX_CONTROL, answer);
    expect_drop(wire, answer, len, DROP_REPLAY); /* nobody asked */
    ask(5);
    for (uint32_t bytes = 0; bytes < sizeof(answer); bytes++)
        if (bytes != len)
            expect_drop(wire, answer, bytes, DROP_BAD_RECORD);
    for (uint32_t bit = 0; bit < len * 8; bit++) {
        uint32_t at = bit / 8;
        memcpy(flipped, answer, len);
        flipped[at] ^= (uint8_t)(1 << bit % 8);
        if (at != 1) /* hops left may change */
            expect_drop(wire, flipped, len,
                        at == 0 || (at >= RECORD_NODE_AT && at < RECORD_HEADER_BYTES)
                            ? DROP_BAD_RECORD
                        : at >= RECORD_INDEX_AT && at < RECORD_COUNTER_AT ? DROP_UNKNOWN_INDEX
                                                                          : DROP_AUTH);
    }
    /* It is still waited for, and taken from where it comes: whether that is right, Python says. */
    CHECK(train_send_one(wire, false, &a.own_at[1], answer, len) == 0);
    CHECK(receive(&a) == 0 && rig_punt(&a.n, &punt) && punt.kind == PUNT_LANE_REPLY);
    CHECK(punt.port == wire_at.port);
    for (int i = 0; i < 100; i++)
        expect_drop(wire, answer, len, DROP_REPLAY);
    close(wire);
    end();
}

static void test_lying_peer_at_own_ports(void)
{
    struct mesh_endpoint wire_at;
    uint8_t bytes[256];
    begin(2, 1);
    int wire = rig_socket(&wire_at, false);
    ask(5);
    uint32_t len = seal_answer(4, PROBE_ANSWER, PREFIX_CONTROL, bytes);
    expect_drop(wire, bytes, len, DROP_REPLAY);
    for (uint32_t kind = 0; kind < 256; kind++) { /* nor are probes answered there */
        len = seal_answer(5, (uint8_t)kind, PREFIX_CONTROL, bytes);
        if (kind != PROBE_ANSWER)
            expect_drop(wire, bytes, len, DROP_BAD_RECORD);
    }
    for (uint32_t type = 0; type < PREFIX_CONTROL; type++) { /* nor packets taken */
        len = seal_answer(5, PROBE_ANSWER, type, bytes);
        expect_drop(wire, bytes, len, DROP_BAD_RECORD);
    }
    ask(6); /* the answer to the one before comes late */
    len = seal_answer(5, PROBE_ANSWER, PREFIX_CONTROL, bytes);
    expect_drop(wire, bytes, len, DROP_REPLAY);
    close(wire);
    end();
}

/* Armed, the own port tells of what came in meanwhile. */
static void test_sleep(void)
{
    begin(2, 1);
    struct rxq *own = mesh_own_rxq(a.n.mesh, 1);
    CHECK(!own->arm(own));
    ask(9);
    receive(&b);
    CHECK(own->arm(own));
    own->disarm(own);
    receive(&a);
    CHECK(!own->arm(own));
    end();
}

int main(void)
{
    CHECK(sodium_init() >= 0);
    for (uint32_t lanes_a = 2; lanes_a <= LANES_MAX; lanes_a++)
        for (uint32_t lanes_b = 1; lanes_b <= LANES_MAX; lanes_b++)
            test_proof(lanes_a, lanes_b);
    test_ports();
    test_roaming();
    test_relayed();
    test_strangers_at_own_ports();
    test_lying_peer_at_own_ports();
    test_sleep();
    puts("ok");
    return 0;
}
