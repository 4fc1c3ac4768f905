/* proxy.c - ARP (RFC 826) and neighbour discovery (RFC 4861) at the edge between bridge and mesh.
 *
 * An address of the bridge's subnets that a mesh peer owns is answered with the bridge's router
 * MAC; one that is local, unknown, or link-local never is.  What passes teaches where local
 * addresses are.
 *
 * Untrusted, Threads: see forward.h.
 */
#include "vswitch/core/forward.h"

#include "vswitch/core/neighbour.h"

enum { ARP_BYTES = 28, ARP_REQUEST = 1, ND_SOLICIT = 135, ND_ADVERT = 136, ND_BYTES = 24,
       ND_OPTION_SOURCE = 1, ND_OPTION_TARGET = 2, PROTO_ICMP6 = 58 };
enum { ETH_BYTES = 14, IP6_BYTES = 40, ND_FRAME_BYTES = ETH_BYTES + IP6_BYTES + ND_BYTES + 8 };

static bool is_arp(const struct packet *p)
{
    const uint8_t *arp = p->head + ETH_BYTES;
    return p->ethertype == 0x0806 && p->head_len >= ETH_BYTES + ARP_BYTES &&
           get_be16(p->head + 12) == 0x0806 && get_be16(arp) == 1 && get_be16(arp + 2) == 0x0800 &&
           arp[4] == 6 && arp[5] == 4;
}

static bool is_nd(const struct packet *p)
{
    if (p->ip_version != 6 || p->l3_offset != ETH_BYTES || p->l4_protocol != PROTO_ICMP6 ||
        p->l4_offset != ETH_BYTES + IP6_BYTES || p->head_len < p->l4_offset + ND_BYTES)
        return false;
    uint8_t type = p->head[p->l4_offset];
    /* RFC 4861, 7.1: a hop limit below 255 means that it came from beyond a router. */
    return (type == ND_SOLICIT || type == ND_ADVERT) && p->head[p->l3_offset + 7] == 255;
}

bool proxy_is_resolution(const struct packet *p)
{
    return is_arp(p) || is_nd(p);
}

static bool in_subnets(const struct bridge *b, const uint8_t *ip)
{
    for (uint32_t i = 0; i < b->subnets_count; i++) {
        const struct subnet *s = &b->subnets[i];
        uint32_t bytes = s->prefix / 8, bits = s->prefix % 8;
        if (memcmp(ip, s->address, bytes) == 0 &&
            (bits == 0 || ((ip[bytes] ^ s->address[bytes]) >> (8 - bits)) == 0))
            return true;
    }
    return false;
}

/* 169.254.0.0/16 and fe80::/10: such an address means something on its own link only (RFC 3927,
 * 2.7; RFC 4291, 2.5.6), whatever prefixes somebody gave to the mesh. */
static bool is_link_local(const uint8_t *ip)
{
    static const uint8_t ip4[14] = {[10] = 0xff, 0xff, 169, 254};
    return memcmp(ip, ip4, sizeof(ip4)) == 0 || (ip[0] == 0xfe && (ip[1] & 0xc0) == 0x80);
}

static bool lives_elsewhere(const struct forward *f, const struct bridge *b, const uint8_t *ip)
{
    return !is_link_local(ip) && in_subnets(b, ip) &&
           lpm_lookup(f->snapshot->routes, ip) >= ROUTE_PEER;
}

static bool is_ours(const struct forward *f, const uint8_t *ip)
{
    return lpm_lookup(f->snapshot->routes, ip) == ROUTE_PORT + (int64_t)f->ingress->id;
}

void proxy_learned(struct forward *f, const struct bridge *b, const uint8_t *ip, const uint8_t *mac)
{
    struct neighbours *n = f->snapshot->neighbours;
    neighbour_learn(n, ip, mac, f->ingress->id, f->breath.now_ns);
    uint32_t len_bytes = neighbour_release(n, ip, f->answer_bytes, &f->answer);
    if (len_bytes < ETH_BYTES)
        return;
    memcpy(f->answer_bytes, mac, 6);
    memcpy(f->answer_bytes + 6, b->router_mac, 6);
    forward_answer(f, f->ingress, len_bytes);
}

/* Learning is for the owner of the address, and for the MAC that sent the frame. */
static void learn(struct forward *f, const struct bridge *b, const struct packet *p,
                  const uint8_t *ip, const uint8_t *mac)
{
    if (memcmp(mac, p->head + 6, 6) == 0 && is_ours(f, ip))
        proxy_learned(f, b, ip, mac);
}

static void put_ethernet(uint8_t *frame, const uint8_t *to, const uint8_t *from, uint16_t type)
{
    memcpy(frame, to, 6);
    memcpy(frame + 6, from, 6);
    put_be16(frame + 12, type);
}

static uint32_t put_arp(struct forward *f, uint16_t operation, const uint8_t *sender_mac,
                        const uint8_t *sender_ip4, const uint8_t *target_mac,
                        const uint8_t *target_ip4)
{
    static const uint8_t fixed[6] = {0, 1, 8, 0, 6, 4};
    static const uint8_t unknown[6], broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    uint8_t *frame = f->answer_bytes, *arp = frame + ETH_BYTES;
    put_ethernet(frame, target_mac ? target_mac : broadcast, sender_mac, 0x0806);
    memcpy(arp, fixed, sizeof(fixed));
    put_be16(arp + 6, operation);
    memcpy(arp + 8, sender_mac, 6);
    memcpy(arp + 14, sender_ip4, 4);
    memcpy(arp + 18, target_mac ? target_mac : unknown, 6);
    memcpy(arp + 24, target_ip4, 4);
    f->answer.flags = 0;
    return ETH_BYTES + ARP_BYTES;
}

static bool handle_arp(struct forward *f, const struct bridge *b, struct packet *p)
{
    const uint8_t *arp = p->head + ETH_BYTES;
    uint8_t sender[16], target[16];
    route_map_ip4(arp + 14, sender);
    route_map_ip4(arp + 24, target);
    learn(f, b, p, sender, arp + 8);
    if (get_be16(arp + 6) != ARP_REQUEST)
        return mac_word(p->head) == b->router_mac_word; /* an answer to our own question */
    if (!lives_elsewhere(f, b, target))
        return false;
    forward_answer(f, f->ingress, put_arp(f, 2, b->router_mac, arp + 24, p->head + 6, arp + 14));
    return true;
}

/* An ND message with one link-layer address option, at answer_bytes. */
static uint32_t put_nd(struct forward *f, uint8_t type, const uint8_t *from_mac,
                       const uint8_t *from, const uint8_t *to_mac, const uint8_t *to,
                       const uint8_t *target)
{
    uint8_t *frame = f->answer_bytes, *ip = frame + ETH_BYTES, *nd = ip + IP6_BYTES;
    memset(ip, 0, IP6_BYTES + ND_BYTES + 8);
    put_ethernet(frame, to_mac, from_mac, 0x86dd);
    ip[0] = 0x60;
    put_be16(ip + 4, ND_BYTES + 8);
    ip[6] = PROTO_ICMP6;
    ip[7] = 255;
    memcpy(ip + 8, from, 16);
    memcpy(ip + 24, to, 16);
    nd[0] = type;
    memcpy(nd + 8, target, 16);
    nd[24] = type == ND_SOLICIT ? ND_OPTION_SOURCE : ND_OPTION_TARGET;
    nd[25] = 1;
    memcpy(nd + 26, from_mac, 6);
    f->answer.flags = 0;
    return ND_FRAME_BYTES;
}

static void answer_solicitation(struct forward *f, const struct bridge *b, const struct packet *p)
{
    static const uint8_t all_nodes[16] = {0xff, 2, [15] = 1};
    static const uint8_t all_nodes_mac[6] = {0x33, 0x33, 0, 0, 0, 1};
    static const uint8_t nobody[16];
    const uint8_t *ip = p->head + ETH_BYTES, *target = ip + IP6_BYTES + 8;
    /* RFC 4861, 7.2.4: who asks without an address (duplicate detection) hears it by multicast. */
    bool anonymous = memcmp(ip + 8, nobody, 16) == 0;
    uint8_t to_mac[6], to[16], address[16];
    memcpy(to_mac, anonymous ? all_nodes_mac : p->head + 6, 6);
    memcpy(to, anonymous ? all_nodes : ip + 8, 16);
    memcpy(address, target, 16);
    uint32_t bytes = put_nd(f, ND_ADVERT, b->router_mac, address, to_mac, to, address);
    /* Solicited, unless by multicast; override stays off: it is a proxy's (RFC 4861, 7.2.8). */
    f->answer_bytes[ETH_BYTES + IP6_BYTES + 4] = anonymous ? 0 : 0x40;
    icmp6_checksum(f->answer_bytes + ETH_BYTES);
    forward_answer(f, f->ingress, bytes);
}

static bool handle_nd(struct forward *f, const struct bridge *b, struct packet *p)
{
    const uint8_t *ip = p->head + ETH_BYTES, *nd = ip + IP6_BYTES;
    bool solicit = nd[0] == ND_SOLICIT;
    /* The option that tells a MAC address must say the sender's; the frame's source is as good. */
    learn(f, b, p, solicit ? ip + 8 : nd + 8, p->head + 6);
    if (!solicit)
        return mac_word(p->head) == b->router_mac_word;
    if (!lives_elsewhere(f, b, nd + 8))
        return false;
    answer_solicitation(f, b, p);
    return true;
}

bool proxy_handle(struct forward *f, const struct bridge *b, struct packet *p)
{
    return is_arp(p) ? handle_arp(f, b, p) : handle_nd(f, b, p);
}

void proxy_ask(struct forward *f, const struct bridge *b, struct port *port, const uint8_t *ip,
               const uint8_t *from)
{
    uint32_t bytes;
    if (route_is_ip4(ip)) {
        bytes = put_arp(f, ARP_REQUEST, b->router_mac, from + 12, NULL, ip + 12);
    } else {
        /* RFC 4291, 2.7.1: the solicited-node group ends in the address's last three bytes. */
        uint8_t group[16] = {0xff, 2, [11] = 1, [12] = 0xff}, mac[6] = {0x33, 0x33, 0xff};
        memcpy(group + 13, ip + 13, 3);
        memcpy(mac + 3, ip + 13, 3);
        bytes = put_nd(f, ND_SOLICIT, b->router_mac, from, mac, group, ip);
        icmp6_checksum(f->answer_bytes + ETH_BYTES);
    }
    forward_answer(f, port, bytes);
}
