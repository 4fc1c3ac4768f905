/* cookie.c - cookies, baked and checked without memory of who asked.
 *
 * Untrusted, Threads, Source: see cookie.h.
 */
#include "mesh/core/cookie.h"

#include <sodium.h>

#include "mesh/core/record.h"

static void bake(const struct handshake_gate *gate, uint64_t step, const struct mesh_endpoint *from,
                 uint8_t *cookie)
{
    uint8_t text[sizeof(step) + sizeof(from->address) + sizeof(from->port)];
    memcpy(text, &step, sizeof(step));
    memcpy(text + sizeof(step), from->address, sizeof(from->address));
    memcpy(text + sizeof(step) + sizeof(from->address), &from->port, sizeof(from->port));
    crypto_generichash(cookie, COOKIE_BYTES, text, sizeof(text), gate->secret,
                       sizeof(gate->secret));
}

bool cookie_mac2_ok(const struct handshake_gate *gate, const uint8_t *message, uint32_t len_bytes,
                    const struct mesh_endpoint *from, uint64_t now_ns)
{
    uint64_t step = now_ns / (COOKIE_STEP_S * NS_PER_S);
    uint32_t covered = len_bytes - HANDSHAKE_MAC_BYTES;
    bool fits = false;
    if (sodium_is_zero(message + covered, HANDSHAKE_MAC_BYTES))
        return false; /* the usual case, without a cookie */
    for (uint64_t back = 0; back < 2 && back <= step; back++) {
        uint8_t cookie[COOKIE_BYTES], mac[HANDSHAKE_MAC_BYTES];
        bake(gate, step - back, from, cookie);
        crypto_generichash(mac, sizeof(mac), message, covered, cookie, sizeof(cookie));
        fits |= sodium_memcmp(mac, message + covered, sizeof(mac)) == 0;
    }
    return fits;
}

void cookie_reply(struct handshake_gate *gate, const uint8_t *initiation,
                  const struct mesh_endpoint *from, uint64_t now_ns, uint8_t *out)
{
    enum { NONCE_AT = 8, SEALED_AT = NONCE_AT + COOKIE_NONCE_BYTES };
    uint64_t number = add_relaxed(&gate->nonces, 1);
    uint8_t cookie[COOKIE_BYTES];
    unsigned long long sealed_bytes;
    memset(out, 0, HANDSHAKE_COOKIE_BYTES);
    out[0] = RECORD_COOKIE;
    memcpy(out + RECORD_INDEX_AT, initiation + RECORD_INDEX_AT, sizeof(uint32_t));
    memcpy(out + NONCE_AT, gate->nonce_prefix, sizeof(gate->nonce_prefix));
    memcpy(out + NONCE_AT + sizeof(gate->nonce_prefix), &number, sizeof(number));
    bake(gate, now_ns / (COOKIE_STEP_S * NS_PER_S), from, cookie);
    crypto_aead_xchacha20poly1305_ietf_encrypt(
        out + SEALED_AT, &sealed_bytes, cookie, sizeof(cookie),
        initiation + HANDSHAKE_INITIATION_BYTES - 2 * HANDSHAKE_MAC_BYTES, HANDSHAKE_MAC_BYTES,
        NULL, out + NONCE_AT, gate->cookie_key);
    ASSERT(SEALED_AT + sealed_bytes == HANDSHAKE_COOKIE_BYTES);
}
