/* cookie.h - proof that who sent a handshake message receives what is sent to its address.
 *
 * Nothing is remembered: a cookie is a MAC over the address and the time, in steps of two minutes,
 * under a secret of this process; it is taken in its own step and the next one.
 *
 * Untrusted:  the message, its source.
 * Threads:    any; the functions change only the gate's count of nonces.
 * Source:     docs/mesh-protocol.md, mac1, mac2 and cookies.
 */
#ifndef MESH_COOKIE_H
#define MESH_COOKIE_H

#include "mesh/core/handshake.h"

enum { COOKIE_BYTES = 16, COOKIE_NONCE_BYTES = 24, COOKIE_STEP_S = 120 };

/* Whether the last 16 bytes were made with a cookie of ours for that source. */
bool cookie_mac2_ok(const struct handshake_gate *gate, const uint8_t *message, uint32_t len_bytes,
                    const struct mesh_endpoint *from, uint64_t now_ns);
/* The answer to an initiation, HANDSHAKE_COOKIE_BYTES, into out. */
void cookie_reply(struct handshake_gate *gate, const uint8_t *initiation,
                  const struct mesh_endpoint *from, uint64_t now_ns, uint8_t *out);

#endif
