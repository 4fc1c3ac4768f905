/* mesh_runs.c - large frames through two mesh ports: cut, sealed, opened, merged, compared. */
#include "tests/c/mesh_rig.h"

enum { TCP_FIN = 1, TCP_PSH = 8, TCP_ACK = 16, TCP_CWR = 0x80 };

/* What came in so far of the frame that was sent. */
struct stream {
    const struct rig_frame *sent;
    uint32_t headers;            /* L2 to L4 */
    uint32_t payload;            /* of the frame */
    uint32_t next;               /* payload offset */
    uint32_t packets;
    uint32_t gso_packets;
};

static void check_headers(const struct stream *s, const struct packet *p, const uint8_t *bytes,
                          uint32_t payload)
{
    const uint8_t *ip = bytes + 14, *tcp = bytes + p->l4_offset;
    bool first = s->next == 0, last = s->next + payload == s->payload;
    const uint8_t *sent_tcp = s->sent->bytes + s->headers - 32;
    if (p->ip_version == 4) {
        CHECK(get_be16(ip + 2) == p->len_bytes - 14);
        CHECK(rig_sum(0, ip, 20) == 0xffff);
        CHECK(memcmp(ip + 12, s->sent->bytes + 26, 8) == 0);
    } else {
        CHECK(get_be16(ip + 4) == p->len_bytes - 54);
        CHECK(memcmp(ip + 8, s->sent->bytes + 22, 32) == 0);
    }
    CHECK(get_be32(tcp + 4) == get_be32(sent_tcp + 4) + s->next);
    CHECK(memcmp(tcp, sent_tcp, 4) == 0 && memcmp(tcp + 8, sent_tcp + 8, 5) == 0);
    CHECK(memcmp(tcp + 20, sent_tcp + 20, 12) == 0);
    uint8_t flags = sent_tcp[13];
    if (!last)
        flags &= (uint8_t) ~(TCP_FIN | TCP_PSH);
    if (!first)
        flags &= (uint8_t)~TCP_CWR;
    CHECK(tcp[13] == flags);
    CHECK(p->flags & PKT_NEEDS_CSUM);
    CHECK(p->csum_start == p->l4_offset && p->csum_offset == 16);
    CHECK(get_be16(tcp + 16) == rig_pseudo_sum(ip, 6, 32 + payload));
}

static void take(struct stream *s, struct packet *p)
{
    static uint8_t bytes[RIG_FRAME_BYTES];
    CHECK(p->len_bytes > s->headers && p->len_bytes <= RIG_FRAME_BYTES);
    uint32_t payload = p->len_bytes - s->headers;
    pkt_copy(p, 0, bytes, p->len_bytes);
    CHECK(memcmp(bytes, "\0\0\0\0\0\0\0\0\0\0\0", 12) == 0);
    CHECK(memcmp(bytes + s->headers, s->sent->bytes + s->headers + s->next, payload) == 0);
    check_headers(s, p, bytes, payload);
    CHECK(pkt_offload_ok(p));
    CHECK((p->gso_type == GSO_NONE) == (payload <= RIG_MTU - (s->headers - 14) &&
                                       p->segs_count == 1));
    if (p->gso_type != GSO_NONE)
        CHECK(p->gso_size != 0 && payload > p->gso_size);
    s->gso_packets += p->gso_type != GSO_NONE;
    s->next += payload;
    s->packets++;
}

static struct stream transfer(struct rig_node *a, struct rig_node *b, const struct rig_frame *f)
{
    struct stream s = {.sent = f, .headers = f->packet.l4_offset + 32u};
    struct packet *out[BURST];
    s.payload = f->packet.len_bytes - s.headers;
    CHECK(rig_send(a, (struct rig_frame *)(uintptr_t)f) == 1);
    while (s.next < s.payload) {
        uint32_t n = rig_receive(b, out, RIG_WAIT_MS);
        CHECK(n > 0);
        for (uint32_t i = 0; i < n; i++)
            take(&s, out[i]);
        b->rxq->done(b->rxq, &b->breath, n);
    }
    CHECK(s.next == s.payload && rig_all_drops(a) == 0 && rig_all_drops(b) == 0);
    return s;
}

static void test_sizes(int version)
{
    static const uint16_t mss[] = {1328, 1348, 1400, 1448, 9000, 536, 100, 65535};
    static struct rig_frame f;
    struct rig_node a, b;
    rig_pair(&a, &b);
    for (uint32_t i = 0; i < ARRAY_LEN(mss); i++) {
        for (uint32_t round = 0; round < 12; round++) {
            uint32_t most = 65535 - 20 - 32 - (version == 6 ? 20 : 0);
            uint32_t payload = round == 0 ? most : round == 1 ? mss[i] + 1u : 1 + rig_random(most);
            payload = min_u32(payload, most);
            uint8_t flags = TCP_ACK | (round & 1 ? TCP_PSH : 0) | (round & 2 ? TCP_FIN : 0) |
                            (round & 4 ? TCP_CWR : 0);
            rig_tcp(&f, version, payload, mss[i], flags);
            transfer(&a, &b, &f);
        }
    }
    rig_node_free(&a);
    rig_node_free(&b);
}

/* A full frame comes out in as few pieces as trains and segments allow: two. */
static void test_merged(void)
{
    static struct rig_frame f;
    struct rig_node a, b;
    struct counters c;
    rig_pair(&a, &b);
    rig_tcp(&f, 4, 65000, 1448, TCP_ACK);
    struct stream s = transfer(&a, &b, &f);
    CHECK(s.packets <= 2 && s.gso_packets >= 1);
    port_counters_read(mesh_port(a.mesh), &c);
    CHECK(c.tx_packets == 1 && c.tx_bytes == f.packet.len_bytes && c.tx_gso_packets == 1);
    port_counters_read(mesh_port(b.mesh), &c);
    CHECK(c.rx_packets == s.packets && c.rx_gso_packets == s.gso_packets);
    rig_node_free(&a);
    rig_node_free(&b);
}

/* Records lost, doubled and swapped in the middle of a run: what comes is whole packets. */
static void test_holes(void)
{
    static struct rig_frame f;
    static uint8_t records[64][1500];
    uint32_t lengths[64], count = 0;
    struct mesh_endpoint at;
    struct rig_node a, b;
    struct packet *out[BURST];
    uint8_t seen[40 * 1000] = {0}, bytes[RIG_FRAME_BYTES];
    int wire = rig_socket(&at, false);
    rig_pair(&a, &b);
    CHECK(mesh_session_set_endpoint(a.mesh, a.index, &at) == 0);
    rig_tcp(&f, 4, 40 * 1000, 1000, TCP_ACK);
    CHECK(rig_send(&a, &f) == 1);
    for (count = 0; count < 40; count++)
        lengths[count] = rig_wire_take(wire, records[count]);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t which = i == 20 ? 21 : i == 21 ? 20 : i;
        if (i == 10)
            continue; /* lost */
        rig_wire_put(wire, &b, records[which], lengths[which]);
        if (i == 30)
            rig_wire_put(wire, &b, records[which], lengths[which]);
    }
    for (uint32_t n; (n = rig_receive(&b, out, 0)) != 0;) {
        for (uint32_t i = 0; i < n; i++) {
            CHECK(pkt_offload_ok(out[i]) && out[i]->len_bytes > 66);
            pkt_copy(out[i], 0, bytes, out[i]->len_bytes);
            uint32_t at_byte = get_be32(bytes + 38) - 0xfffff000u, len = out[i]->len_bytes - 66;
            CHECK(at_byte + len <= 40 * 1000 && seen[at_byte] == 0);
            CHECK(memcmp(bytes + 66, f.bytes + 66 + at_byte, len) == 0);
            memset(seen + at_byte, 1, len);
        }
        b.rxq->done(b.rxq, &b.breath, n);
    }
    for (uint32_t i = 0; i < 40; i++)
        CHECK(seen[i * 1000] == (i != 10));
    CHECK(rig_drops(&b, DROP_REPLAY) == 1 && rig_all_drops(&b) == 1);
    rig_node_free(&a);
    rig_node_free(&b);
    close(wire);
}

/* burst() without done() yields the same packets again, and opens no record twice. */
static void test_not_done(void)
{
    static struct rig_frame f;
    struct rig_node a, b;
    struct packet *out[BURST];
    rig_pair(&a, &b);
    for (uint32_t i = 0; i < 100; i++) {
        rig_tcp(&f, 4, 100 + i, 0, TCP_ACK);
        CHECK(rig_send(&a, &f) == 1);
    }
    for (uint32_t i = 0; i < 100;) {
        uint32_t n = rig_receive(&b, out, RIG_WAIT_MS);
        CHECK(n > 0 && out[0]->len_bytes == 66 + 100 + i);
        uint32_t again = b.rxq->burst(b.rxq, &b.breath, out, BURST);
        CHECK(again >= n && out[n - 1]->len_bytes == 66 + 100 + i + n - 1);
        uint32_t done = 1 + rig_random(again);
        b.rxq->done(b.rxq, &b.breath, done);
        i += done;
    }
    CHECK(rig_all_drops(&b) == 0);
    rig_node_free(&a);
    rig_node_free(&b);
}

/* Small packets of one size for one peer travel as one train. */
static void test_small_train(void)
{
    static struct rig_frame f[BURST];
    static uint8_t bytes[RIG_FRAME_BYTES];
    struct packet *pkts[BURST];
    struct mesh_endpoint at;
    struct rig_node a, b;
    int wire = rig_socket(&at, true);
    rig_pair(&a, &b);
    CHECK(mesh_session_set_endpoint(a.mesh, a.index, &at) == 0);
    for (uint32_t i = 0; i < BURST; i++) {
        rig_tcp(&f[i], 4, 12, 0, TCP_ACK);
        pkts[i] = &f[i].packet;
    }
    struct port *port = mesh_port(a.mesh);
    CHECK(port->tx(port, &a.breath, pkts, BURST, 0) == BURST);
    CHECK(rig_wire_take(wire, bytes) == BURST * (64 + MESH_OVERHEAD_BYTES));
    rig_node_free(&a);
    rig_node_free(&b);
    close(wire);
}

/* What no frame may do: too long for the path without being GSO, too many records. */
static void test_refused(void)
{
    static struct rig_frame f;
    struct rig_node a, b;
    rig_pair(&a, &b);
    rig_tcp(&f, 4, RIG_MTU - 52 + 1, 0, TCP_ACK);
    CHECK(rig_send(&a, &f) == 1 && rig_drops(&a, DROP_TOO_BIG) == 1);
    rig_tcp(&f, 4, 65000, 1, TCP_ACK);
    CHECK(rig_send(&a, &f) == 1 && rig_drops(&a, DROP_SEGMENTS) == 1);
    rig_receive_none(&b);
    CHECK(rig_all_drops(&a) == 2);
    rig_node_free(&a);
    rig_node_free(&b);
}

int main(void)
{
    test_sizes(4);
    test_sizes(6);
    test_merged();
    test_holes();
    test_not_done();
    test_small_train();
    test_refused();
    puts("ok");
    return 0;
}
