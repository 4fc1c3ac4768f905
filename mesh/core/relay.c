/* relay.c - hop tags: made, checked, and made anew for the next node.
 *
 * Untrusted, Threads, Source: see relay.h.
 */
#include "mesh/core/relay.h"

#include <sodium.h>

#include "mesh/core/open.h"
#include "mesh/core/seal.h"
#include "mesh/core/trace.h"

enum { RELAY_COVERED_BYTES = RELAY_TAG_AT + HANDSHAKE_INITIATION_BYTES };

struct relay_header {
    uint8_t type;
    uint8_t hops_left;
    uint16_t lane;
    uint32_t index;
    uint64_t counter;
    uint8_t node[RECORD_NODE_BYTES];
    uint8_t tag[RELAY_TAG_BYTES];
};

_Static_assert(sizeof(struct relay_header) == MESH_RELAY_BYTES, "it is copied as it is");
_Static_assert((int)crypto_shorthash_BYTES == (int)RELAY_TAG_BYTES, "the tag is all of it");
_Static_assert((int)crypto_shorthash_KEYBYTES == (int)MESH_RELAY_KEY_BYTES, "abi.h repeats it");

/* The tag of a header and the message behind it, whose lengths were checked. */
static void relay_tag(const uint8_t *key, const uint8_t *bytes, uint32_t len_bytes, uint8_t *tag)
{
    uint8_t covered[RELAY_COVERED_BYTES];
    const uint8_t *message = bytes + MESH_RELAY_BYTES;
    uint32_t message_bytes = len_bytes - MESH_RELAY_BYTES, n = RELAY_TAG_AT;
    memcpy(covered, bytes, RELAY_TAG_AT);
    if (likely(message[0] == RECORD_DATA)) {
        memcpy(covered + n, message, RECORD_HEADER_BYTES);
        n += RECORD_HEADER_BYTES;
        memcpy(covered + n, message + message_bytes - RECORD_TAG_BYTES, RECORD_TAG_BYTES);
        n += RECORD_TAG_BYTES;
    } else {
        ASSERT(message_bytes <= HANDSHAKE_INITIATION_BYTES);
        memcpy(covered + n, message, message_bytes);
        n += message_bytes;
    }
    crypto_shorthash(tag, covered, n, key);
}

static bool message_ok(const uint8_t *message, uint32_t len_bytes)
{
    if (likely(message[0] == RECORD_DATA))
        return len_bytes >= RECORD_EMPTY_BYTES;
    if (message[0] == RECORD_TRACE)
        return len_bytes == TRACE_BYTES;
    return len_bytes == handshake_bytes(message[0]) && len_bytes != 0;
}

struct relay_hop relay_find(const struct mesh *m, struct mesh_peer *peer, uint32_t lane)
{
    struct relay_hop hop = {NULL, NULL, NULL};
    /* As many steps as a message may take: a ring of peers, each behind the next, leads nowhere. */
    for (uint32_t step = 0; peer && step < MESH_RELAY_HOPS; step++) {
        struct session *s = load_acquire(&peer->current); /* pairs with session_promote */
        uint32_t via = load_relaxed(&peer->via);
        if (likely(s)) {
            hop.to = session_endpoint(s, lane);
            via = hop.to->via;
            if (via == 0) {
                hop.session = s;
                return hop;
            }
        } else if (via == 0) {
            hop.missing = peer;
            return hop;
        }
        /* pairs with mesh_peer_add */
        peer = via <= MESH_PEERS ? load_acquire(&m->peers[via - 1]) : NULL;
    }
    return hop;
}

/* by_own: see endpoint_by_own(); the lane stays, but each node sends by ports of its own. */
static void write_header(struct session *hop, uint32_t by_own, struct relay_header *header,
                         uint8_t *bytes, uint32_t len_bytes)
{
    uint32_t lane = header->lane & RECORD_LANE_BITS;
    header->lane = (uint16_t)(lane | by_own << RECORD_LANE_OWN_SHIFT);
    header->index = hop->remote_index;
    header->counter = add_relaxed(&hop->relay_tx[lane].next, 1);
    memcpy(bytes, header, RELAY_TAG_AT);
    relay_tag(hop->keys->relay_send, bytes, len_bytes, bytes + RELAY_TAG_AT);
}

void relay_seal(struct session *hop, uint32_t by_own, uint8_t hops_left, const uint8_t *node,
                uint8_t *bytes, uint32_t len_bytes)
{
    struct relay_header header = {.type = RECORD_RELAY, .hops_left = hops_left};
    uint8_t *message = bytes;
    if (message[0] == RECORD_DATA)
        memcpy(&header.lane, message + RECORD_LANE_AT, sizeof(header.lane));
    memcpy(header.node, node, sizeof(header.node));
    write_header(hop, by_own, &header, bytes - MESH_RELAY_BYTES, len_bytes + MESH_RELAY_BYTES);
}

static bool refuse(const struct lane *lane, const struct breath *b, enum drop reason)
{
    port_drop(&lane->mesh->port, b, reason, 1);
    return false;
}

/* To the next node, by the lane's socket, from where it lies. */
static void send_on(struct lane *lane, struct breath *b, const struct relay_hop *hop,
                    struct relay_header *header, uint8_t *bytes, uint32_t len_bytes)
{
    uint32_t by_own = endpoint_by_own(hop->to, lane->number);
    write_header(hop->session, by_own, header, bytes, len_bytes);
    if (!train_pass_on(&lane->relays, &lane->mesh->port, b, hop->session, hop->to,
                       (uint32_t)(bytes - lane->area), len_bytes)) {
        refuse(lane, b, DROP_SEND);
        return;
    }
    struct session_tx *tx = &hop->session->tx[lane->number];
    counter_add(&tx->relayed_records, 1);
    counter_add(&tx->relayed_bytes, len_bytes);
    store_relaxed(&tx->last_ns, b->now_ns);
    b->passed_on++;
}

/* Here a message goes no further. */
static void end_way(struct lane *lane, struct breath *b, struct session *s,
                    const struct relay_header *header, uint8_t *bytes,
                    const struct relay_hop *hop)
{
    bool spent = header->hops_left == 0;
    if (trace_is_ask(bytes + MESH_RELAY_BYTES))
        trace_answer(lane, b, s, header->lane, bytes,
                     spent ? TRACE_HOPS : hop->missing ? TRACE_NO_SESSION : TRACE_UNKNOWN);
    else if (spent)
        refuse(lane, b, DROP_HOP_LIMIT);
    else if (hop->missing)
        seal_ask_for_session(lane->mesh, b, hop->missing);
    else
        refuse(lane, b, DROP_NO_ROUTE);
}

static void pass_on(struct lane *lane, struct breath *b, struct session *s,
                    struct relay_header *header, uint8_t *bytes, uint32_t len_bytes)
{
    struct mesh *m = lane->mesh;
    struct relay_hop hop = relay_find(m, mesh_find_node(m, header->node), lane->number);
    if (unlikely(header->hops_left == 0 || !hop.session)) {
        end_way(lane, b, s, header, bytes, &hop);
        return;
    }
    /* A neighbour cannot keep a message in a loop for longer than we would. */
    header->hops_left = (uint8_t)(min_u32(header->hops_left, MESH_RELAY_HOPS) - 1);
    send_on(lane, b, &hop, header, bytes, len_bytes);
}

void relay_return(struct lane *lane, struct breath *b, const struct session *s,
                  const uint8_t *node, uint8_t *bytes, uint32_t len_bytes)
{
    struct relay_header header;
    struct relay_hop hop = relay_find(lane->mesh, s->peer, lane->number);
    /* It is behind somebody else by now, who would be sent what it did not ask for. */
    if (!hop.session || hop.session->peer != s->peer) {
        refuse(lane, b, DROP_NO_SESSION);
        return;
    }
    memcpy(&header, bytes, sizeof(header));
    header.hops_left = MESH_RELAY_HOPS;
    memcpy(header.node, node, sizeof(header.node));
    send_on(lane, b, &hop, &header, bytes, len_bytes);
}

bool relay_receive(struct lane *lane, struct breath *b, uint8_t *bytes, uint32_t len_bytes,
                   const struct mesh_endpoint *from, struct mesh_endpoint *through)
{
    const struct mesh *m = lane->mesh;
    struct relay_header header;
    uint8_t tag[RELAY_TAG_BYTES];
    if (unlikely(len_bytes <= MESH_RELAY_BYTES ||
                 !message_ok(bytes + MESH_RELAY_BYTES, len_bytes - MESH_RELAY_BYTES)))
        return refuse(lane, b, DROP_BAD_RECORD);
    memcpy(&header, bytes, sizeof(header));
    bool by_own = record_by_own_port(header.lane);
    header.lane &= RECORD_LANE_BITS;
    if (unlikely(!lane_is_ours(lane, header.lane)))
        return refuse(lane, b, DROP_BAD_RECORD);
    struct session *s = mesh_find_session(m, header.index);
    if (unlikely(!s))
        return refuse(lane, b, DROP_UNKNOWN_INDEX);
    struct session_window *seen = &s->relay_rx[header.lane].window;
    if (unlikely(!session_replay_ok(seen, header.counter)))
        return refuse(lane, b, DROP_REPLAY);
    relay_tag(s->keys->relay_receive, bytes, len_bytes, tag);
    if (unlikely(sodium_memcmp(tag, header.tag, sizeof(tag)) != 0))
        return refuse(lane, b, DROP_AUTH);
    bool newest = session_replay_commit(seen, header.counter);
    open_note(s, &s->rx[header.lane], b, newest & !by_own, from);
    store_relaxed(&s->rx[header.lane].last_packet_ns, b->now_ns);
    if (memcmp(header.node, m->node_id, sizeof(header.node)) != 0) {
        pass_on(lane, b, s, &header, bytes, len_bytes);
        return false;
    }
    if (unlikely(bytes[MESH_RELAY_BYTES] == RECORD_TRACE)) {
        trace_receive(lane, b, s, header.lane, bytes);
        return false;
    }
    *through = (struct mesh_endpoint){.via = s->peer_id + 1};
    return true;
}
