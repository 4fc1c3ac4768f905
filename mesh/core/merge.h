/* merge.h - opened records become frames; records of one run become one large frame again.
 *
 * Each record is a complete IP packet, so a run with a hole becomes two frames and spoils nothing.
 *
 * Untrusted:  the packets, which come from an authentic peer that may lie: headers are checked by
 *             pkt_parse() and pkt_offload_ok() before a frame leaves, lengths before they are used.
 *             What a peer can spoil is its own payload.
 * Threads:    the worker that owns the lane.
 */
#ifndef MESH_MERGE_H
#define MESH_MERGE_H

#include "mesh/core/open.h"

/* Takes an opened record with a packet: joins the run before it or becomes the next of
 * lane->packets, which has room.  Drops and counts what is malformed. */
void merge_record(struct lane *lane, struct breath *b, const struct opened *record);
/* No more records for the run: its packet is complete. */
void merge_finish(struct lane *lane, struct breath *b);

#endif
