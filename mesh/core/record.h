/* record.h - the layout of a direct record.
 *
 *    0  u8   type              4
 *    1  u8   hops left         not authenticated
 *    2  u16  lane              the sender's; bit 15: sent by that lane's own UDP port
 *    4  u32  receiver index
 *    8  u64  counter
 *   16  u8*8 destination node
 *   24  sealed: prefix (8 bytes), one IP packet or nothing (a keepalive)
 *    .  u8*16 tag
 *
 * Additional data: bytes 0 and 2 to 23.  Nonce: u32 lane (bit 15 with it), u64 counter.  Integers
 * are little endian; x86-64 is the only CPU there is (base.h), so memcpy is the conversion.
 *
 * Prefix:  u8 flags (bit 0 NEEDS_CSUM, 1 CSUM_VALID, 2 ECN, 3 last of run, 4-6 GSO type), u8 csum
 * start from the IP header, u8 csum offset, u8 position in run, u16 run id, u16 gso size.
 *
 * Untrusted:  everything, until the tag matches; afterwards a peer's, which may still lie.
 * Threads:    any; functions keep no state.
 */
#ifndef MESH_RECORD_H
#define MESH_RECORD_H

#include "mesh/core/cipher.h"

enum {
    RECORD_INITIATION = 1,
    RECORD_RESPONSE = 2,
    RECORD_COOKIE = 3,
    RECORD_DATA = 4,
    RECORD_RELAY = 5,
    RECORD_TRACE = 6,
};

enum {
    RECORD_LANE_AT = 2,
    RECORD_LANE_BITS = 0x7fff,
    RECORD_LANE_OWN_SHIFT = 15,
    RECORD_INDEX_AT = 4,
    RECORD_COUNTER_AT = 8,
    RECORD_NODE_AT = 16,
    RECORD_HEADER_BYTES = 24,
    RECORD_PREFIX_BYTES = 8,
    RECORD_PACKET_AT = RECORD_HEADER_BYTES + RECORD_PREFIX_BYTES,
    RECORD_TAG_BYTES = CIPHER_TAG_BYTES,
    RECORD_EMPTY_BYTES = RECORD_PACKET_AT + RECORD_TAG_BYTES,
    RECORD_NODE_BYTES = 8,
    RECORD_AAD_BYTES = CIPHER_AAD_BYTES,
    RECORD_NONCE_BYTES = CIPHER_NONCE_BYTES,
};

_Static_assert((int)RECORD_EMPTY_BYTES == (int)MESH_OVERHEAD_BYTES, "abi.h repeats it");

enum record_prefix_flags {
    PREFIX_OFFLOAD = PKT_NEEDS_CSUM | PKT_CSUM_VALID | PKT_GSO_ECN, /* same bits as a packet's */
    PREFIX_LAST = 8,
    PREFIX_GSO_SHIFT = 4,
    PREFIX_GSO_MASK = 7,
    PREFIX_CONTROL = 7, /* for a GSO type: no packet, see probe.h */
};

struct record_prefix {
    uint8_t flags;
    uint8_t csum_start;
    uint8_t csum_offset;
    uint8_t position;
    uint16_t run;
    uint16_t gso_size;
};

_Static_assert(sizeof(struct record_prefix) == RECORD_PREFIX_BYTES, "it is copied as it is");

struct record_header {
    uint8_t type;
    uint8_t hops_left;
    uint16_t lane;
    uint32_t index;
    uint64_t counter;
    uint8_t node[RECORD_NODE_BYTES];
};

_Static_assert(sizeof(struct record_header) == RECORD_HEADER_BYTES, "it is copied as it is");

/* The lane field says: by a port of the lane's own.  Where that is says nothing about the sender's
 * endpoint. */
static inline bool record_by_own_port(uint16_t lane)
{
    return lane >> RECORD_LANE_OWN_SHIFT;
}

static inline bool prefix_is_control(uint8_t flags)
{
    return (flags >> PREFIX_GSO_SHIFT & PREFIX_GSO_MASK) == PREFIX_CONTROL;
}

static inline void record_aad(const uint8_t *header, uint8_t *aad)
{
    aad[0] = header[0];
    memcpy(aad + 1, header + RECORD_LANE_AT, RECORD_AAD_BYTES - 1);
}

static inline void record_nonce(uint32_t lane, uint64_t counter, uint8_t *nonce)
{
    memcpy(nonce, &lane, sizeof(lane));
    memcpy(nonce + sizeof(lane), &counter, sizeof(counter));
}

#endif
