/* own_port.h - the UDP port of a lane's own, from which nothing but answers is taken.
 *
 * The lane sends by it to endpoints that a probe by it reached and was answered from: so records of
 * several lanes are several 5-tuples.  Peers send to the common port all the same, so that only
 * that one need be open; what comes to this one is the answers to those probes, and strangers'.
 *
 * An answer counts by the lane of the peer's that opened the probe, and that lane's window may be
 * another worker's: so it is opened without.  What tells it from a replay is that the control
 * thread asked, once for each probe (own_asked of the session).
 *
 * Untrusted:  every byte until the tag matched; then a peer's answer, whose id must be the probe's.
 * Threads:    the worker that owns the lane.
 */
#ifndef MESH_OWN_PORT_H
#define MESH_OWN_PORT_H

#include "mesh/core/mesh.h"

/* Of a lane: its own_rxq.  It never yields packets. */
void own_port_init(struct lane *lane, int fd);

#endif
