/* gso.c - cut a large frame into packets that fit, without copying its payload.
 *
 * Untrusted:  payload; headers were checked by pkt_offload_ok() and are read from head only.
 * Threads:    the worker whose burst the packet is in.
 */
#include "vswitch/core/port.h"

enum { TCP_FIN = 1, TCP_PSH = 8, TCP_CWR = 0x80 };

static bool is_tcp(const struct packet *p)
{
    return p->gso_type == GSO_TCP4 || p->gso_type == GSO_TCP6;
}

void gso_cut_init(struct gso_cut *cut, const struct packet *whole, uint32_t mss_bytes)
{
    uint32_t l4 = is_tcp(whole) ? (whole->head[whole->l4_offset + 12] >> 4) * 4u : 8u;
    ASSERT(mss_bytes > 0);
    *cut = (struct gso_cut){.whole = whole,
                            .mss_bytes = mss_bytes,
                            .headers_bytes = whole->l4_offset + l4};
    /* The IP length, not the frame's: what follows is Ethernet padding. */
    const uint8_t *ip = whole->head + whole->l3_offset;
    uint32_t ip_bytes = whole->ip_version == 4 ? get_be16(ip + 2) : get_be16(ip + 4) + 40u;
    uint32_t frame_bytes = whole->l3_offset + ip_bytes;
    cut->payload_bytes = frame_bytes > cut->headers_bytes ? frame_bytes - cut->headers_bytes : 0;
    pkt_cursor_init(&cut->cursor, whole, cut->headers_bytes);
}

/* The sum that the sender of a PKT_NEEDS_CSUM packet leaves in the checksum field: that of the
 * pseudo-header (RFC 9293, 3.1; RFC 8200, 8.1), not complemented. */
static void write_pseudo_sum(struct packet *p, uint32_t l4_bytes)
{
    const uint8_t *ip = p->head + p->l3_offset;
    uint8_t tail[8] = {0};
    put_be32(tail, l4_bytes);
    tail[7] = p->l4_protocol;
    uint64_t sum = csum_add(0, tail, sizeof(tail));
    sum = p->ip_version == 4 ? csum_add(sum, ip + 12, 8) : csum_add(sum, ip + 8, 32);
    put_be16(p->head + p->csum_start + p->csum_offset, csum_fold(sum));
}

static void write_headers(const struct gso_cut *cut, struct packet *p, uint32_t payload, bool last)
{
    uint8_t *ip = p->head + p->l3_offset;
    uint8_t *l4 = p->head + p->l4_offset;
    uint32_t l4_bytes = cut->headers_bytes - p->l4_offset + payload;
    if (p->ip_version == 4) {
        put_be16(ip + 2, (uint16_t)(cut->headers_bytes - p->l3_offset + payload));
        put_be16(ip + 4, (uint16_t)(get_be16(ip + 4) + cut->count));
        csum_ipv4_header(ip);
    } else {
        put_be16(ip + 4, (uint16_t)(cut->headers_bytes - p->l3_offset - 40 + payload));
    }
    if (is_tcp(cut->whole)) {
        put_be32(l4 + 4, get_be32(l4 + 4) + cut->next);
        if (!last)
            l4[13] &= (uint8_t)~(TCP_FIN | TCP_PSH);
        if (cut->count > 0)
            l4[13] &= (uint8_t)~TCP_CWR;
    } else {
        put_be16(l4 + 4, (uint16_t)l4_bytes);
    }
    write_pseudo_sum(p, l4_bytes);
}

/* The frame's segments begin with its headers, which out has in its head only: any memory of that
 * length will do for the first segment, as nothing reads it. */
static uint16_t cut_segments(struct gso_cut *cut, struct packet *out, struct segment *segs,
                             uint32_t payload)
{
    uint16_t count = 0;
    segs[count++] = (struct segment){out->head, cut->headers_bytes};
    while (payload > 0 && count < CUT_SEGMENTS) {
        const uint8_t *piece;
        uint32_t n = pkt_cursor_next(&cut->cursor, payload, &piece);
        if (n == 0)
            break;
        segs[count++] = (struct segment){(uint8_t *)(uintptr_t)piece, n};
        payload -= n;
    }
    return count;
}

bool gso_cut_next(struct gso_cut *cut, struct packet *out, struct segment *segs)
{
    const struct packet *whole = cut->whole;
    if (cut->next >= cut->payload_bytes)
        return false;
    uint32_t payload = min_u32(cut->mss_bytes, cut->payload_bytes - cut->next);
    bool last = cut->next + payload == cut->payload_bytes;

    memcpy(out, whole, offsetof(struct packet, head));
    memcpy(out->head, whole->head, cut->headers_bytes);
    out->gso_type = GSO_NONE;
    out->gso_size = 0;
    out->flags = PKT_NEEDS_CSUM;
    out->len_bytes = cut->headers_bytes + payload;
    out->head_len = (uint16_t)cut->headers_bytes;
    out->segs = segs;
    out->segs_count = cut_segments(cut, out, segs, payload);
    write_headers(cut, out, payload, last);
    cut->next += payload;
    cut->count++;
    return true;
}
