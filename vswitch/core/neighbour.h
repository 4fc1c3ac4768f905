/* neighbour.h - which MAC address a local IP address has, and packets that wait to know.
 *
 * Learned from ARP, ND and packets towards the router, always after the switch has checked that the
 * address belongs to the port.  A packet for an address not yet known waits here, one per address,
 * while the switch asks.
 *
 * Untrusted:  MAC and IP addresses; the number of entries per port is bounded.
 * Threads:    any worker.  Lookups read an entry under its sequence number and never wait; writers
 *             try the table's lock and give up when another has it: the next packet tries again.
 */
#ifndef VSW_NEIGHBOUR_H
#define VSW_NEIGHBOUR_H

#include "vswitch/core/port.h"

enum { HELD_BYTES = 2048 };

enum neighbour_state { NEIGHBOUR_UNKNOWN, NEIGHBOUR_KNOWN, NEIGHBOUR_STALE /* use it, and ask */ };

enum neighbour_state neighbour_lookup(const struct neighbours *n, const uint8_t *ip,
                                      uint64_t now_ns, uint8_t *mac);
void neighbour_learn(struct neighbours *n, const uint8_t *ip, const uint8_t *mac, uint16_t port,
                     uint64_t now_ns);
/* Whether it is time to ask for ip: at most once a second for each address. */
bool neighbour_may_ask(struct neighbours *n, const uint8_t *ip, uint64_t now_ns);
/* Keeps a copy of the packet until ip is learned; false when it can't be kept. */
bool neighbour_hold(struct neighbours *n, const uint8_t *ip, const struct packet *p);
/* Takes the frame that waits for ip into bytes (HELD_BYTES); its length, or 0.  flags, csum_start
 * and csum_offset are those of the packet. */
uint32_t neighbour_release(struct neighbours *n, const uint8_t *ip, uint8_t *bytes,
                           struct packet *fields);

#endif
