/* probe.c - probes answered, answers handed up.
 *
 * Untrusted, Threads, Source: see probe.h.
 */
#include "mesh/core/probe.h"

#include "mesh/core/relay.h"
#include "mesh/core/seal.h"

/* Seals into record, which has MESH_RELAY_BYTES before it, and sends. */
static int send_by(struct mesh *m, struct session *s, uint16_t field, const struct train_queue *q,
                   const struct mesh_endpoint *to, const struct packet *p, uint8_t *record)
{
    const struct record_prefix prefix = {.flags = PREFIX_LAST | PREFIX_CONTROL << PREFIX_GSO_SHIFT};
    struct relay_hop hop = {.to = to};
    uint32_t len_bytes = p->len_bytes + MESH_OVERHEAD_BYTES, lane = field & RECORD_LANE_BITS;
    uint64_t counter;
    if (to->via != 0) {
        struct mesh_peer *next = NULL;
        if (to->via <= MESH_PEERS)
            next = load_acquire(&m->peers[to->via - 1]); /* pairs with mesh_peer_add */
        hop = relay_find(m, next, lane);
        if (!hop.session)
            return -ENOKEY;
    }
    if (!session_take_counter(s, lane, &counter))
        return -EKEYEXPIRED;
    struct session_tx *tx = &s->tx[lane];
    seal_record(m, s, field, counter, &prefix, p, p->len_bytes, record);
    counter_add(&tx->records, 1);
    counter_add(&tx->bytes, len_bytes);
    store_relaxed(&tx->last_keepalive_ns, clock_now_ns());
    if (hop.session) {
        relay_seal(hop.session, 0, MESH_RELAY_HOPS, s->node, record, len_bytes);
        record -= MESH_RELAY_BYTES;
        len_bytes += MESH_RELAY_BYTES;
    }
    return train_send_one(q->fds[record_by_own_port(field)], q->v6, hop.to, record, len_bytes);
}

int probe_send(struct mesh *m, struct session *s, uint16_t field, const struct train_queue *q,
               const struct mesh_endpoint *to, const struct probe *probe, uint32_t ip_bytes)
{
    uint8_t *text = calloc(2, ip_bytes + MESH_RELAY_BYTES + MESH_OVERHEAD_BYTES);
    if (!text)
        return -ENOMEM;
    ASSERT(ip_bytes >= sizeof(*probe));
    memcpy(text, probe, sizeof(*probe));
    struct segment seg = {text, ip_bytes};
    struct packet p = {.segs = &seg, .segs_count = 1, .len_bytes = ip_bytes};
    int rc = send_by(m, s, field, q, to, &p, text + ip_bytes + MESH_RELAY_BYTES);
    free(text);
    return rc;
}

static void hand_up(const struct lane *lane, struct breath *b, struct punt *punt,
                    const struct opened *record, const struct probe *probe)
{
    const struct probe_reply reply = {.received_ns = clock_now_ns(),
                                      .id = probe->id,
                                      .ip_bytes = probe->size_bytes};
    punt->id = record->session->local_index;
    if (!punt_put(b->punts, punt, &reply, sizeof(reply)))
        port_drop(&lane->mesh->port, b, DROP_PUNT_FULL, 1);
}

/* As many answers as Python asked for, more or less; a peer that invents some is cut short. */
static void answered(const struct lane *lane, struct breath *b, const struct opened *record,
                     const struct probe *probe)
{
    struct punt punt = {.kind = PUNT_PROBE_REPLY};
    if (session_rate_ok(&record->session->rx[record->lane].punts_full_ns, b->now_ns,
                        PROBE_PUNTS_PER_S, PROBE_PUNTS_BURST))
        hand_up(lane, b, &punt, record, probe);
    else
        port_drop(&lane->mesh->port, b, DROP_RATE_LIMIT, 1);
}

void probe_lane_answer(struct lane *lane, struct breath *b, const struct opened *record)
{
    struct punt punt = {.kind = PUNT_LANE_REPLY,
                        .socket = (uint16_t)lane->number,
                        .port = record->from->port};
    const struct port *port = &lane->mesh->port;
    struct probe probe;
    if (record->ip_bytes != sizeof(probe) || !prefix_is_control(record->prefix.flags)) {
        port_drop(port, b, DROP_BAD_RECORD, 1);
        return;
    }
    memcpy(&probe, record->ip, sizeof(probe));
    if (probe.kind != PROBE_ANSWER) {
        port_drop(port, b, DROP_BAD_RECORD, 1);
        return;
    }
    /* Once for each that was asked: this, and no window, keeps replays out. */
    uint64_t asked = own_asked(probe.id);
    if (!cas_acq_rel(&record->session->own_asked[lane->number], &asked, 0)) {
        port_drop(port, b, DROP_REPLAY, 1); /* pairs with send_probe */
        return;
    }
    memcpy(punt.address, record->from->address, sizeof(punt.address));
    hand_up(lane, b, &punt, record, &probe);
}

void probe_receive(struct lane *lane, struct breath *b, const struct opened *record)
{
    struct mesh *m = lane->mesh;
    struct probe probe;
    if (record->ip_bytes < sizeof(probe)) {
        port_drop(&m->port, b, DROP_BAD_RECORD, 1);
        return;
    }
    memcpy(&probe, record->ip, sizeof(probe));
    if (probe.kind == PROBE_ANSWER) {
        answered(lane, b, record, &probe);
    } else if (probe.kind == PROBE_ASK) {
        const struct probe answer = {
            .kind = PROBE_ANSWER, .id = probe.id, .size_bytes = record->ip_bytes};
        uint16_t field = (uint16_t)lane->number; /* by the common port */
        /* What cannot be answered now is asked again. */
        if (probe_send(m, record->session, field, &lane->trains, record->from, &answer,
                       sizeof(answer)) != 0)
            port_drop(&m->port, b, DROP_SEND, 1);
    } else {
        port_drop(&m->port, b, DROP_BAD_RECORD, 1);
    }
}
