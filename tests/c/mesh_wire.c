/* mesh_wire.c - records between two mesh ports, with somebody on the wire who changes them. */
#include <sodium.h>

#include "mesh/core/seal.h"
#include "tests/c/mesh_rig.h"

enum { TCP_ACK = 16 };

static struct rig_node a, b;
static struct rig_frame frame;
static struct mesh_endpoint wire_at;
static int wire;
static uint8_t record[RIG_FRAME_BYTES];

/* a's records go to the wire instead of b. */
static void begin(void)
{
    rig_pair(&a, &b);
    wire = rig_socket(&wire_at, false);
    CHECK(mesh_session_set_endpoint(a.mesh, a.index, &wire_at) == 0);
}

static void end(void)
{
    rig_node_free(&a);
    rig_node_free(&b);
    close(wire);
}

/* Seals a packet with that much payload; its record. */
static uint32_t capture(uint32_t payload, uint8_t *to)
{
    rig_tcp(&frame, 4, payload, 0, TCP_ACK);
    CHECK(rig_send(&a, &frame) == 1);
    return rig_wire_take(wire, to);
}

static void expect_drop(const uint8_t *bytes, uint32_t len, enum drop reason)
{
    uint64_t before = rig_drops(&b, reason), all = rig_all_drops(&b);
    rig_wire_put(wire, &b, bytes, len);
    rig_receive_none(&b);
    CHECK(rig_drops(&b, reason) == before + 1 && rig_all_drops(&b) == all + 1);
}

static void expect_delivery(const uint8_t *bytes, uint32_t len)
{
    static uint8_t out[RIG_FRAME_BYTES];
    rig_wire_put(wire, &b, bytes, len);
    CHECK(rig_receive_one(&b, out) == len - MESH_OVERHEAD_BYTES + 14);
}

/* Independent of the cipher library that seals: opens with libsodium, builds header and nonce by
 * the text of record.h. */
static void test_layout(void)
{
    uint8_t aad[23], nonce[12] = {0}, key[32], text[2000];
    unsigned long long text_len;
    begin();
    memset(key, 10, sizeof(key));
    for (uint32_t counter = 0; counter < 3; counter++) {
        static const uint32_t payloads[] = {0, 700, 1348};
        uint32_t len = capture(payloads[counter], record);
        CHECK(len == 24 + 8 + 52 + payloads[counter] + 16);
        CHECK(memcmp(record, "\x04\x00\x00\x00\x02\x00\x02\x00", 8) == 0);
        CHECK(record[8] == counter && memcmp(record + 9, "\0\0\0\0\0\0\0", 7) == 0);
        CHECK(memcmp(record + 16, "\2\2\2\2\2\2\2\2", 8) == 0);
        aad[0] = record[0];
        memcpy(aad + 1, record + 2, 22);
        nonce[4] = (uint8_t)counter;
        if (!crypto_aead_aes256gcm_is_available())
            continue;
        CHECK(crypto_aead_aes256gcm_decrypt(text, &text_len, NULL, record + 24, len - 24, aad,
                                            sizeof(aad), nonce, key) == 0);
        /* NEEDS_CSUM and last; checksum field at 20 + 16 of the IP packet. */
        CHECK(memcmp(text, "\x09\x14\x10\x00\x00\x00\x00\x00", 8) == 0);
        CHECK(text_len == len - 40 && memcmp(text + 8, frame.bytes + 14, text_len - 8) == 0);
    }
    end();
}

static void test_round_trip(void)
{
    static uint8_t out[RIG_FRAME_BYTES];
    rig_pair(&a, &b);
    for (uint32_t payload = 0; payload <= RIG_MTU - 52; payload += 1 + rig_random(9)) {
        rig_tcp(&frame, 4, payload, 0, TCP_ACK);
        CHECK(rig_send(&a, &frame) == 1);
        CHECK(rig_receive_one(&b, out) == 66 + payload);
        CHECK(memcmp(out + 14, frame.bytes + 14, 52 + payload) == 0);
        uint32_t v6 = min_u32(payload, RIG_MTU - 72);
        rig_tcp(&frame, 6, v6, 0, TCP_ACK);
        CHECK(rig_send(&b, &frame) == 1); /* confirmed by now */
        CHECK(rig_receive_one(&a, out) == 86 + v6);
        CHECK(memcmp(out + 14, frame.bytes + 14, 72 + v6) == 0);
    }
    /* What Ethernet added behind a short packet is not sent. */
    rig_tcp(&frame, 4, 2, 0, TCP_ACK);
    rig_split(&frame, frame.packet.len_bytes + 10, 3);
    CHECK(rig_send(&a, &frame) == 1 && rig_receive_one(&b, out) == 68);
    CHECK(rig_all_drops(&a) == 0 && rig_all_drops(&b) == 0);
    end();
}

static void test_bit_flips(void)
{
    uint32_t len;
    begin();
    len = capture(20, record);
    for (uint32_t at = 0; at < len; at++) {
        for (int bit = 0; bit < 8; bit++) {
            record[at] ^= (uint8_t)(1 << bit);
            /* The type alone may make it a handshake of the wrong length. */
            if (at == 1) {
                record[at] ^= (uint8_t)(1 << bit);
                continue;
            }
            enum drop reason = at < 4 || (at >= 16 && at < 24) ? DROP_BAD_RECORD
                               : at < 8                        ? DROP_UNKNOWN_INDEX
                                                               : DROP_AUTH;
            if ((at == 2 && bit < 5) || (at == 3 && bit == 7))
                reason = DROP_AUTH; /* another lane that exists, or its own port */
            expect_drop(record, len, reason);
            record[at] ^= (uint8_t)(1 << bit);
        }
    }
    record[1] = 9; /* hops left is not authenticated */
    expect_delivery(record, len);
    end();
}

static void test_truncated(void)
{
    uint32_t len;
    begin();
    len = capture(20, record);
    for (uint32_t n = 0; n < len; n++)
        expect_drop(record, n, n < RECORD_EMPTY_BYTES ? DROP_BAD_RECORD : DROP_AUTH);
    record[len] = 0;
    expect_drop(record, len + 1, DROP_AUTH);
    expect_delivery(record, len);
    end();
}

static void test_replay(void)
{
    static uint8_t records[20][200];
    uint32_t len = 0;
    begin();
    for (uint32_t i = 0; i < 20; i++)
        len = capture(10, records[i]);
    for (uint32_t i = 20; i > 0; i--) /* backwards: all are new */
        expect_delivery(records[i - 1], len);
    for (uint32_t i = 0; i < 20; i++)
        expect_drop(records[i], len, DROP_REPLAY);
    /* The window's edge: 8191 back is inside, 8192 back is not. */
    len = capture(10, records[0]);
    len = capture(10, records[1]);
    rig_session(&a)->tx[0].next += SESSION_WINDOW_RECORDS - 2;
    len = capture(10, records[2]); /* 8192 after the first */
    expect_delivery(records[2], len);
    expect_drop(records[0], len, DROP_REPLAY);
    expect_delivery(records[1], len);
    /* Other lanes have windows of their own. */
    rig_session(&a)->tx[0].next += 1ull << 40;
    len = capture(10, records[3]);
    expect_delivery(records[3], len);
    expect_drop(records[3], len, DROP_REPLAY);
    end();
}

static uint8_t seen[200000];

static bool is_new(uint64_t counter, uint64_t top)
{
    return !seen[counter] && (counter >= top || top - counter <= SESSION_WINDOW_RECORDS);
}

/* The window against a plain list of all counters seen; after a jump, every place of it. */
static void test_window_model(void)
{
    for (uint32_t rarely = 50; rarely <= 5000; rarely *= 100) {
        static struct session_window rx;
        uint64_t top = 0;
        memset(&rx, 0, sizeof(rx));
        memset(seen, 0, sizeof(seen));
        for (uint32_t i = 0; i < 400000; i++) {
            uint64_t jump = rig_random(rarely) == 0 ? rig_random(9000) : rig_random(4);
            uint64_t counter = rig_random(3) ? top + jump : top - (rig_random(10000) % (top + 1));
            if (counter >= sizeof(seen))
                break;
            bool expected = is_new(counter, top);
            CHECK(session_replay_ok(&rx, counter) == expected);
            if (!expected)
                continue;
            CHECK(session_replay_commit(&rx, counter) == (counter >= top));
            seen[counter] = 1;
            if (counter >= top)
                top = counter + 1;
            for (uint64_t at = jump > 8000 ? 0 : top; at < top; at++)
                CHECK(session_replay_ok(&rx, at) == is_new(at, top));
        }
        CHECK(top > 190000 && !session_replay_ok(&rx, UINT64_MAX));
    }
}

static void test_limit(void)
{
    begin();
    struct session *s = rig_session(&a);
    s->granted = SESSION_LIMIT_RECORDS - SESSION_GRANT_RECORDS;
    s->tx[0].next = 5;
    capture(10, record);
    s->tx[0].granted = 1;
    capture(10, record);
    rig_tcp(&frame, 4, 10, 0, TCP_ACK);
    CHECK(rig_send(&a, &frame) == 1 && rig_drops(&a, DROP_COUNTER_LIMIT) == 1);
    rig_tcp(&frame, 4, 30000, 1000, TCP_ACK);
    CHECK(rig_send(&a, &frame) == 1 && rig_drops(&a, DROP_COUNTER_LIMIT) == 2);
    CHECK(mesh_send_keepalive(a.mesh, RIG_PEER) == -EKEYEXPIRED);
    CHECK(s->granted == SESSION_LIMIT_RECORDS && s->tx[0].next == 7);
    end();
}

static void test_roaming(void)
{
    static uint8_t old[200];
    struct session_stats stats;
    struct punt punt;
    begin();
    uint32_t len = capture(10, old);
    len = capture(10, record);
    expect_delivery(record, len);
    CHECK(rig_punt(&b, &punt) && punt.kind == PUNT_SESSION_CONFIRMED && punt.id == b.index);
    CHECK(rig_punt(&b, &punt) && punt.kind == PUNT_ENDPOINT && punt.id == b.index);
    CHECK(punt.port == wire_at.port && memcmp(punt.address, wire_at.address, 16) == 0);
    /* The answer goes there. */
    rig_tcp(&frame, 4, 10, 0, TCP_ACK);
    CHECK(rig_send(&b, &frame) == 1 && rig_wire_take(wire, record) == len);
    /* An older record from elsewhere moves nothing; neither does a forged newer one. */
    CHECK(mesh_session_stats(b.mesh, b.index, &stats) == 0 && stats.endpoint.port == wire_at.port);
    int other = wire;
    struct mesh_endpoint other_at;
    wire = rig_socket(&other_at, false);
    expect_delivery(old, len);
    CHECK(mesh_session_stats(b.mesh, b.index, &stats) == 0 && stats.endpoint.port == wire_at.port);
    CHECK(!rig_punt(&b, &punt));
    CHECK(stats.rx_records == 2 && stats.rx_bytes == 2 * len && stats.tx_records == 1);
    CHECK(stats.confirmed && stats.current && stats.last_rx_ns == b.breath.now_ns);
    close(other);
    end();
}

/* Around a rekey: the next receives, is confirmed by a record, and the previous still opens. */
static void test_rekey(void)
{
    static uint8_t old[200];
    struct session_stats stats;
    struct punt punt;
    begin();
    uint32_t len = capture(10, old);
    rig_tcp(&frame, 4, 10, 0, TCP_ACK);
    for (int i = 0; i < 3; i++)
        CHECK(rig_send(&b, &frame) == 1);
    CHECK(rig_drops(&b, DROP_NO_SESSION) == 3); /* not confirmed: b must not send */
    CHECK(rig_punt(&b, &punt) && punt.kind == PUNT_NEED_SESSION && punt.id == RIG_PEER);
    CHECK(!rig_punt(&b, &punt)); /* asked for once */
    b.breath.now_ns += NS_PER_S;
    CHECK(rig_send(&b, &frame) == 1 && rig_punt(&b, &punt) && punt.kind == PUNT_NEED_SESSION);
    expect_delivery(old, len);
    CHECK(rig_punt(&b, &punt) && punt.kind == PUNT_SESSION_CONFIRMED && punt.id == b.index);
    uint32_t first = b.index, first_a = a.index;
    len = capture(10, old);
    rig_install(&b, &a, 20, false, 0x30003, 0x40004);
    rig_install(&a, &b, 20, true, 0x40004, 0x30003);
    CHECK(mesh_session_set_endpoint(a.mesh, a.index, &wire_at) == 0);
    CHECK(mesh_session_stats(b.mesh, first, &stats) == 0 && stats.current);
    expect_delivery(old, len);
    len = capture(10, record);
    expect_delivery(record, len);
    CHECK(mesh_session_stats(b.mesh, b.index, &stats) == 0 && stats.current && stats.confirmed);
    while (rig_punt(&b, &punt) && punt.kind != PUNT_SESSION_CONFIRMED)
        ;
    CHECK(punt.id == b.index);
    /* The previous, unlinked, opens no more; a third with the next one's slot is refused. */
    struct session *gone = mesh_session_unlink(b.mesh, first);
    CHECK(gone && !mesh_session_unlink(b.mesh, first));
    mesh_session_detach(gone);
    mesh_session_free(gone);
    CHECK(mesh_session_promote(a.mesh, first_a) == 0);
    len = capture(10, record);
    expect_drop(record, len, DROP_UNKNOWN_INDEX);
    end();
}

static void test_keepalive(void)
{
    struct session_stats stats;
    struct punt punt;
    rig_pair(&a, &b);
    CHECK(mesh_send_keepalive(b.mesh, RIG_PEER) == -ENOKEY);
    CHECK(mesh_send_keepalive(b.mesh, RIG_PEER + 1) == -ENOENT);
    CHECK(mesh_send_keepalive(a.mesh, RIG_PEER) == 0);
    rig_receive_none(&b);
    CHECK(rig_punt(&b, &punt) && punt.kind == PUNT_SESSION_CONFIRMED);
    CHECK(mesh_session_stats(b.mesh, b.index, &stats) == 0);
    CHECK(stats.rx_records == 1 && stats.last_rx_ns != 0 && stats.last_rx_packet_ns == 0);
    CHECK(mesh_session_stats(a.mesh, a.index, &stats) == 0);
    CHECK(stats.tx_records == 1 && stats.last_tx_ns == 0 && stats.last_keepalive_ns != 0);
    CHECK(mesh_send_keepalive(b.mesh, RIG_PEER) == 0);
    rig_receive_none(&a);
    CHECK(rig_all_drops(&a) == 0 && rig_all_drops(&b) == 0);
    end();
}

/* An authentic peer that lies inside its records: nothing malformed is delivered. */
static void test_inner(void)
{
    struct lie {
        struct record_prefix prefix;
        uint32_t at;
        uint8_t value;
    } lies[] = {
        {{.flags = PREFIX_LAST}, 0, 0x55},                           /* no IP version */
        {{.flags = PREFIX_LAST}, 0, 0x41},                           /* header too short */
        {{.flags = PREFIX_LAST}, 2, 0x10},                           /* longer than the record */
        {{.flags = PREFIX_LAST | 1, .csum_start = 2}, 0, 0x45},      /* checksum in the IP header */
        {{.flags = PREFIX_LAST | 1, .csum_start = 255, .csum_offset = 255}, 0, 0x45},
        {{.flags = PREFIX_LAST}, 0, 0x60},                           /* says v6, too short */
    };
    begin();
    for (uint32_t i = 0; i < ARRAY_LEN(lies); i++) {
        rig_tcp(&frame, 4, 10, 0, TCP_ACK);
        rig_split(&frame, frame.packet.len_bytes, 1);
        frame.packet.head[14 + lies[i].at] = lies[i].value;
        uint64_t counter;
        CHECK(session_take_counter(rig_session(&a), 0, &counter));
        seal_record(a.mesh, rig_session(&a), 0, counter, &lies[i].prefix, &frame.packet,
                    frame.packet.len_bytes - 14, record);
        expect_drop(record, frame.packet.len_bytes - 14 + MESH_OVERHEAD_BYTES, DROP_BAD_RECORD);
    }
    end();
}

int main(void)
{
    CHECK(sodium_init() >= 0);
    test_layout();
    for (rig_cipher = CIPHER_AES256_GCM; rig_cipher <= CIPHER_CHACHA20_POLY1305; rig_cipher++) {
        test_round_trip();
        test_bit_flips();
        test_truncated();
    }
    rig_cipher = CIPHER_AES256_GCM;
    test_replay();
    test_window_model();
    test_limit();
    test_roaming();
    test_rekey();
    test_keepalive();
    test_inner();
    puts("ok");
    return 0;
}
