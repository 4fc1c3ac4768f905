/* mesh.h - the mesh port: peers, sessions by index, one lane per worker.
 *
 * Untrusted:  nothing here; see open.h, merge.h and handshake.h for what comes from the network.
 * Threads:    struct mesh: immutable while workers know it, but for peers and sessions, which the
 *             control thread links and unlinks by pointer (freed after worker_sync()).  struct
 *             lane: the worker that polls its queue, and that sends by it.
 */
#ifndef MESH_MESH_H
#define MESH_MESH_H

#include "mesh/core/handshake.h"
#include "mesh/core/receive.h"
#include "mesh/core/session.h"
#include "mesh/core/train.h"

enum { LANE_SLOT_BYTES = 64 * 1024, MESH_NODE_BUCKETS = 8192 };

/* Records of one large frame that is being put together again. */
struct merge_run {
    struct packet *packet;        /* NULL: none */
    const struct session *session;
    uint16_t id;
    uint8_t next_position;
    uint8_t gso_type;
    uint16_t gso_size;
    uint16_t headers_bytes;       /* IP and L4 */
    uint16_t l4_offset;           /* from the IP header */
    uint16_t last_payload_bytes;
    uint16_t records;
    uint8_t tcp_flags;            /* of the last record */
    bool ecn;
};

struct lane {
    struct rxq rxq;
    struct rxq own_rxq;           /* of its own port: see own_port.h; fd -1: none */
    struct mesh *mesh;
    uint32_t number;
    uint16_t next_run;            /* id of the last run that was sent */
    struct train_queue trains;
    struct train_queue relays;    /* others' messages, in area; it is not filled while any wait */
    /* Receiving: slots[slot..slot_count) are not opened yet; packets[first..count) are not done yet
     * and point into slots, which are filled again only when both are used up. */
    uint32_t slot, slot_count, slot_offset;
    uint32_t first, count;
    struct receive_slot slots[RECEIVE_SLOTS];
    uint8_t *area;
    uint8_t *trains_area;
    struct merge_run run;
    CACHE_ALIGNED struct packet packets[BURST];
    struct segment segs[BURST][MAX_SEGMENTS];
};

struct mesh {
    struct port port;
    IMB_MGR *library;             /* its direct functions only: without state, any thread */
    uint32_t mtu_bytes;
    uint32_t lanes_count;
    uint32_t generation;          /* of the last session installed */
    uint8_t node_id[RECORD_NODE_BYTES];
    uint8_t public_key[MESH_PUBLIC_KEY_BYTES];
    struct handshake_gate *gate;
    struct lane *lanes[MAX_WORKERS];
    struct mesh_peer **peers;     /* MESH_PEERS */
    struct mesh_peer **nodes;     /* MESH_NODE_BUCKETS lists of them, by node id */
    uint32_t *peer_mtus;          /* MESH_PEERS; see struct port */
    struct session **sessions;    /* MESH_SESSIONS */
};

/* NULL: no session with that index. */
static inline struct session *mesh_find_session(const struct mesh *m, uint32_t index)
{
    /* pairs with mesh_session_install */
    struct session *s = load_acquire(&m->sessions[index % MESH_SESSIONS]);
    return s && s->local_index == index ? s : NULL;
}

static inline struct mesh_peer **mesh_node_bucket(const struct mesh *m, const uint8_t *node)
{
    uint16_t hash; /* a node id is one */
    memcpy(&hash, node, sizeof(hash));
    return &m->nodes[hash % MESH_NODE_BUCKETS];
}

/* NULL: not a peer. */
static inline struct mesh_peer *mesh_find_node(const struct mesh *m, const uint8_t *node)
{
    struct mesh_peer *p = load_acquire(mesh_node_bucket(m, node)); /* pairs with mesh_peer_add */
    while (p && memcmp(p->node, node, sizeof(p->node)) != 0)
        p = load_acquire(&p->next_of_node); /* pairs with mesh_peer_unlink */
    return p;
}

/* A lane's windows have one owner, so a lane that the kernel did not steer to us is refused: it
 * would be a race, not just a detour. */
static inline bool lane_is_ours(const struct lane *lane, uint32_t number)
{
    return number < MESH_LANES && number % lane->mesh->lanes_count == lane->number;
}

/* ---- lane.c */

int lane_new(struct lane **out, struct mesh *m, uint32_t number, int fd, int own_fd);
void lane_free(struct lane *lane);
uint32_t lane_tx(struct port *p, struct breath *b, struct packet *const *pkts, uint32_t n,
                 uint32_t flags);
#endif
