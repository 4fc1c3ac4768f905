/* packet.c - parse the headers of a frame, copy its bytes.
 *
 * Untrusted:  everything in head and behind the segments; every length field is compared with what
 *             is there before it is used.
 * Threads:    the worker whose burst the packet is in.
 */
#include "vswitch/core/port.h"

enum { ETHERTYPE_IP4 = 0x0800, ETHERTYPE_IP6 = 0x86dd, ETHERTYPE_VLAN = 0x8100,
       ETHERTYPE_QINQ = 0x88a8 };
enum { PROTO_HOPOPTS = 0, PROTO_TCP = 6, PROTO_UDP = 17, PROTO_ROUTING = 43, PROTO_FRAGMENT = 44,
       PROTO_DSTOPTS = 60 };
enum { MAX_VLAN_TAGS = 2, MAX_EXTENSION_HEADERS = 8 };

static bool parse_ip4(struct packet *p, uint32_t offset)
{
    const uint8_t *ip = p->head + offset;
    uint32_t available = p->len_bytes - offset;
    if (available < 20 || p->head_len < offset + 20 || ip[0] >> 4 != 4)
        return false;
    uint32_t header = (ip[0] & 15) * 4u;
    uint32_t total = get_be16(ip + 2);
    if (header < 20 || total < header || total > available)
        return false;
    p->ip_version = 4;
    p->l3_offset = (uint16_t)offset;
    p->l4_protocol = ip[9];
    if ((get_be16(ip + 6) & 0x1fff) == 0 && offset + header <= p->head_len)
        p->l4_offset = (uint16_t)(offset + header);
    return true;
}

/* Walks the extension headers that lie in head (RFC 8200, 4).  What lies beyond leaves
 * l4_offset 0. */
static void parse_ip6_chain(struct packet *p, uint32_t offset, uint8_t next)
{
    for (int i = 0; i < MAX_EXTENSION_HEADERS; i++) {
        if (next != PROTO_HOPOPTS && next != PROTO_ROUTING && next != PROTO_DSTOPTS &&
            next != PROTO_FRAGMENT)
            break;
        if (offset + 8 > p->head_len)
            return;
        const uint8_t *header = p->head + offset;
        bool later_fragment = next == PROTO_FRAGMENT && (get_be16(header + 2) & 0xfff8) != 0;
        uint32_t length = next == PROTO_FRAGMENT ? 8 : (header[1] + 1u) * 8;
        next = header[0];
        offset += length;
        p->l4_protocol = next;
        if (later_fragment || offset > p->head_len)
            return;
    }
    p->l4_protocol = next;
    p->l4_offset = (uint16_t)offset;
}

static bool parse_ip6(struct packet *p, uint32_t offset)
{
    const uint8_t *ip = p->head + offset;
    uint32_t available = p->len_bytes - offset;
    if (available < 40 || p->head_len < offset + 40 || ip[0] >> 4 != 6 ||
        get_be16(ip + 4) + 40u > available)
        return false;
    p->ip_version = 6;
    p->l3_offset = (uint16_t)offset;
    parse_ip6_chain(p, offset + 40, ip[6]);
    return true;
}

bool pkt_parse(struct packet *p)
{
    p->l3_offset = p->l4_offset = 0;
    p->l4_protocol = p->ip_version = 0;
    p->ethertype = 0;
    if (p->head_len < 14)
        return false;
    uint32_t offset = 12;
    uint16_t type = get_be16(p->head + offset);
    for (int tags = 0; tags < MAX_VLAN_TAGS; tags++) {
        if (type != ETHERTYPE_VLAN && type != ETHERTYPE_QINQ)
            break;
        offset += 4;
        if (offset + 2 > p->head_len)
            return false;
        type = get_be16(p->head + offset);
    }
    p->ethertype = type;
    offset += 2;
    if (type == ETHERTYPE_IP4)
        return parse_ip4(p, offset);
    if (type == ETHERTYPE_IP6)
        return parse_ip6(p, offset);
    return true;
}

/* Bytes of L2 to L4 headers when they lie in head, else 0. */
static uint32_t headers_bytes(const struct packet *p)
{
    uint32_t header = 8;
    if (p->l4_offset == 0)
        return 0;
    if (p->l4_protocol == PROTO_TCP) {
        if (p->l4_offset + 20u > p->head_len)
            return 0;
        header = (p->head[p->l4_offset + 12] >> 4) * 4u;
        if (header < 20)
            return 0;
    }
    return p->l4_offset + header <= p->head_len ? p->l4_offset + header : 0;
}

static bool gso_ok(const struct packet *p)
{
    bool is_tcp = p->gso_type == GSO_TCP4 || p->gso_type == GSO_TCP6;
    uint8_t version = p->gso_type == GSO_TCP4 || p->gso_type == GSO_UDP4 ? 4 : 6;
    uint32_t headers = headers_bytes(p);
    const uint8_t *ip = p->head + p->l3_offset;
    uint32_t ip_bytes = p->ip_version == 4 ? get_be16(ip + 2) : get_be16(ip + 4) + 40u;
    return p->gso_type <= GSO_UDP6 && p->gso_size != 0 && (p->flags & PKT_NEEDS_CSUM) &&
           p->ip_version == version && p->l4_protocol == (is_tcp ? PROTO_TCP : PROTO_UDP) &&
           headers != 0 && headers < p->l3_offset + ip_bytes && p->csum_start == p->l4_offset &&
           p->csum_offset == (is_tcp ? 16 : 6);
}

bool pkt_offload_ok(struct packet *p)
{
    if (!pkt_parse(p))
        return false;
    if (p->gso_type == GSO_UDP4 && p->ip_version == 6)
        p->gso_type = GSO_UDP6;
    if (p->flags & PKT_NEEDS_CSUM) {
        uint32_t field = (uint32_t)p->csum_start + p->csum_offset;
        uint32_t behind = p->l3_offset ? p->l3_offset + (p->ip_version == 4 ? 20u : 40u) : 14u;
        if (p->csum_start < behind || field + 2 > p->head_len)
            return false;
    }
    return p->gso_type == GSO_NONE || gso_ok(p);
}

void pkt_cursor_init(struct pkt_cursor *c, const struct packet *p, uint32_t offset)
{
    *c = (struct pkt_cursor){.packet = p, .offset = offset};
    uint64_t skip = offset > p->head_len ? offset : p->head_len;
    while (c->seg < p->segs_count && skip >= p->segs[c->seg].len_bytes)
        skip -= p->segs[c->seg++].len_bytes;
    c->seg_offset = skip;
}

uint32_t pkt_cursor_next(struct pkt_cursor *c, uint32_t max_bytes, const uint8_t **piece)
{
    const struct packet *p = c->packet;
    uint32_t length;
    if (c->offset < p->head_len) {
        *piece = p->head + c->offset;
        length = min_u32(max_bytes, p->head_len - c->offset);
    } else {
        if (c->seg >= p->segs_count)
            return 0;
        const struct segment *s = &p->segs[c->seg];
        uint64_t rest = s->len_bytes - c->seg_offset;
        *piece = s->base + c->seg_offset;
        length = rest < max_bytes ? (uint32_t)rest : max_bytes;
        c->seg_offset += length;
        while (c->seg < p->segs_count && c->seg_offset >= p->segs[c->seg].len_bytes) {
            c->seg_offset -= p->segs[c->seg].len_bytes;
            c->seg++;
        }
    }
    c->offset += length;
    return length;
}

void pkt_copy(const struct packet *p, uint32_t offset, uint8_t *to, uint32_t len_bytes)
{
    struct pkt_cursor c;
    pkt_cursor_init(&c, p, offset);
    while (len_bytes > 0) {
        const uint8_t *piece;
        uint32_t n = pkt_cursor_next(&c, len_bytes, &piece);
        ASSERT(n != 0);
        memcpy(to, piece, n);
        to += n;
        len_bytes -= n;
    }
}
