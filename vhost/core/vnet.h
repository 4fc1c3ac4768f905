/* vnet.h - the virtio-net header in front of every frame, to and from a packet's offload fields.
 *
 *      0  flags        1 NEEDS_CSUM, 2 DATA_VALID
 *      1  gso_type     0 none, 1 TCP over IPv4, 4 TCP over IPv6, 5 UDP over either; 0x80 ECN
 *      2  hdr_len      of all headers, a hint that nobody may rely on
 *      4  gso_size
 *      6  csum_start
 *      8  csum_offset
 *     10  num_buffers  only with MRG_RXBUF or VERSION_1; little endian as the rest on x86
 *
 * Untrusted:  the header a guest writes: copied once, checked with the frame by pkt_offload_ok().
 * Threads:    any; functions keep no state.
 * Source:     virtio 1.2, section 5.1.6; virtio 1.3 there for USO.
 */
#ifndef VHOST_VNET_H
#define VHOST_VNET_H

#include "vhost/core/vhost_abi.h"

enum { VNET_MAX_BYTES = 12, VNET_NUM_BUFFERS_AT = 10 };

#define VNET_F_GUEST_CSUM (1ull << 1)
#define VNET_F_GUEST_TSO4 (1ull << 7)
#define VNET_F_GUEST_TSO6 (1ull << 8)
#define VNET_F_GUEST_ECN (1ull << 9)
#define VNET_F_MRG_RXBUF (1ull << 15)
#define VNET_F_VERSION_1 (1ull << 32)
#define VNET_F_GUEST_USO4 (1ull << 54)
#define VNET_F_GUEST_USO6 (1ull << 55)

/* Copies what usually is the whole of a small frame: at least 14 bytes, at most HEAD_BYTES or so.
 * The compiler's own idea, knowing these bounds, is "rep movsq": 80 cycles before it begins. */
static inline void vnet_copy_head(uint8_t *to, const uint8_t *from, uint32_t len_bytes)
{
    uint32_t at = 0;
    if (unlikely(len_bytes < 16)) {
        memcpy(to, from, 8);
        memcpy(to + len_bytes - 8, from + len_bytes - 8, 8);
        return;
    }
    do {
        _mm_storeu_si128((__m128i *)(void *)(to + at),
                         _mm_loadu_si128((const __m128i *)(const void *)(from + at)));
        at += 16;
    } while (at + 16 <= len_bytes);
    at = len_bytes - 16;
    _mm_storeu_si128((__m128i *)(void *)(to + at),
                     _mm_loadu_si128((const __m128i *)(const void *)(from + at)));
}

/* 12 or 10, by the negotiated features. */
uint32_t vnet_header_bytes(uint64_t features);

/* What a frame asks of its receiver, one bit per enum gso_type, and these. */
enum { VNET_ASKS_CSUM = 1 << 8, VNET_ASKS_ECN = 1 << 9 };

/* The bits that a receiver with these features can be asked for. */
uint32_t vnet_grants(uint64_t features);

static inline uint32_t vnet_asks(const struct packet *p)
{
    uint32_t asks = p->gso_type ? 1u << p->gso_type : 0;
    if (p->flags & PKT_NEEDS_CSUM)
        asks |= VNET_ASKS_CSUM;
    if (p->flags & PKT_GSO_ECN)
        asks |= VNET_ASKS_ECN;
    return asks;
}

/* Fills the packet's offload fields from a private copy of the first ten bytes; false when they
 * mean nothing that we offer.  pkt_offload_ok() must follow. */
bool vnet_read(const uint8_t *header, struct packet *p);

/* The first ten bytes for a receiver that grants what the packet asks. */
void vnet_write(const struct packet *p, bool guest_csum, uint8_t *header);

#endif
