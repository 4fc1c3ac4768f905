/* mesh_gate.c - handshake messages of every kind, at any time, from any source, with right MACs or
 * wrong ones.
 *
 * Invariant tested: what reaches Python has the length of its type, and a right first MAC or an
 * index that is expected; of initiations no more than the limit; each datagram is handed up or
 * counted, once.
 *
 * Input: steps of 8 bytes and a message. Byte 0: type; 1: flags (1 right mac1, 2 right mac2, 4 the
 * index is expected, 8 through a neighbour, 16 another length, 32 from an IPv4 address, 64 many
 * times); 2, 3: source; 4, 5: time that passes in 10 us; 6, 7: length.
 */
#include <sodium.h>

#include "mesh/core/cookie.h"
#include "tests/c/mesh_rig.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { STEP_BYTES = 8, MAC1 = 1, MAC2 = 2, EXPECTED = 4, NEIGHBOUR = 8, OTHER_LENGTH = 16,
       IPV4 = 32, MANY = 64, MANY_TIMES = 20 };

static struct rig_node b;
static uint8_t key[32];

/* mac2 as its rightful owner makes it: with the cookie in a reply. */
static void close_with_cookie(uint8_t *message, const struct mesh_endpoint *from)
{
    uint8_t reply[HANDSHAKE_COOKIE_BYTES], cookie[COOKIE_BYTES];
    cookie_reply(b.mesh->gate, message, from, b.breath.now_ns, reply);
    CHECK(crypto_aead_xchacha20poly1305_ietf_decrypt(cookie, NULL, NULL, reply + 32, 32,
                                                     message + 120, 16, reply + 8, key) == 0);
    crypto_generichash(message + 136, 16, message, 136, cookie, sizeof(cookie));
}

static uint32_t build(const uint8_t *step, const uint8_t *body, size_t body_bytes,
                      const struct mesh_endpoint *from, uint8_t *message)
{
    uint8_t type = (uint8_t)(1 + step[0] % 3), flags = step[1];
    uint32_t len = flags & OTHER_LENGTH ? 1 + (step[6] | step[7] << 8) % 2000u
                                        : handshake_bytes(type), index;
    memset(message, 0, len);
    memcpy(message, body, min_u32((uint32_t)body_bytes, len));
    message[0] = type;
    if (!(flags & OTHER_LENGTH))
        memset(message + 1, 0, 3);
    if (len >= 96 && flags & MAC1)
        crypto_generichash(message + len - 32, 16, message, len - 32, key, sizeof(key));
    if (len == HANDSHAKE_INITIATION_BYTES && flags & MAC2)
        close_with_cookie(message, from);
    if (len >= 12 && flags & EXPECTED) {
        memcpy(&index, message + (type == RECORD_RESPONSE ? 8 : 4), sizeof(index));
        handshake_expect(b.mesh->gate, index, b.breath.now_ns);
    }
    return len;
}

static void check_passed(const struct punt *punt)
{
    uint8_t mac[16];
    CHECK(punt->kind == PUNT_HANDSHAKE && punt->len_bytes == handshake_bytes(punt->data[0]));
    CHECK(punt->data[1] == 0 && punt->data[2] == 0 && punt->data[3] == 0);
    if (punt->data[0] == RECORD_COOKIE)
        return;
    uint32_t covered = punt->len_bytes - 32u;
    crypto_generichash(mac, 16, punt->data, covered, key, sizeof(key));
    CHECK(memcmp(mac, punt->data + covered, 16) == 0);
}

/* Whether it was an initiation that went up. */
static bool receive(const uint8_t *message, uint32_t len, const struct mesh_endpoint *from)
{
    struct punt punt;
    uint64_t drops = rig_all_drops(&b);
    handshake_receive(b.mesh->lanes[0], &b.breath, message, len, from);
    bool passed = rig_punt(&b, &punt);
    CHECK(rig_all_drops(&b) == drops + !passed);
    if (passed)
        check_passed(&punt);
    return passed && punt.data[0] == RECORD_INITIATION;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t message[2048];
    uint64_t began_ns, initiations = 0;
    if (!b.mesh) {
        CHECK(sodium_init() >= 0);
        rig_node_new(&b, 2);
        memset(key, 2, sizeof(key));
    }
    b.breath.now_ns += 1000 * NS_PER_S; /* all buckets are full, all cookies stale */
    began_ns = b.breath.now_ns;
    while (size >= STEP_BYTES) {
        const uint8_t *step = data;
        struct mesh_endpoint from = {.address = {0x20, 1, [7] = step[2]}, .port = step[3]};
        if (step[1] & IPV4)
            from = (struct mesh_endpoint){
                .address = {[10] = 0xff, [11] = 0xff, [12] = 10, [14] = step[2], [15] = step[3]}};
        if (step[1] & NEIGHBOUR)
            from = (struct mesh_endpoint){.via = 1 + step[2] % 4u};
        b.breath.now_ns += (uint64_t)(step[4] | step[5] << 8) * 10000;
        data += STEP_BYTES;
        size -= STEP_BYTES;
        uint32_t len = build(step, data, size, &from, message);
        for (uint32_t times = step[1] & MANY ? MANY_TIMES : 1; times > 0; times--)
            initiations += receive(message, len, &from);
        uint32_t used = min_u32((uint32_t)size, 16);
        data += used;
        size -= used;
    }
    uint64_t took_ns = b.breath.now_ns - began_ns;
    CHECK(initiations <= HANDSHAKE_ALL_BURST + took_ns * HANDSHAKE_ALL_PER_S / NS_PER_S + 1);
    return 0;
}
