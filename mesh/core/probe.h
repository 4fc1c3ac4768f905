/* probe.h - records that measure a path: not packets, but control between two nodes.
 *
 * A record whose prefix has GSO type 7.  Its text, instead of an IP packet:
 *
 *    0  u8   kind     1 probe, 2 answer
 *    1  u8*3 zero
 *    4  u32  id       the asker's; the answer repeats it
 *    8  u32  size     of the answer: bytes of the probe's text as it arrived; else zero
 *   12  u32  zero
 *   16  zeros: a probe is as long as the packets that it stands for
 *
 * A probe is answered at once, to where it came from, by the worker that opened it; an answer is
 * handed up.  Neither moves the endpoint of a session: a probe says nothing about where the peer's
 * packets come from.
 *
 * Untrusted:  an authentic peer's text: length and kind are checked, id and size only handed up, at
 *             most PROBE_PUNTS_PER_S of a session.
 * Threads:    probe_receive, probe_lane_answer: the worker that owns the lane.  probe_send: any,
 *             for a lane of its own.
 * Source:     probing instead of ICMP: RFC 8899.
 */
#ifndef MESH_PROBE_H
#define MESH_PROBE_H

#include "mesh/core/open.h"

enum {
    PROBE_ASK = 1,
    PROBE_ANSWER = 2,
    PROBE_PUNTS_PER_S = 200,
    PROBE_PUNTS_BURST = 64,
};

struct probe {
    uint8_t kind;
    uint8_t zero[3];
    uint32_t id;
    uint32_t size_bytes;
    uint32_t zero2;
};

_Static_assert(sizeof(struct probe) == 16, "it is copied as it is");

/* An opened control record. */
void probe_receive(struct lane *lane, struct breath *b, const struct opened *record);
/* A record that came to the lane's own port. */
void probe_lane_answer(struct lane *lane, struct breath *b, const struct opened *record);
/* Seals a probe, padded to ip_bytes, and sends it; 0 or -errno, see mesh_send_probe.  field: the
 * header's, of the caller's own lane; q: whose sockets. */
int probe_send(struct mesh *m, struct session *s, uint16_t field, const struct train_queue *q,
               const struct mesh_endpoint *to, const struct probe *probe, uint32_t ip_bytes);

#endif
