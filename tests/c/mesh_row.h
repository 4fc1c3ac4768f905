/* mesh_row.h - three nodes in a row, a - t - b, and a wire of somebody who listens.
 *
 * Included by one main each.
 *
 * Threads: as mesh_rig.h.
 */
#ifndef TESTS_MESH_ROW_H
#define TESTS_MESH_ROW_H

#include "tests/c/mesh_rig.h"

/* RIG_PEER: to each end, the other. */
enum { TCP_ACK = 16, T_PEER = 1, A_AT_T = 2, B_AT_T = 3 };

static struct rig_node a, t, b;
static struct rig_frame frame;
static struct mesh_endpoint wire_at;
static int wire;

static inline void introduce(struct rig_node *n, uint32_t peer, const struct rig_node *other)
{
    CHECK(mesh_peer_add(n->mesh, peer, other->mesh->node_id) == 0);
}

static inline void install(struct rig_node *n, uint32_t peer, uint32_t index, uint8_t keys,
                    bool initiator, struct mesh_endpoint at)
{
    struct session_config c = {.peer = peer,
                               .local_index = index,
                               .remote_index = index,
                               .cipher = CIPHER_AES256_GCM,
                               .initiator = initiator,
                               .endpoint = at};
    memset(c.send_key, initiator ? keys : keys + 1, sizeof(c.send_key));
    memset(c.receive_key, initiator ? keys + 1 : keys, sizeof(c.receive_key));
    memset(c.relay_send_key, initiator ? keys + 2 : keys + 3, sizeof(c.relay_send_key));
    memset(c.relay_receive_key, initiator ? keys + 3 : keys + 2, sizeof(c.relay_receive_key));
    CHECK(mesh_session_install(n->mesh, &c) == 0);
}

/* Sessions a-t (index 1), t-b (2), a-b (3); a knows that b is behind t, b finds out. */
static inline void begin(void)
{
    const struct mesh_endpoint behind_t = {.via = T_PEER + 1};
    rig_node_new(&a, 1);
    rig_node_new(&t, 2);
    rig_node_new(&b, 3);
    wire = rig_socket(&wire_at, false);
    introduce(&a, T_PEER, &t);
    introduce(&b, T_PEER, &t);
    introduce(&t, A_AT_T, &a);
    introduce(&t, B_AT_T, &b);
    introduce(&a, RIG_PEER, &b);
    introduce(&b, RIG_PEER, &a);
    install(&a, T_PEER, 1, 10, true, t.at);
    install(&t, A_AT_T, 1, 10, false, a.at);
    install(&t, B_AT_T, 2, 20, true, b.at);
    install(&b, T_PEER, 2, 20, false, t.at);
    install(&a, RIG_PEER, 3, 30, true, behind_t);
    install(&b, RIG_PEER, 3, 30, false, b.at);
    rig_tcp(&frame, 4, 1000, 0, TCP_ACK);
}

static inline void end(void)
{
    rig_node_free(&a);
    rig_node_free(&t);
    rig_node_free(&b);
    close(wire);
}

static inline struct session_stats stats_of(const struct rig_node *n, uint32_t index)
{
    struct session_stats stats;
    CHECK(mesh_session_stats(n->mesh, index, &stats) == 0);
    return stats;
}

#endif
