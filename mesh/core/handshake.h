/* handshake.h - the gate before Python: handshake messages that are meant for us, and few enough.
 *
 * An initiation has to prove its source address when too many come: of all sources, or of its own.
 * Who cannot yet gets a cookie, at once and without memory.  Answers (responses and cookie replies)
 * pass only for an initiation that Python sent a moment ago.
 *
 * Untrusted:  all of a datagram of type 1 to 3; its length, zeros, index and MACs are looked at.
 * Threads:    keys: immutable.  The rest: any worker; each word is changed by one exchange.
 * Source:     the MACs, their purpose, cookies: WireGuard's paper, 5.3, 5.4.4 and 5.4.7.
 */
#ifndef MESH_HANDSHAKE_H
#define MESH_HANDSHAKE_H

#include "mesh/core/mesh_abi.h"

enum {
    HANDSHAKE_INITIATION_BYTES = 152,
    HANDSHAKE_RESPONSE_BYTES = 96,
    HANDSHAKE_COOKIE_BYTES = 64,
    HANDSHAKE_MAC_BYTES = 16,
    HANDSHAKE_LOAD_PER_S = 50,        /* initiations with a right mac1; beyond: under load */
    HANDSHAKE_SOURCES = 1024,         /* buckets; sources that meet in one share its rate */
    HANDSHAKE_SOURCE_PER_S = 20,
    HANDSHAKE_SOURCE_BURST = 8,
    /* Together at most 200 initiations in any second. */
    HANDSHAKE_ALL_PER_S = 150,
    HANDSHAKE_ALL_BURST = 50,
    HANDSHAKE_EXPECTED = 65536,
    HANDSHAKE_EXPECTED_S = 8,         /* an initiation is repeated, with another index, before */
};

/* A token bucket as one number: when it will be full again. */
struct handshake_bucket {
    uint64_t full_ns;
};

struct handshake_source {
    struct handshake_bucket unproven; /* initiations without mac2 that we looked at */
    struct handshake_bucket asked;    /* cookies sent */
    struct handshake_bucket proven;   /* initiations with a right mac2 */
    struct handshake_bucket answers;
};

struct handshake_gate {
    uint8_t mac1_key[32];
    uint8_t cookie_key[32];
    uint8_t secret[32];               /* cookies are made with it and the time */
    uint8_t nonce_prefix[16];
    uint64_t nonces;                  /* used so far */
    uint64_t seed;                    /* of the hash, so that strangers cannot choose a bucket */
    struct handshake_bucket load;
    struct handshake_bucket all;
    struct handshake_source sources[HANDSHAKE_SOURCES];
    uint64_t expected[HANDSHAKE_EXPECTED]; /* by the low bits of the index: index, second */
};

struct lane;

/* The length of a message of that type; 0: there is no such type. */
uint32_t handshake_bytes(uint8_t type);
/* Keys: 32 bytes, of our own public key.  NULL: no memory. */
struct handshake_gate *handshake_gate_new(const uint8_t *mac1_key, const uint8_t *cookie_key);
void handshake_gate_free(struct handshake_gate *gate);
/* Any thread: answers to that index pass for HANDSHAKE_EXPECTED_S. */
void handshake_expect(struct handshake_gate *gate, uint32_t index, uint64_t now_ns);
/* A datagram whose type is 1 to 3: punted, answered with a cookie, or dropped; both counted. */
void handshake_receive(struct lane *lane, struct breath *b, const uint8_t *bytes,
                       uint32_t len_bytes, const struct mesh_endpoint *from);

#endif
