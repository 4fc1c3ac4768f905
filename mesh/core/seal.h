/* seal.h - packets become records.
 *
 * Untrusted:  packets come from guests: lengths were checked by pkt_parse() and pkt_offload_ok();
 *             the payload may change while it is read, which spoils that record's payload alone.
 * Threads:    the worker that owns the lane; seal_record: any, for a lane of its own.
 */
#ifndef MESH_SEAL_H
#define MESH_SEAL_H

#include "mesh/core/mesh.h"

/* Seals a packet or GSO frame for its peer into the lane's trains; takes it (sealed, or dropped and
 * counted) or returns false: come again. */
bool seal_packet(struct mesh *m, struct lane *lane, struct breath *b, const struct packet *p,
                 uint32_t flags);

/* Drops a packet for want of a session with the peer, and asks for one. */
void seal_ask_for_session(const struct mesh *m, struct breath *b, struct mesh_peer *peer);

/* Seals prefix and the frame's bytes from offset on, ip_bytes of them, to out, which has room for
 * ip_bytes + MESH_OVERHEAD_BYTES.  p may be NULL: an empty record.  field: what the header says of
 * the lane. */
void seal_record(const struct mesh *m, const struct session *s, uint16_t field, uint64_t counter,
                 const struct record_prefix *prefix, const struct packet *p, uint32_t ip_bytes,
                 uint8_t *out);

#endif
