/* sending.c - what the control thread sends by itself: keepalives, probes, traces, and handshake
 * messages that go by way of another node.
 *
 * Untrusted:  nothing; see mesh.c.
 * Threads:    the control thread, by a lane of its own and lane 0's socket, or for a probe of a
 *             lane's own port by that.
 */
#include "mesh/core/probe.h"
#include "mesh/core/relay.h"
#include "mesh/core/seal.h"
#include "mesh/core/trace.h"

/* A message of the control thread's, with room for a relay header before it, to the next node. */
static int send_message(struct mesh *m, const struct relay_hop *hop, uint8_t hops_left,
                        const uint8_t *node, uint8_t *message, uint32_t len_bytes)
{
    const struct train_queue *q = &m->lanes[0]->trains; /* its sockets, which never change */
    relay_seal(hop->session, 0, hops_left, node, message, len_bytes);
    store_relaxed(&hop->session->tx[MESH_CONTROL_LANE].last_ns, clock_now_ns());
    return train_send_one(q->fds[0], q->v6, hop->to, message - MESH_RELAY_BYTES,
                          len_bytes + MESH_RELAY_BYTES);
}

int mesh_send_keepalive(struct mesh *m, uint32_t peer)
{
    struct mesh_peer *p = peer < MESH_PEERS ? m->peers[peer] : NULL;
    const struct record_prefix prefix = {.flags = PREFIX_LAST};
    uint8_t bytes[MESH_RELAY_BYTES + RECORD_EMPTY_BYTES], *record = bytes + MESH_RELAY_BYTES;
    uint64_t counter;
    if (!p || !m->lanes[0])
        return -ENOENT;
    struct session *s = load_acquire(&p->current); /* pairs with session_promote */
    if (!s)
        return -ENOKEY;
    struct relay_hop hop = relay_find(m, p, MESH_CONTROL_LANE);
    if (!hop.session)
        return -ENOKEY;
    if (!session_take_counter(s, MESH_CONTROL_LANE, &counter))
        return -EKEYEXPIRED;
    struct session_tx *tx = &s->tx[MESH_CONTROL_LANE];
    const struct train_queue *q = &m->lanes[0]->trains;
    seal_record(m, s, MESH_CONTROL_LANE, counter, &prefix, NULL, 0, record);
    counter_add(&tx->records, 1);
    counter_add(&tx->bytes, RECORD_EMPTY_BYTES);
    store_relaxed(&tx->last_keepalive_ns, clock_now_ns());
    if (session_endpoint(s, MESH_CONTROL_LANE)->via != 0)
        return send_message(m, &hop, MESH_RELAY_HOPS, p->node, record, RECORD_EMPTY_BYTES);
    return train_send_one(q->fds[0], q->v6, hop.to, record, RECORD_EMPTY_BYTES);
}

int mesh_send_through(struct mesh *m, uint32_t peer, const uint8_t *node_id, const uint8_t *bytes,
                      uint32_t len_bytes)
{
    struct mesh_peer *p = peer < MESH_PEERS ? m->peers[peer] : NULL;
    uint8_t copy[MESH_RELAY_BYTES + HANDSHAKE_INITIATION_BYTES];
    if (!p || !m->lanes[0])
        return -ENOENT;
    if (len_bytes == 0 || len_bytes != handshake_bytes(bytes[0]))
        return -EINVAL;
    struct relay_hop hop = relay_find(m, p, MESH_CONTROL_LANE);
    if (!hop.session)
        return -ENOKEY;
    memcpy(copy + MESH_RELAY_BYTES, bytes, len_bytes);
    return send_message(m, &hop, MESH_RELAY_HOPS, node_id, copy + MESH_RELAY_BYTES, len_bytes);
}

static int send_probe(struct mesh *m, uint32_t local_index, const struct lane *lane,
                      uint16_t lane_field, const struct mesh_endpoint *to, uint32_t id,
                      uint32_t ip_bytes)
{
    struct session *s = mesh_find_session(m, local_index);
    const struct probe probe = {.kind = PROBE_ASK, .id = id};
    if (!s || !lane)
        return -ENOENT;
    if (ip_bytes < sizeof(probe) || ip_bytes > MESH_MTU_MAX_BYTES)
        return -EINVAL;
    if (record_by_own_port(lane_field))
        /* pairs with probe_lane_answer */
        store_release(&s->own_asked[lane->number], own_asked(id));
    return probe_send(m, s, lane_field, &lane->trains, to, &probe, ip_bytes);
}

int mesh_send_probe(struct mesh *m, uint32_t local_index, const struct mesh_endpoint *to,
                    uint32_t id, uint32_t ip_bytes)
{
    return send_probe(m, local_index, m->lanes[0], MESH_CONTROL_LANE, to, id, ip_bytes);
}

int mesh_send_lane_probe(struct mesh *m, uint32_t local_index, uint32_t lane,
                         const struct mesh_endpoint *to, uint32_t id, uint32_t ip_bytes)
{
    const uint16_t field = MESH_CONTROL_LANE | 1u << RECORD_LANE_OWN_SHIFT;
    if (!mesh_own_rxq(m, lane) || to->via != 0)
        return -EINVAL;
    return send_probe(m, local_index, m->lanes[lane], field, to, id, ip_bytes);
}

int mesh_send_trace(struct mesh *m, uint32_t peer, uint32_t hops_left, uint64_t id)
{
    struct mesh_peer *p = peer < MESH_PEERS ? m->peers[peer] : NULL;
    uint8_t bytes[MESH_RELAY_BYTES + TRACE_BYTES], *message = bytes + MESH_RELAY_BYTES;
    if (!p || !m->lanes[0])
        return -ENOENT;
    if (hops_left > MESH_RELAY_HOPS)
        return -EINVAL;
    struct relay_hop hop = relay_find(m, p, MESH_CONTROL_LANE);
    if (!hop.session)
        return -ENOKEY;
    trace_ask(m, id, message);
    return send_message(m, &hop, (uint8_t)hops_left, p->node, message, TRACE_BYTES);
}
