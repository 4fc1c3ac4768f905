/* packet.h - a packet is a description of bytes that lie elsewhere.
 *
 * A frame is the concatenation of its segments; its first head_len bytes also stand in head, a
 * private copy.  Decisions read head only.  Transmit writes the first head_len bytes from head and
 * the rest from the segments, so a guest that changes its memory meanwhile changes payload that
 * nobody looked at, and nothing else.
 *
 * Untrusted:  the bytes behind segs.  Bases and lengths are checked by the port that made them.
 * Threads:    a packet belongs to the worker whose burst it is in, until rx done.
 */
#ifndef VSW_PACKET_H
#define VSW_PACKET_H

#include "vswitch/core/base.h"

enum { HEAD_CAPACITY = 160 }; /* HEAD_BYTES of abi.h, asserted equal in port.h */

enum gso_type { GSO_NONE, GSO_TCP4, GSO_TCP6, GSO_UDP4, GSO_UDP6 };

enum packet_flags {
    PKT_NEEDS_CSUM = 1, /* the field at csum_start + csum_offset holds the pseudo-header's sum */
    PKT_CSUM_VALID = 2, /* the sender vouches for the L4 checksum (VIRTIO_NET_HDR_F_DATA_VALID) */
    PKT_GSO_ECN = 4,    /* CWR is set on the first segment only (VIRTIO_NET_HDR_GSO_ECN) */
};

struct segment {
    uint8_t *base;
    uint64_t len_bytes;
};

struct packet {
    struct segment *segs;  /* the whole frame, the bytes in head included */
    uint32_t len_bytes;    /* of the whole frame */
    uint16_t segs_count;
    uint16_t head_len;     /* min(len_bytes, HEAD_CAPACITY) */
    uint8_t gso_type;      /* enum gso_type */
    uint8_t flags;         /* enum packet_flags */
    uint16_t gso_size;     /* payload bytes per segment of a GSO frame */
    uint16_t csum_start;   /* from the frame's first byte */
    uint16_t csum_offset;  /* from csum_start */
    uint16_t l3_offset;    /* valid after pkt_parse(): 0 when not IP */
    uint16_t l4_offset;    /* 0 when unknown, a later fragment, or beyond head */
    uint16_t ethertype;    /* host order, behind VLAN tags; 0x0800, 0x86dd, 0x0806 … */
    uint8_t l4_protocol;
    uint8_t ip_version;    /* 4, 6, or 0 */
    uint32_t peer;         /* from the mesh: who sent it; to the mesh: who gets it */
    uint16_t ingress;      /* id of the port it came in by */
    uint16_t pad[3];
    CACHE_ALIGNED uint8_t head[HEAD_CAPACITY];
};

/* A MAC address as the low 48 bits of a word, its first byte lowest.  Not one memcpy() of six
 * bytes: compilers put the two halves together in memory, and the load waits for both stores. */
static inline uint64_t mac_word(const uint8_t *mac)
{
    uint32_t low;
    uint16_t high;
    memcpy(&low, mac, sizeof(low));
    memcpy(&high, mac + sizeof(low), sizeof(high));
    return low | (uint64_t)high << 32;
}

static inline bool mac_is_group(const uint8_t *mac) { return mac[0] & 1; }

/* ---- packet.c */

/* Fills l3_offset, l4_offset, ethertype, l4_protocol, ip_version from head.  Returns false when an
 * IP header is malformed or its length field exceeds the frame. */
bool pkt_parse(struct packet *p);

/* Whether the offload fields (flags, gso_*, csum_*) fit the frame: the checksum field lies in head
 * and behind the network header, gso_size is not 0, the GSO type is the headers'.  Parses.  Every
 * receive function calls it when any offload field is set, and drops DROP_BAD_OFFLOAD on false.
 * GSO_UDP4 becomes GSO_UDP6 when the headers are IPv6's: virtio has one type for both. */
bool pkt_offload_ok(struct packet *p);

/* Copies len_bytes of the frame from offset on, head bytes from head.  The range is in the
 * frame. */
void pkt_copy(const struct packet *p, uint32_t offset, uint8_t *to, uint32_t len_bytes);

/* A walk over the frame's bytes as pieces of memory, starting at any offset: head first, then
 * segments.  For what copies or seals piece by piece. */
struct pkt_cursor {
    const struct packet *packet;
    uint32_t offset;      /* next byte of the frame */
    uint32_t seg;         /* where it lies, once past head */
    uint64_t seg_offset;
};

void pkt_cursor_init(struct pkt_cursor *c, const struct packet *p, uint32_t offset);
/* The next piece, at most max_bytes long; 0 at the end of the frame. */
uint32_t pkt_cursor_next(struct pkt_cursor *c, uint32_t max_bytes, const uint8_t **piece);

/* ---- copy.c */

enum { COPY_LARGE_BYTES = 2048 }; /* shorter copies are over before asking ahead has paid */

/* Copies len_bytes, at least COPY_LARGE_BYTES.  from_bytes: how many can be read from there on;
 * what is copied next lies behind them. */
void copy_large(uint8_t *to, const uint8_t *from, size_t len_bytes, size_t from_bytes);

static inline void copy_bytes(uint8_t *to, const uint8_t *from, size_t len_bytes,
                              size_t from_bytes)
{
    if (len_bytes >= COPY_LARGE_BYTES)
        copy_large(to, from, len_bytes, from_bytes);
    else
        memcpy(to, from, len_bytes);
}

/* ---- checksum.c (RFC 1071) */

/* Unfolded one's-complement sum of bytes at an even offset of the whole. */
uint64_t csum_add(uint64_t sum, const uint8_t *bytes, size_t len_bytes);
uint16_t csum_fold(uint64_t sum); /* not complemented */
/* Completes a PKT_NEEDS_CSUM packet: sums the frame from csum_start on, writes into head, clears
 * the flag. */
void csum_complete(struct packet *p);
/* Rewrites the header checksum of the IPv4 header at ip. */
void csum_ipv4_header(uint8_t *ip);

/* ---- gso.c */

/* Cuts a GSO packet into packets of at most mss payload bytes, without copying payload: each has a
 * head of its own with lengths, IPv4 id, TCP sequence and flags put right (RFC 9293; FIN and PSH on
 * the last, CWR on the first), PKT_NEEDS_CSUM with a right pseudo-header sum, and segments that
 * point into the original.  The original must have passed pkt_offload_ok(). */
enum { CUT_SEGMENTS = 66 };  /* MAX_SEGMENTS, the headers, and payload that lies in head */

struct gso_cut {
    const struct packet *whole;
    uint32_t mss_bytes;
    uint32_t headers_bytes;  /* L2 to L4 */
    uint32_t next;           /* payload offset of the next piece */
    uint32_t payload_bytes;  /* of the whole */
    uint32_t count;          /* pieces made so far */
    struct pkt_cursor cursor;
};

void gso_cut_init(struct gso_cut *cut, const struct packet *whole, uint32_t mss_bytes);
/* Fills out and its segments (room for CUT_SEGMENTS at segs); false when nothing is left. */
bool gso_cut_next(struct gso_cut *cut, struct packet *out, struct segment *segs);

#endif
