/* vnet.c - the virtio-net header, to and from a packet's offload fields.
 *
 * Untrusted:  see vnet.h.
 * Threads:    any.
 * Source:     virtio 1.2, section 5.1.6; virtio 1.3 there for USO.
 */
#include "vhost/core/vnet.h"

enum { FLAG_NEEDS_CSUM = 1, FLAG_DATA_VALID = 2 };
enum { TYPE_NONE = 0, TYPE_TCP4 = 1, TYPE_TCP6 = 4, TYPE_UDP_L4 = 5, TYPE_ECN = 0x80 };

_Static_assert(1 << GSO_UDP6 < VNET_ASKS_CSUM, "GSO types and flags share a word");

uint32_t vnet_header_bytes(uint64_t features)
{
    return features & (VNET_F_MRG_RXBUF | VNET_F_VERSION_1) ? 12 : 10;
}

uint32_t vnet_grants(uint64_t features)
{
    uint32_t grants = 0;
    if ((features & VNET_F_GUEST_CSUM) == 0)
        return 0; /* the others depend on it: 5.1.3.1 */
    grants |= VNET_ASKS_CSUM;
    if (features & VNET_F_GUEST_TSO4)
        grants |= 1u << GSO_TCP4;
    if (features & VNET_F_GUEST_TSO6)
        grants |= 1u << GSO_TCP6;
    if (features & VNET_F_GUEST_USO4)
        grants |= 1u << GSO_UDP4;
    if (features & VNET_F_GUEST_USO6)
        grants |= 1u << GSO_UDP6;
    if (features & VNET_F_GUEST_ECN)
        grants |= VNET_ASKS_ECN;
    return grants;
}

static uint16_t get_le16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }

static void put_le16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

bool vnet_read(const uint8_t *header, struct packet *p)
{
    uint8_t type = header[1] & (uint8_t)~TYPE_ECN;
    if (header[0] & FLAG_NEEDS_CSUM) { /* DATA_VALID is not a driver's to set: 5.1.6.2.1 */
        p->flags |= PKT_NEEDS_CSUM;
        p->csum_start = get_le16(header + 6);
        p->csum_offset = get_le16(header + 8);
    }
    if (type == TYPE_NONE)
        return (header[1] & TYPE_ECN) == 0;
    p->gso_size = get_le16(header + 4);
    if (header[1] & TYPE_ECN)
        p->flags |= PKT_GSO_ECN;
    if (type == TYPE_TCP4)
        p->gso_type = GSO_TCP4;
    else if (type == TYPE_TCP6)
        p->gso_type = GSO_TCP6;
    else if (type == TYPE_UDP_L4)
        p->gso_type = GSO_UDP4; /* or IPv6's: pkt_offload_ok() */
    else
        return false; /* fragmenting UDP (3) is gone from Linux and not offered */
    return true;
}

static uint8_t type_of(const struct packet *p)
{
    static const uint8_t types[] = {[GSO_NONE] = TYPE_NONE, [GSO_TCP4] = TYPE_TCP4,
                                    [GSO_TCP6] = TYPE_TCP6, [GSO_UDP4] = TYPE_UDP_L4,
                                    [GSO_UDP6] = TYPE_UDP_L4};
    uint8_t ecn = p->flags & PKT_GSO_ECN ? TYPE_ECN : 0;
    return p->gso_type == GSO_NONE ? TYPE_NONE : types[p->gso_type] | ecn;
}

/* Of a GSO frame, which has passed pkt_offload_ok(): its headers lie in head. */
static uint16_t headers_bytes(const struct packet *p)
{
    bool is_tcp = p->gso_type == GSO_TCP4 || p->gso_type == GSO_TCP6;
    uint32_t l4 = is_tcp ? (p->head[p->l4_offset + 12] >> 4) * 4u : 8u;
    return (uint16_t)(p->l4_offset + l4);
}

void vnet_write(const struct packet *p, bool guest_csum, uint8_t *header)
{
    memset(header, 0, VNET_NUM_BUFFERS_AT);
    if (p->flags & PKT_NEEDS_CSUM) {
        header[0] = FLAG_NEEDS_CSUM;
        put_le16(header + 6, p->csum_start);
        put_le16(header + 8, p->csum_offset);
    } else if ((p->flags & PKT_CSUM_VALID) && guest_csum) {
        header[0] = FLAG_DATA_VALID;
    }
    if (p->gso_type != GSO_NONE) {
        header[1] = type_of(p);
        put_le16(header + 4, p->gso_size);
        put_le16(header + 2, headers_bytes(p));
    }
}
