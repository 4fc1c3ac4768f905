/* trace.h - which nodes are on a way: an ask goes towards a node, and where it can go no further it
 * comes back as the answer.
 *
 * A message behind a relay header, and nowhere else:
 *
 *    0  u8   type        6
 *    1  u8   end         0 of an ask; of an answer, why it went no further
 *    2  u8*6 zero
 *    8  u64  id          the origin's; the answer repeats it
 *   16  u8*8 origin      the node that asks, and gets the answer
 *   24  u8*32 public key of an answer: of who gives it; else zero
 *
 * An ask is passed on like any other message.  The node that it is for, the one at which no hop is
 * left and the one that knows no way on write the answer into it, where it lies, and give it back
 * to the neighbour that it came from, with the origin for its destination.  So an answer is as long
 * as its ask, there is one for one, and it goes to who proved to be a peer.  It is believed by who
 * asked, for showing it to people: sessions and ways do not change by it.
 *
 * Untrusted:  all fields are a neighbour's, or of somebody whose messages it passes on: who says
 *             what is not proved, but of the neighbour.  Both directions are limited per session.
 * Threads:    trace_receive, trace_answer: the worker that owns the lane.  trace_ask: any.
 */
#ifndef MESH_TRACE_H
#define MESH_TRACE_H

#include "mesh/core/mesh.h"

enum {
    TRACE_BYTES = 56,
    /* Of a session and lane: answers given, and answers handed up. */
    TRACE_PER_S = 50,
    TRACE_BURST = 32,
};

/* Writes an ask of ours. */
void trace_ask(const struct mesh *m, uint64_t id, uint8_t *message);
/* Whether a message, whose length was checked, is an ask. */
bool trace_is_ask(const uint8_t *message);
/* A trace that came under session s and lane number, and is for us; bytes: from the relay header
 * on, inside the lane's area. */
void trace_receive(struct lane *lane, struct breath *b, struct session *s, uint32_t number,
                   uint8_t *bytes);
/* An ask likewise, which goes no further than here. */
void trace_answer(struct lane *lane, struct breath *b, struct session *s, uint32_t number,
                  uint8_t *bytes, enum trace_end end);

#endif
