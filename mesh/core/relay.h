/* relay.h - messages that pass through a node between their ends.
 *
 * A relay header goes in front of a record or handshake message, for the way to the next node:
 *
 *    0  u8   type              5
 *    1  u8   hops left
 *    2  u16  lane              the record's behind it; 0 of a handshake message; bit 15: this
 *                             message was sent by a port of a lane's own
 *    4  u32  receiver index    of the session with the neighbour, who gets this
 *    8  u64  counter           of that session and lane, apart from the records'
 *   16  u8*8 destination node  of the message
 *   24  u8*8 hop tag
 *
 * Hop tag: SipHash-2-4 under the session's relay key over bytes 0 to 23 and, of the message, a
 * record's header (24 bytes) and tag, or all of a handshake message or trace (trace.h).  The
 * record's tag stands for its text: who changes that is found out at the end.
 *
 * A node passes on what came from a peer of its own for a peer of its own, and has no key for it:
 * the header is written anew where it lies, and the datagram sent from the receive area.
 *
 * Untrusted:  all of a datagram until its hop tag matched; then a neighbour's, who may lie: lengths
 *             and types are checked, and a loop ends when no hop is left.
 * Threads:    the worker that owns the lane.  relay_seal, relay_find: any, for a lane of its own.
 * Source:     SipHash: Aumasson and Bernstein, 2012 (libsodium's crypto_shorthash).
 */
#ifndef MESH_RELAY_H
#define MESH_RELAY_H

#include "mesh/core/mesh.h"

enum {
    RELAY_NODE_AT = 16,
    RELAY_TAG_AT = 24,
    RELAY_TAG_BYTES = 8,
};

/* The next node on the way. */
struct relay_hop {
    struct session *session;
    const struct mesh_endpoint *to;   /* holds until the lane's next call */
    struct mesh_peer *missing;        /* without a session: with whom there is none; NULL: nobody */
};

/* Who is next on the way to the peer, which may be itself.  lane: the caller's own. */
struct relay_hop relay_find(const struct mesh *m, struct mesh_peer *peer, uint32_t lane);
/* Writes the header in front of a message of len_bytes; bytes has MESH_RELAY_BYTES before it.
 * by_own: 1: it will be sent by a port of the lane's own. */
void relay_seal(struct session *hop, uint32_t by_own, uint8_t hops_left, const uint8_t *node,
                uint8_t *bytes, uint32_t len_bytes);
/* A message behind a header that came under session s, inside the lane's area: back to that
 * neighbour, for node. */
void relay_return(struct lane *lane, struct breath *b, const struct session *s,
                  const uint8_t *node, uint8_t *bytes, uint32_t len_bytes);
/* A datagram of type 5.  True: the message behind its header is for us, and came by way of through.
 * False: passed on, or dropped and counted. */
bool relay_receive(struct lane *lane, struct breath *b, uint8_t *bytes, uint32_t len_bytes,
                   const struct mesh_endpoint *from, struct mesh_endpoint *through);

#endif
