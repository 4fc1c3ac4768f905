/* mesh_probe.c - probes and their answers, and control records that lie. */
#include <sodium.h>

#include "mesh/core/probe.h"
#include "mesh/core/seal.h"
#include "tests/c/mesh_rig.h"

static struct rig_node a, b;

/* a's endpoint of b. */
static struct mesh_endpoint at_b(void)
{
    struct session_stats stats;
    CHECK(mesh_session_stats(a.mesh, a.index, &stats) == 0);
    return stats.endpoint;
}

static void ask(uint32_t id, uint32_t ip_bytes)
{
    struct mesh_endpoint to = at_b();
    CHECK(mesh_send_probe(a.mesh, a.index, &to, id, ip_bytes) == 0);
}

/* The next PUNT_PROBE_REPLY of a. */
static bool answer(struct probe_reply *reply)
{
    struct punt punt;
    while (rig_punt(&a, &punt)) {
        if (punt.kind != PUNT_PROBE_REPLY)
            continue;
        CHECK(punt.id == a.index && punt.len_bytes == sizeof(*reply));
        memcpy(reply, punt.data, sizeof(*reply));
        return true;
    }
    return false;
}

static void test_sizes(void)
{
    static const uint32_t sizes[] = {16, 17, 503, 504, 505, 1400, 9000, 60000};
    rig_pair(&a, &b);
    for (uint32_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct probe_reply reply;
        uint64_t began_ns = clock_now_ns();
        ask(i + 77, sizes[i]);
        rig_receive_none(&b);
        CHECK(!answer(&reply));
        rig_receive_none(&a);
        CHECK(answer(&reply) && reply.id == i + 77 && reply.ip_bytes == sizes[i]);
        CHECK(reply.received_ns >= began_ns && reply.received_ns <= clock_now_ns());
    }
    struct mesh_endpoint to = at_b();
    CHECK(mesh_send_probe(a.mesh, a.index, &to, 1, 15) == -EINVAL);
    CHECK(mesh_send_probe(a.mesh, a.index, &to, 1, 65401) == -EINVAL);
    CHECK(mesh_send_probe(a.mesh, a.index + 1, &to, 1, 16) == -ENOENT);
    /* No packets: nothing that a keepalive were owed for, but proof that the other is there. */
    struct session_stats stats;
    CHECK(mesh_session_stats(b.mesh, b.index, &stats) == 0);
    CHECK(stats.last_rx_packet_ns == 0 && stats.last_rx_ns != 0 && stats.last_tx_ns == 0);
    CHECK(rig_all_drops(&a) == 0 && rig_all_drops(&b) == 0);
    rig_node_free(&a);
    rig_node_free(&b);
}

static void test_endpoints_stay(void)
{
    struct mesh_endpoint other, before;
    struct session_stats stats;
    struct rig_frame *frame = calloc(1, sizeof(*frame));
    static uint8_t out[RIG_FRAME_BYTES];
    struct punt punt;
    rig_pair(&a, &b);
    int wire = rig_socket(&other, false);
    before = other;
    CHECK(frame && mesh_session_set_endpoint(b.mesh, b.index, &other) == 0);
    ask(1, 100);
    rig_receive_none(&b);
    CHECK(mesh_session_stats(b.mesh, b.index, &stats) == 0);
    CHECK(endpoint_equal(&stats.endpoint, &before)); /* a probe moves nothing */
    struct probe_reply reply;
    rig_receive_none(&a);
    CHECK(answer(&reply)); /* and is answered where it came from */
    other.pinned = 1;
    CHECK(mesh_session_set_endpoint(b.mesh, b.index, &other) == 0);
    while (rig_punt(&b, &punt))
        continue;
    for (int i = 0; i < 3; i++) { /* a pinned endpoint stays, and that is told once */
        rig_tcp(frame, 4, 10, 0, 16);
        CHECK(rig_send(&a, frame) == 1);
        rig_receive_one(&b, out);
    }
    CHECK(mesh_session_stats(b.mesh, b.index, &stats) == 0);
    CHECK(endpoint_equal(&stats.endpoint, &before));
    CHECK(rig_punt(&b, &punt) && punt.kind == PUNT_ENDPOINT && !rig_punt(&b, &punt));
    free(frame);
    close(wire);
    rig_node_free(&a);
    rig_node_free(&b);
}

/* Seals a control record of b's with that text and gives it to a. */
static void forge(const void *text, uint32_t len_bytes)
{
    struct session *s = rig_session(&b);
    uint8_t record[256];
    struct record_prefix prefix = {.flags = PREFIX_LAST | PREFIX_CONTROL << PREFIX_GSO_SHIFT};
    struct segment seg = {(uint8_t *)(uintptr_t)text, len_bytes};
    struct packet p = {.segs = &seg, .segs_count = 1, .len_bytes = len_bytes};
    struct mesh_endpoint from;
    uint64_t counter;
    CHECK(session_take_counter(s, 0, &counter));
    seal_record(b.mesh, s, 0, counter, &prefix, &p, len_bytes, record);
    int wire = rig_socket(&from, false);
    rig_wire_put(wire, &a, record, len_bytes + MESH_OVERHEAD_BYTES);
    rig_receive_none(&a);
    close(wire);
}

static void test_lies(void)
{
    struct probe probe = {.kind = PROBE_ANSWER};
    rig_pair(&a, &b);
    forge(&probe, 15);
    CHECK(rig_drops(&a, DROP_BAD_RECORD) == 1);
    for (uint32_t kind = 0; kind < 256; kind++) {
        probe.kind = (uint8_t)kind;
        if (kind != PROBE_ASK && kind != PROBE_ANSWER)
            forge(&probe, sizeof(probe));
    }
    CHECK(rig_drops(&a, DROP_BAD_RECORD) == 255 && rig_all_drops(&a) == 255);
    struct probe_reply reply;
    CHECK(!answer(&reply));
    /* Answers that nobody asked for reach Python at their rate only; b->now_ns stands still. */
    uint32_t handed_up = 0;
    probe.kind = PROBE_ANSWER;
    for (int i = 0; i < 200; i++)
        forge(&probe, sizeof(probe));
    while (answer(&reply))
        handed_up++;
    CHECK(handed_up >= PROBE_PUNTS_BURST && handed_up + rig_drops(&a, DROP_RATE_LIMIT) == 200);
    CHECK(rig_drops(&a, DROP_RATE_LIMIT) > 0);
    rig_node_free(&a);
    rig_node_free(&b);
}

int main(void)
{
    CHECK(sodium_init() >= 0);
    test_sizes();
    test_endpoints_stay();
    test_lies();
    puts("ok");
    return 0;
}
