/* receive.h - datagrams from a UDP socket, several at once, with where they came from.
 *
 * Untrusted:  contents; lengths and sources are the kernel's.
 * Threads:    any; functions keep no state.
 * Source:     udp(7), UDP_GRO.
 */
#ifndef MESH_RECEIVE_H
#define MESH_RECEIVE_H

#include "mesh/core/mesh_abi.h"

enum { RECEIVE_SLOTS = 8 };

/* One received message: datagrams of stride bytes, the last may be shorter (UDP_GRO). */
struct receive_slot {
    uint32_t len_bytes;
    uint32_t stride_bytes;
    struct mesh_endpoint from;
};

/* Takes up to RECEIVE_SLOTS messages; message i goes to area + i * slot_bytes, what is longer loses
 * its end.  Returns how many there were. */
uint32_t receive_slots(int fd, uint8_t *area, uint32_t slot_bytes, struct receive_slot *slots);

#endif
