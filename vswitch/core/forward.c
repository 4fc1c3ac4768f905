/* forward.c - decide where each packet of a burst goes, group, send, complete.
 *
 * Decisions come first, for the whole burst; then each destination is visited once with all its
 * packets, in order.  A destination that is full keeps its packets in the source's queue: they are
 * presented again next breath, and rxq->sent remembers which of those behind them are gone already.
 *
 * Learning happens as the burst is decided, so a frame may be flooded although a later frame of the
 * same burst teaches where its destination is.  It arrives all the same.
 *
 * Untrusted, Threads: see forward.h.
 */
#include "vswitch/core/forward.h"

#include "vswitch/core/fdb.h"

static void flood(struct forward *f, const struct bridge *b, struct packet *p)
{
    uint32_t cost = p->len_bytes * b->ports_count;
    if (cost > f->flood_bytes) {
        forward_drop(f, DROP_FLOOD_LIMIT);
        return;
    }
    f->flood_bytes -= cost;
    for (uint32_t i = 0; i < b->ports_count; i++) {
        struct port *to = f->snapshot->ports[b->ports[i]];
        if (to != f->ingress)
            to->tx(to, &f->breath, &p, 1, 0);
    }
}

static int bridge_packet(struct forward *f, const struct bridge *b, struct packet *p)
{
    if (unlikely(p->head_len < 14)) {
        forward_drop(f, DROP_SHORT);
        return VERDICT_DONE;
    }
    uint64_t to = mac_word(p->head), from = mac_word(p->head + 6);
    if (unlikely(from == b->router_mac_word)) {
        forward_drop(f, DROP_SOURCE);
        return VERDICT_DONE;
    }
    fdb_learn(b->fdb, from, f->ingress->id, f->breath.now_ns);
    if (unlikely(to == b->router_mac_word))
        return route_from_bridge(f, b, p);
    if (unlikely(mac_is_multicast(to))) {
        if (f->snapshot->routes && pkt_parse(p) && proxy_is_resolution(p) && proxy_handle(f, b, p))
            return VERDICT_DONE;
        flood(f, b, p);
        return VERDICT_DONE;
    }
    uint16_t port = fdb_lookup(b->fdb, to);
    if (unlikely(port == f->ingress->id)) {
        forward_drop(f, DROP_SAME_PORT);
        return VERDICT_DONE;
    }
    if (unlikely(port == FDB_NOWHERE || !f->snapshot->ports[port])) {
        flood(f, b, p);
        return VERDICT_DONE;
    }
    return port;
}

static int decide(struct forward *f, struct packet *p)
{
    uint8_t bridge = f->snapshot->bridge_of[f->ingress->id];
    if (bridge == NO_BRIDGE)
        return route_from_mesh(f, p);
    return bridge_packet(f, &f->snapshot->bridges[bridge], p);
}

/* Sends all pending packets that go where the first of them goes.  Returns the bits of those
 * gone. */
static uint32_t send_group(struct forward *f, struct packet **pkts, const int *to,
                           uint32_t *pending)
{
    struct packet *group[BURST];
    uint8_t at[BURST];
    uint32_t count = 0, gone = 0;
    int port = to[__builtin_ctz(*pending)];

    for (uint32_t rest = *pending; rest; rest &= rest - 1) {
        uint32_t i = (uint32_t)__builtin_ctz(rest);
        if (to[i] != port)
            continue;
        group[count] = pkts[i];
        at[count++] = (uint8_t)i;
        *pending &= ~(1u << i);
    }
    struct port *egress = f->snapshot->ports[port];
    uint32_t taken = egress->tx(egress, &f->breath, group, count, TX_MAY_WAIT);
    for (uint32_t k = 0; k < taken; k++)
        gone |= 1u << at[k];
    return gone;
}

uint32_t forward_burst(struct forward *f, struct rxq *q, struct packet **pkts, uint32_t n)
{
    int to[BURST];
    uint32_t before = q->sent, sent = before, pending = 0;

    f->ingress = q->port;
    f->flood_bytes = FLOOD_BYTES;
    for (uint32_t i = 0; i < n; i++) {
        if (sent >> i & 1)
            continue;
        to[i] = decide(f, pkts[i]);
        if (to[i] == VERDICT_DONE)
            sent |= 1u << i;
        else
            pending |= 1u << i;
    }
    while (pending)
        sent |= send_group(f, pkts, to, &pending);

    uint32_t done = sent == UINT32_MAX ? 32 : (uint32_t)__builtin_ctz(~sent);
    done = min_u32(done, n);
    if (done > 0)
        q->done(q, &f->breath, done);
    q->sent = done == 32 ? 0 : sent >> done;
    return (uint32_t)__builtin_popcount(sent ^ before);
}

void forward_answer(struct forward *f, struct port *to, uint32_t len_bytes)
{
    struct packet *p = &f->answer;
    f->answer_segment = (struct segment){f->answer_bytes, len_bytes};
    p->segs = &f->answer_segment;
    p->segs_count = 1;
    p->len_bytes = len_bytes;
    p->head_len = (uint16_t)min_u32(len_bytes, HEAD_BYTES);
    p->gso_type = GSO_NONE;
    p->gso_size = 0;
    memcpy(p->head, f->answer_bytes, p->head_len);
    to->tx(to, &f->breath, &p, 1, 0);
}
