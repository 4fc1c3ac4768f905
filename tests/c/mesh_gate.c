/* mesh_gate.c - handshake messages before Python sees them: length, MACs, cookies, rates. */
#include <sodium.h>

#include "mesh/core/cookie.h"
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

static bool passes(const uint8_t *message, uint32_t len)
{
    struct punt punt;
    rig_wire_put(wire, &b, message, len);
    rig_receive_none(&b);
    if (!rig_punt(&b, &punt))
        return false;
    CHECK(punt.kind == PUNT_HANDSHAKE && punt.len_bytes == len && punt.port == wire_at.port);
    CHECK(memcmp(punt.data, message, len) == 0 && punt.socket == 0 && !rig_punt(&b, &punt));
    return true;
}

static void test_initiations(void)
{
    uint8_t message[200] = {1};
    begin();
    seal_mac1(message, 152, 2);
    CHECK(passes(message, 152));
    for (uint32_t len = 1; len < sizeof(message); len++)
        if (len != 152)
            expect_drop(message, len, DROP_BAD_RECORD);
    for (uint32_t at = 1; at < 136; at++) {
        message[at] ^= 1;
        expect_drop(message, 152, at < 4 ? DROP_BAD_RECORD : DROP_BAD_MAC1);
        message[at] ^= 1;
    }
    message[140] ^= 1; /* a wrong mac2 is none */
    CHECK(passes(message, 152));
    message[0] = 5;
    expect_drop(message, 64, DROP_BAD_RECORD);
    end();
}

static void test_answers(void)
{
    static const struct { uint8_t type; uint32_t len, index_at; } answers[] = {{2, 96, 8},
                                                                              {3, 64, 4}};
    begin();
    for (int i = 0; i < 2; i++) {
        uint8_t message[96] = {answers[i].type};
        memcpy(message + answers[i].index_at, "\x78\x56\x34\x12", 4);
        if (answers[i].type == 2)
            seal_mac1(message, answers[i].len, 2);
        mesh_expect_answer(b.mesh, 0x22345678);
        expect_drop(message, answers[i].len, DROP_UNKNOWN_INDEX);
        mesh_expect_answer(b.mesh, 0x12345678);
        CHECK(passes(message, answers[i].len));
        b.breath.now_ns += (HANDSHAKE_EXPECTED_S + 2) * NS_PER_S;
        expect_drop(message, answers[i].len, DROP_UNKNOWN_INDEX);
        b.breath.now_ns -= (HANDSHAKE_EXPECTED_S + 2) * NS_PER_S;
        message[answers[i].len - 20] ^= 1;
        if (answers[i].type == 2)
            expect_drop(message, answers[i].len, DROP_BAD_MAC1);
    }
    end();
}

/* mac2 with the cookie in the reply that waits at the wire. */
static void take_cookie(uint8_t *message)
{
    uint8_t reply[RIG_FRAME_BYTES], cookie[16], key[32];
    CHECK(rig_wire_take(wire, reply) == 64);
    CHECK(memcmp(reply, "\3\0\0\0", 4) == 0 && memcmp(reply + 4, message + 4, 4) == 0);
    memset(key, 2, sizeof(key));
    CHECK(crypto_aead_xchacha20poly1305_ietf_decrypt(cookie, NULL, NULL, reply + 32, 32,
                                                     message + 120, 16, reply + 8, key) == 0);
    crypto_generichash(message + 136, 16, message, 136, cookie, sizeof(cookie));
}

/* One source that comes too often is asked for a cookie, also when there is no load. */
static void test_cookie(void)
{
    uint8_t message[152] = {1};
    struct mesh_endpoint other;
    uint32_t passed = 0;
    begin();
    b.breath.now_ns = 1000 * COOKIE_STEP_S * NS_PER_S;
    seal_mac1(message, 152, 2);
    while (passes(message, 152))
        passed++;
    CHECK(passed == HANDSHAKE_SOURCE_BURST && rig_drops(&b, DROP_COOKIE) == 1);
    take_cookie(message);
    CHECK(passes(message, 152));
    message[150] ^= 1;
    CHECK(!passes(message, 152) && rig_drops(&b, DROP_COOKIE) == 2);
    message[150] ^= 1;
    /* From another port it is worth nothing. */
    int elsewhere = rig_socket(&other, false);
    rig_wire_put(elsewhere, &b, message, 152);
    rig_receive_none(&b);
    CHECK(rig_drops(&b, DROP_COOKIE) == 3);
    close(elsewhere);
    for (passed = 1; passes(message, 152); passed++)
        ;
    CHECK(passed == HANDSHAKE_SOURCE_BURST && rig_drops(&b, DROP_RATE_LIMIT) == 1);
    b.breath.now_ns += (2 * COOKIE_STEP_S - 1) * NS_PER_S;
    CHECK(passes(message, 152));
    b.breath.now_ns += NS_PER_S;
    for (passed = 0; passes(message, 152); passed++)
        ;
    CHECK(passed == HANDSHAKE_SOURCE_BURST); /* as one without */
    end();
}

static bool passes_from(uint32_t source, const uint8_t *message)
{
    struct mesh_endpoint from = {.address = {0x20, 1}, .port = 9};
    struct punt punt;
    memcpy(from.address + 4, &source, sizeof(source));
    handshake_receive(b.mesh->lanes[0], &b.breath, message, 152, &from);
    return rig_punt(&b, &punt);
}

/* Many sources: below the limit all pass, above it only who proves its address. */
static void test_load(void)
{
    uint8_t message[152] = {1};
    uint32_t passed = 0, asked = 0;
    begin();
    seal_mac1(message, 152, 2);
    for (uint32_t i = 0; i < 500; i++) {
        b.breath.now_ns += NS_PER_S / HANDSHAKE_LOAD_PER_S;
        CHECK(passes_from(i, message));
    }
    for (uint32_t i = 0; i < 30000; i++) {
        b.breath.now_ns += NS_PER_S / 10000;
        passed += passes_from(i, message);
    }
    CHECK(passed <= HANDSHAKE_LOAD_PER_S + 1);
    asked = (uint32_t)rig_drops(&b, DROP_COOKIE);
    CHECK(asked >= 1000 && asked <= HANDSHAKE_SOURCES * (HANDSHAKE_SOURCE_BURST + 3 *
                                                        HANDSHAKE_SOURCE_PER_S));
    CHECK(passed + asked + rig_drops(&b, DROP_RATE_LIMIT) == 30000);
    /* Somebody real gets through meanwhile. */
    while (rig_drops(&b, DROP_COOKIE) == asked) {
        CHECK(!passes(message, 152));
        b.breath.now_ns += NS_PER_S / 1000;
    }
    take_cookie(message);
    CHECK(passes(message, 152));
    memset(message + 136, 0, 16);
    b.breath.now_ns += 3 * NS_PER_S / 2;
    CHECK(passes_from(77, message)); /* the load is over */
    end();
}

/* Who can prove any number of addresses gets no more than the limit of all. */
static void test_all_sources(void)
{
    uint8_t message[152] = {1};
    uint32_t passed = 0;
    begin();
    seal_mac1(message, 152, 2);
    for (uint32_t i = 0; i < 5000; i++) {
        struct mesh_endpoint from = {.address = {0x20, 1}, .port = 9};
        uint8_t cookie[COOKIE_BYTES], reply[HANDSHAKE_COOKIE_BYTES], key[32];
        struct punt punt;
        memset(key, 2, sizeof(key));
        memcpy(from.address + 4, &i, sizeof(i));
        b.breath.now_ns += NS_PER_S / 5000;
        cookie_reply(b.mesh->gate, message, &from, b.breath.now_ns, reply);
        CHECK(crypto_aead_xchacha20poly1305_ietf_decrypt(
                  cookie, NULL, NULL, reply + 32, 32, message + 120, 16, reply + 8, key) == 0);
        crypto_generichash(message + 136, 16, message, 136, cookie, sizeof(cookie));
        handshake_receive(b.mesh->lanes[0], &b.breath, message, 152, &from);
        passed += rig_punt(&b, &punt);
    }
    CHECK(passed > HANDSHAKE_ALL_PER_S && passed <= HANDSHAKE_ALL_PER_S + HANDSHAKE_ALL_BURST);
    CHECK(HANDSHAKE_ALL_PER_S + HANDSHAKE_ALL_BURST <= 200);
    end();
}

int main(void)
{
    CHECK(sodium_init() >= 0);
    test_initiations();
    test_answers();
    test_cookie();
    test_load();
    test_all_sources();
    puts("ok");
    return 0;
}
