/* snapshot.c - build a configuration piece by piece, free it.
 *
 * Untrusted:  nothing; indices come from our own Python and are checked all the same.
 * Threads:    the control thread.
 */
#include "vswitch/core/snapshot.h"

struct snapshot *snapshot_new(uint32_t workers)
{
    if (workers > MAX_WORKERS)
        return NULL;
    struct snapshot *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->workers_count = workers;
    memset(s->bridge_of, NO_BRIDGE, sizeof(s->bridge_of));
    return s;
}

void snapshot_free(struct snapshot *s)
{
    if (!s)
        return;
    for (uint32_t i = 0; i < s->bridges_count; i++)
        free(s->bridges[i].ports);
    for (uint32_t i = 0; i < MAX_WORKERS; i++)
        free(s->polls[i].rxqs);
    free(s);
}

void snapshot_set_idle(struct snapshot *s, uint32_t idle)
{
    s->idle = idle;
}

int snapshot_add_bridge(struct snapshot *s, struct fdb *fdb, const uint8_t *router_mac,
                        uint32_t mtu_bytes)
{
    if (s->bridges_count == MAX_BRIDGES)
        return -ENOSPC;
    struct bridge *b = &s->bridges[s->bridges_count];
    b->ports = calloc(MAX_PORTS, sizeof(*b->ports));
    if (!b->ports)
        return -ENOMEM;
    b->fdb = fdb;
    memcpy(b->router_mac, router_mac, sizeof(b->router_mac));
    b->router_mac_word = mac_word(router_mac);
    b->mtu_bytes = mtu_bytes;
    return (int)s->bridges_count++;
}

int snapshot_add_subnet(struct snapshot *s, uint32_t bridge, const uint8_t *address,
                        uint32_t prefix)
{
    if (bridge >= s->bridges_count || prefix > 128)
        return -EINVAL;
    struct bridge *b = &s->bridges[bridge];
    if (b->subnets_count == MAX_SUBNETS)
        return -ENOSPC;
    memcpy(b->subnets[b->subnets_count].address, address, 16);
    b->subnets[b->subnets_count++].prefix = prefix;
    return 0;
}

int snapshot_add_port(struct snapshot *s, struct port *port, int bridge)
{
    if (port->id >= MAX_PORTS || bridge >= (int)s->bridges_count)
        return -EINVAL;
    if (s->ports[port->id] || (bridge < 0 && s->mesh))
        return -EEXIST;
    s->ports[port->id] = port;
    if (bridge < 0) {
        s->mesh = port;
    } else {
        struct bridge *b = &s->bridges[bridge];
        s->bridge_of[port->id] = (uint8_t)bridge;
        b->ports[b->ports_count++] = port->id; /* room: one per id */
    }
    return 0;
}

int snapshot_add_rxq(struct snapshot *s, uint32_t worker, struct rxq *rxq)
{
    if (worker >= s->workers_count || s->ports[rxq->port->id] != rxq->port)
        return -EINVAL;
    struct poll_list *list = &s->polls[worker];
    if (list->count == list->room) {
        uint32_t room = list->room ? list->room * 2 : 16;
        struct rxq **grown = realloc(list->rxqs, room * sizeof(struct rxq *));
        if (!grown)
            return -ENOMEM;
        list->rxqs = grown;
        list->room = room;
    }
    list->rxqs[list->count++] = rxq;
    return 0;
}

void snapshot_set_routes(struct snapshot *s, const struct lpm *routes, struct neighbours *n)
{
    s->routes = routes;
    s->neighbours = n;
}
