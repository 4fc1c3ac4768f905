/* handshake.h - the gate before Python: handshake messages that are meant for us, and few enough.
 *
 * Untrusted:  all of a datagram of type 1 to 3; only its length and first MAC are looked at.
 * Threads:    the worker that owns the lane; each lane has limits of its own.
 * Source:     the first MAC and its purpose: WireGuard's paper, 5.3 and 5.4.4.
 */
#ifndef MESH_HANDSHAKE_H
#define MESH_HANDSHAKE_H

#include "mesh/core/mesh_abi.h"

enum {
    HANDSHAKE_INITIATION_BYTES = 152,
    HANDSHAKE_RESPONSE_BYTES = 96,
    HANDSHAKE_COOKIE_BYTES = 64,
    HANDSHAKE_MAC_BYTES = 16,
    HANDSHAKE_SOURCES = 1024,         /* buckets; sources that meet in one share its rate */
    HANDSHAKE_SOURCE_PER_S = 20,
    HANDSHAKE_SOURCE_BURST = 8,
    HANDSHAKE_ALL_PER_S = 200,        /* over all lanes */
    HANDSHAKE_ALL_BURST = 50,
};

struct handshake_bucket {
    uint64_t filled_ns;               /* when it was filled last; 0: never */
    uint64_t credit_ns;               /* tokens, as time */
};

struct handshake_limits {
    uint64_t seed;                    /* of the hash, so that strangers cannot choose a bucket */
    struct handshake_bucket all;
    struct handshake_bucket sources[HANDSHAKE_SOURCES];
};

struct lane;

/* The length of a message of that type; 0: there is no such type. */
uint32_t handshake_bytes(uint8_t type);
int handshake_limits_init(struct handshake_limits *limits);
/* A datagram whose type is 1 to 3: punted, or dropped and counted. */
void handshake_receive(struct lane *lane, struct breath *b, const uint8_t *bytes,
                       uint32_t len_bytes, const struct mesh_endpoint *from);

#endif
