/* open.h - records become authentic plaintext, in place.
 *
 * Untrusted:  every byte of a record until its tag matched.  Lengths, lane, node, index and counter
 *             are checked before; nothing else is looked at.
 * Threads:    the worker that owns the lane.
 */
#ifndef MESH_OPEN_H
#define MESH_OPEN_H

#include "mesh/core/mesh.h"

struct opened {
    struct session *session;
    struct record_prefix prefix;
    uint8_t *ip;                  /* 32 bytes of the record are before it, free to use */
    uint32_t ip_bytes;            /* 0: a keepalive */
    uint16_t lane;
    const struct mesh_endpoint *from;
};

/* False: dropped and counted.  True: authentic and never seen before. */
bool open_record(struct lane *lane, struct breath *b, uint8_t *record, uint32_t len_bytes,
                 const struct mesh_endpoint *from, struct opened *out);
/* One of a lane that may be another worker's: authentic, but perhaps seen before.  rx of the
 * worker's own lane counts the failures; nothing else is written. */
bool open_unordered(struct lane *lane, struct breath *b, uint8_t *record, uint32_t len_bytes,
                    const struct mesh_endpoint *from, struct opened *out);
/* What an authentic record, or relay header, proves: that the peer has the session's keys, and
 * where it is.  rx: of its lane.  newest: it is the lane's newest, sent by the common port. */
void open_note(struct session *s, struct session_rx *rx, struct breath *b, bool newest,
               const struct mesh_endpoint *from);

#endif
