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

/* What flooding costs more than sending to one port is paid with time, FLOOD_BYTES_PER_NS, of which
 * a queue saves up as much as FLOOD_BYTES need.  The last frame may be on credit, so that one frame
 * reaches every port, however many there are. */
static bool may_flood(struct forward *f, uint64_t bytes)
{
    uint64_t now_ns = f->breath.now_ns, saved_ns = FLOOD_BYTES / FLOOD_BYTES_PER_NS;
    uint64_t *paid_ns = &f->source->flood_paid_ns;
    if (*paid_ns + saved_ns < now_ns)
        *paid_ns = now_ns - saved_ns;
    if (*paid_ns > now_ns)
        return false;
    *paid_ns += bytes / FLOOD_BYTES_PER_NS;
    return true;
}

static void flood(struct forward *f, const struct bridge *b, struct packet *p)
{
    uint32_t more = b->ports_count > 2 ? b->ports_count - 2 : 0;
    if (!may_flood(f, (uint64_t)p->len_bytes * more)) {
        forward_drop(f, DROP_FLOOD_LIMIT);
        return;
    }
    for (uint32_t i = 0; i < b->ports_count; i++) {
        struct port *to = f->snapshot->ports[b->ports[i]];
        if (to != f->ingress)
            to->tx(to, &f->breath, &p, 1, 0);
    }
}

/* The buckets of a packet's two MAC addresses. */
struct places {
    struct fdb_bucket *to, *from;
};

static int bridge_packet(struct forward *f, const struct bridge *b, struct packet *p,
                         const struct places *at)
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
    fdb_learn(b->fdb, at->from, from, f->ingress->id);
    if (unlikely(to == b->router_mac_word))
        return route_from_bridge(f, b, p);
    if (unlikely(mac_is_multicast(to))) {
        if (f->snapshot->routes && pkt_parse(p) && proxy_is_resolution(p) && proxy_handle(f, b, p))
            return VERDICT_DONE;
        flood(f, b, p);
        return VERDICT_DONE;
    }
    uint16_t port = fdb_lookup(at->to, to);
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

/* Asks for the table's lines of a burst, once for each that differs from the one before. */
static void find_places(const struct bridge *b, struct packet **pkts, uint32_t n,
                        struct places *at)
{
    uint64_t to = mac_word(pkts[0]->head), from = mac_word(pkts[0]->head + 6);
    at[0].to = fdb_prefetch(b->fdb, to);
    at[0].from = fdb_prefetch(b->fdb, from);
    for (uint32_t i = 1; i < n; i++) {
        uint64_t next_to = mac_word(pkts[i]->head), next_from = mac_word(pkts[i]->head + 6);
        at[i].to = next_to == to ? at[i - 1].to : fdb_prefetch(b->fdb, next_to);
        at[i].from = next_from == from ? at[i - 1].from : fdb_prefetch(b->fdb, next_from);
        to = next_to;
        from = next_from;
    }
}

/* Decides for those of n packets that are not sent: fills to, returns the bits of those that are
 * dealt with.  Frames of one conversation come together: for a frame with the addresses of the one
 * before it, the table has been asked. */
static uint32_t decide_bridged(struct forward *f, const struct bridge *b, struct packet **pkts,
                               uint32_t n, uint32_t sent, int *to)
{
    struct places at[BURST];
    uint64_t known_to = 0, known_from = 0; /* of a frame that went to known_port */
    int known_port = VERDICT_DONE;
    find_places(b, pkts, n, at);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t to_mac = mac_word(pkts[i]->head), from_mac = mac_word(pkts[i]->head + 6);
        if (unlikely(sent >> i & 1))
            continue;
        if (to_mac == known_to && from_mac == known_from && known_port != VERDICT_DONE) {
            to[i] = known_port;
            continue;
        }
        to[i] = bridge_packet(f, b, pkts[i], &at[i]);
        sent |= (uint32_t)(to[i] == VERDICT_DONE) << i;
        known_to = to_mac;
        known_from = from_mac;
        known_port = to_mac == b->router_mac_word ? VERDICT_DONE : to[i];
    }
    return sent;
}

static uint32_t decide_routed(struct forward *f, struct packet **pkts, uint32_t n, uint32_t sent,
                              int *to)
{
    for (uint32_t i = 0; i < n; i++) {
        if (sent >> i & 1)
            continue;
        to[i] = route_from_mesh(f, pkts[i]);
        sent |= (uint32_t)(to[i] == VERDICT_DONE) << i;
    }
    return sent;
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

/* Sends what is not sent yet, each destination's packets at once. */
static uint32_t send_burst(struct forward *f, struct packet **pkts, uint32_t n, const int *to,
                           uint32_t sent)
{
    uint32_t all = (uint32_t)((1ull << n) - 1), pending = ~sent & all;
    int other = 0;
    for (uint32_t i = 1; i < n && sent == 0; i++)
        other |= to[i] ^ to[0];
    if (likely(sent == 0 && other == 0)) {
        struct port *egress = f->snapshot->ports[to[0]];
        uint32_t taken = egress->tx(egress, &f->breath, pkts, n, TX_MAY_WAIT);
        return (uint32_t)((1ull << taken) - 1);
    }
    while (pending)
        sent |= send_group(f, pkts, to, &pending);
    return sent;
}

uint32_t forward_burst(struct forward *f, struct rxq *q, struct packet **pkts, uint32_t n)
{
    const struct snapshot *s = f->snapshot;
    int to[BURST];
    uint32_t before = q->sent, sent;
    uint8_t bridge = s->bridge_of[q->port->id];

    f->ingress = q->port;
    f->source = q;
    f->breath.tx_queue = q->tx_queue;
    sent = bridge == NO_BRIDGE
               ? decide_routed(f, pkts, n, before, to)
               : decide_bridged(f, &s->bridges[bridge], pkts, n, before, to);
    sent = send_burst(f, pkts, n, to, sent);

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
