/* route.c - IP packets between bridges and the mesh.
 *
 * VMs see one subnet: TTL is not decremented, and the answer to "who has it" decides what comes
 * here.  The source of each packet must belong to whoever sent it: the port for what leaves, the
 * peer for what arrives (WireGuard's cryptokey routing, with one table for both directions).
 *
 * Untrusted, Threads: see forward.h.
 */
#include "vswitch/core/forward.h"

#include "vswitch/core/fdb.h"
#include "vswitch/core/neighbour.h"

enum { ETH_BYTES = 14 };

void route_map_ip4(const uint8_t *ip4, uint8_t *ip)
{
    memset(ip, 0, 10);
    ip[10] = ip[11] = 0xff;
    memcpy(ip + 12, ip4, 4);
}

bool route_is_ip4(const uint8_t *ip)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    return memcmp(ip, mapped, sizeof(mapped)) == 0;
}

/* False: dropped and counted. */
static bool get_addresses(struct forward *f, const struct packet *p, uint8_t *from, uint8_t *to)
{
    const uint8_t *ip = p->head + p->l3_offset;
    if (p->ip_version == 4) {
        route_map_ip4(ip + 12, from);
        route_map_ip4(ip + 16, to);
        return true;
    }
    memcpy(from, ip + 8, 16);
    memcpy(to, ip + 24, 16);
    /* IPv4 spelt as IPv6 is no address on a wire, and would be taken for IPv4 by the routes. */
    if (likely(!route_is_ip4(from) && !route_is_ip4(to)))
        return true;
    forward_drop(f, route_is_ip4(from) ? DROP_SOURCE : DROP_NO_ROUTE);
    return false;
}

static int drop(struct forward *f, enum drop reason)
{
    forward_drop(f, reason);
    return VERDICT_DONE;
}

/* To the local port that owns the address, with the MAC address that it has there. */
static int deliver(struct forward *f, uint32_t port, struct packet *p, const uint8_t *from,
                   const uint8_t *to)
{
    const struct snapshot *s = f->snapshot;
    if (port >= MAX_PORTS || !s->ports[port] || s->bridge_of[port] == NO_BRIDGE)
        return drop(f, DROP_NO_ROUTE);
    if (port == f->ingress->id)
        return drop(f, DROP_SAME_PORT);
    const struct bridge *b = &s->bridges[s->bridge_of[port]];
    uint8_t mac[6];
    enum neighbour_state state = neighbour_lookup(s->neighbours, to, f->breath.now_ns, mac);
    if (state != NEIGHBOUR_UNKNOWN) {
        memcpy(p->head, mac, 6);
        memcpy(p->head + 6, b->router_mac, 6);
        if (state == NEIGHBOUR_STALE && neighbour_may_ask(s->neighbours, to, f->breath.now_ns))
            proxy_ask(f, b, s->ports[port], to, from);
        return (int)port;
    }
    if (!neighbour_hold(s->neighbours, to, p))
        forward_drop(f, DROP_NO_NEIGHBOUR);
    if (neighbour_may_ask(s->neighbours, to, f->breath.now_ns))
        proxy_ask(f, b, s->ports[port], to, from);
    return VERDICT_DONE;
}

/* Bytes of the largest IP packet that p becomes on the path: TSO frames are recut to it, while
 * gso_size is the boundary of a datagram for UDP and must hold. */
static uint32_t path_bytes(const struct packet *p)
{
    const uint8_t *ip = p->head + p->l3_offset;
    if (p->gso_type == GSO_UDP4 || p->gso_type == GSO_UDP6)
        return p->l4_offset - p->l3_offset + 8u + p->gso_size;
    if (p->gso_type != GSO_NONE)
        return 0;
    return p->ip_version == 4 ? get_be16(ip + 2) : get_be16(ip + 4) + 40u;
}

int route_from_bridge(struct forward *f, const struct bridge *b, struct packet *p)
{
    uint8_t from[16], to[16];
    if (!f->snapshot->routes)
        return drop(f, DROP_NO_ROUTE);
    if (!pkt_parse(p))
        return drop(f, DROP_NOT_IP);
    if (proxy_is_resolution(p) && proxy_handle(f, b, p))
        return VERDICT_DONE;
    if (p->ip_version == 0 || p->l3_offset != ETH_BYTES)
        return drop(f, DROP_NOT_IP);
    if (!get_addresses(f, p, from, to))
        return VERDICT_DONE;
    if (lpm_lookup(f->snapshot->routes, from) != ROUTE_PORT + (int64_t)f->ingress->id)
        return drop(f, DROP_SOURCE);
    proxy_learned(f, b, from, p->head + 6);
    int64_t route = lpm_lookup(f->snapshot->routes, to);
    if (route < 0)
        return drop(f, DROP_NO_ROUTE);
    if (route < ROUTE_PEER)
        return deliver(f, (uint32_t)route, p, from, to);
    if (!f->snapshot->mesh)
        return drop(f, DROP_NO_ROUTE);
    const struct port *mesh = f->snapshot->mesh;
    uint32_t peer = (uint32_t)(route - ROUTE_PEER);
    uint32_t mtu_bytes = b->mtu_bytes;
    if (likely(mesh->peer_mtus))
        mtu_bytes = min_u32(mtu_bytes, load_relaxed(&mesh->peer_mtus[peer]));
    if (path_bytes(p) > mtu_bytes) {
        icmp_too_big(f, b, p, mtu_bytes);
        return drop(f, DROP_TOO_BIG);
    }
    p->peer = peer;
    return mesh->id;
}

int route_from_mesh(struct forward *f, struct packet *p)
{
    uint8_t from[16], to[16];
    if (!f->snapshot->routes)
        return drop(f, DROP_NO_ROUTE);
    if (p->ip_version == 0 || p->l3_offset != ETH_BYTES)
        return drop(f, DROP_NOT_IP);
    if (!get_addresses(f, p, from, to))
        return VERDICT_DONE;
    if (lpm_lookup(f->snapshot->routes, from) != ROUTE_PEER + (int64_t)p->peer)
        return drop(f, DROP_SOURCE);
    int64_t route = lpm_lookup(f->snapshot->routes, to);
    if (route < 0 || route >= ROUTE_PEER)
        return drop(f, DROP_NO_ROUTE);
    return deliver(f, (uint32_t)route, p, from, to);
}
