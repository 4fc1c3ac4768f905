/* forward.h - from a burst of packets to the ports that get them.
 *
 *   forward.c   groups a burst by destination and sends it; bridges (L2)
 *   proxy.c     answers ARP and ND for addresses that live elsewhere, learns neighbours
 *   route.c     IP between bridges and mesh: routes, source check, delivery to a neighbour
 *   icmp.c      tells a sender that its packet does not fit the path
 *
 * Untrusted:  the packets.  Decisions read packet->head and nothing else.
 * Threads:    a struct forward belongs to one worker.
 */
#ifndef VSW_FORWARD_H
#define VSW_FORWARD_H

#include "vswitch/core/snapshot.h"

enum {
    ANSWER_BYTES = 2048,
    /* A queue may flood so much at once, and so much on average: copies beyond the first. */
    FLOOD_BYTES = 256 * 1024,
    FLOOD_BYTES_PER_NS = 1,
    ICMP_PER_SECOND = 1000,
};

/* A decision: the id of the port that gets the packet, or that nothing is left to do with it (it
 * was dropped and counted, answered, flooded, or is held). */
enum { VERDICT_DONE = -1 };

struct forward {
    const struct snapshot *snapshot;
    struct breath breath;
    struct port *ingress;          /* of the burst under way */
    struct rxq *source;            /* likewise */
    uint64_t icmp_tokens;
    uint64_t icmp_filled_ns;
    struct packet answer;          /* what the switch says itself: one frame at a time */
    struct segment answer_segment;
    uint8_t answer_bytes[ANSWER_BYTES];
};

/* Sends n packets of a burst from q on and gives q its descriptors back; returns how many moved. */
uint32_t forward_burst(struct forward *f, struct rxq *q, struct packet **pkts, uint32_t n);

/* Sends the first len_bytes of answer_bytes to a port; fields of f->answer besides its bytes are
 * the caller's. */
void forward_answer(struct forward *f, struct port *to, uint32_t len_bytes);

static inline void forward_drop(struct forward *f, enum drop reason)
{
    port_drop(f->ingress, &f->breath, reason, 1);
}

/* ---- proxy.c */

/* An ARP or ND packet from a port of b: learns from it; true when it is dealt with, and must not be
 * bridged.  p is parsed. */
bool proxy_handle(struct forward *f, const struct bridge *b, struct packet *p);
/* ARP, or neighbour solicitation/advertisement. */
bool proxy_is_resolution(const struct packet *p);
/* Asks port for the MAC address of ip (16 bytes), in the name of from, which lives elsewhere. */
void proxy_ask(struct forward *f, const struct bridge *b, struct port *port, const uint8_t *ip,
               const uint8_t *from);
/* ip is at mac behind the ingress port, which owns it: learn, and send what waited for it. */
void proxy_learned(struct forward *f, const struct bridge *b, const uint8_t *ip,
                   const uint8_t *mac);

/* ---- route.c */

int route_from_bridge(struct forward *f, const struct bridge *b, struct packet *p);
int route_from_mesh(struct forward *f, struct packet *p);
/* 16 bytes, IPv4 as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2). */
void route_map_ip4(const uint8_t *ip4, uint8_t *ip);
/* Whether an address of 16 bytes is one that route_map_ip4() makes. */
bool route_is_ip4(const uint8_t *ip);

/* ---- icmp.c */

/* Answers p, which came from a port of b, with too-big in the name of its destination. */
void icmp_too_big(struct forward *f, const struct bridge *b, const struct packet *p,
                  uint32_t mtu_bytes);
/* Writes the checksum of an ICMPv6 message into the packet at ip6 (RFC 4443, 2.3). */
void icmp6_checksum(uint8_t *ip6);

#endif
