/* mesh_gate.c - handshake messages before Python sees them: length, first MAC, rate. */
#include <sodium.h>

#include "tests/c/mesh_rig.h"

static struct rig_node a, b;
static struct mesh_endpoint wire_at;
static int wire;

static void begin(void)
{
    rig_pair(&a, &b);
    wire = rig_socket(&wire_at, false);
}

static void end(void)
{
    rig_node_free(&a);
    rig_node_free(&b);
    close(wire);
}

static void expect_drop(const uint8_t *bytes, uint32_t len, enum drop reason)
{
    uint64_t before = rig_drops(&b, reason), all = rig_all_drops(&b);
    rig_wire_put(wire, &b, bytes, len);
    rig_receive_none(&b);
    CHECK(rig_drops(&b, reason) == before + 1 && rig_all_drops(&b) == all + 1);
}

static void seal_mac1(uint8_t *message, uint32_t len, uint8_t id)
{
    uint8_t key[32];
    memset(key, id, sizeof(key));
    crypto_generichash(message + len - 32, 16, message, len - 32, key, sizeof(key));
}

static void test_handshakes(void)
{
    uint8_t message[200] = {1};
    struct punt punt;
    begin();
    seal_mac1(message, 152, 2);
    rig_wire_put(wire, &b, message, 152);
    rig_receive_none(&b);
    CHECK(rig_punt(&b, &punt) && punt.kind == PUNT_HANDSHAKE && punt.len_bytes == 152);
    CHECK(memcmp(punt.data, message, 152) == 0 && punt.port == wire_at.port && punt.socket == 0);
    for (uint32_t len = 1; len < sizeof(message); len++)
        if (len != 152)
            expect_drop(message, len, DROP_BAD_RECORD);
    for (uint32_t at = 1; at < 136; at++) {
        message[at] ^= 1;
        expect_drop(message, 152, DROP_BAD_MAC1);
        message[at] ^= 1;
    }
    message[140] ^= 1; /* mac2 is Python's */
    uint32_t passed = 0;
    for (uint32_t i = 0; i < 100; i++) {
        rig_wire_put(wire, &b, message, 152);
        rig_receive_none(&b);
        passed += rig_punt(&b, &punt);
    }
    CHECK(passed == HANDSHAKE_SOURCE_BURST - 1);
    CHECK(rig_drops(&b, DROP_RATE_LIMIT) == 100 - passed);
    b.breath.now_ns += NS_PER_S / HANDSHAKE_SOURCE_PER_S;
    rig_wire_put(wire, &b, message, 152);
    rig_receive_none(&b);
    CHECK(rig_punt(&b, &punt) && !rig_punt(&b, &punt));
    b.breath.now_ns += NS_PER_S;
    memset(message, 0, sizeof(message));
    message[0] = 2;
    seal_mac1(message, 96, 2);
    rig_wire_put(wire, &b, message, 96);
    message[0] = 3;
    rig_wire_put(wire, &b, message, 64);
    rig_receive_none(&b);
    CHECK(rig_punt(&b, &punt) && punt.len_bytes == 96 && rig_punt(&b, &punt));
    CHECK(punt.len_bytes == 64);
    message[0] = 5;
    expect_drop(message, 64, DROP_BAD_RECORD);
    end();
}

/* Many sources together get no more than the limit of all. */
static void test_all_sources(void)
{
    struct punt punt;
    uint8_t message[152] = {1};
    uint32_t passed = 0;
    begin();
    seal_mac1(message, 152, 2);
    for (uint32_t i = 0; i < 5000; i++) {
        struct mesh_endpoint from = {.port = 9};
        from.address[0] = 0x20, from.address[1] = 1;
        from.address[6] = (uint8_t)(i >> 8), from.address[7] = (uint8_t)i;
        b.breath.now_ns += NS_PER_S / 5000;
        handshake_receive(b.mesh->lanes[0], &b.breath, message, sizeof(message), &from);
        passed += rig_punt(&b, &punt);
    }
    CHECK(passed >= HANDSHAKE_ALL_PER_S && passed <= HANDSHAKE_ALL_PER_S + HANDSHAKE_ALL_BURST);
    end();
}

int main(void)
{
    CHECK(sodium_init() >= 0);
    test_handshakes();
    test_all_sources();
    puts("ok");
    return 0;
}
