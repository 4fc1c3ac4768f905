/* mesh.c - the control thread's side of the mesh: lanes, peers, sessions.
 *
 * Untrusted:  nothing; indexes and numbers come from our own Python and are checked all the same.
 * Threads:    the control thread.
 */
#include "mesh/core/mesh.h"

#include <linux/filter.h>
#include <sodium.h>
#include <sys/socket.h>

int mesh_new(struct mesh **out, uint16_t port_id, const uint8_t *node_id,
             const uint8_t *public_key, const uint8_t *mac1_key, const uint8_t *cookie_key,
             uint32_t mtu_bytes)
{
    if (mtu_bytes < MESH_MTU_MIN_BYTES || mtu_bytes > MESH_MTU_MAX_BYTES)
        return -EINVAL;
    if (sodium_init() < 0)
        return -EIO;
    struct mesh *m = calloc(1, sizeof(*m));
    if (!m)
        return -ENOMEM;
    int rc = port_init(&m->port, port_id);
    m->port.tx = lane_tx;
    m->mtu_bytes = mtu_bytes;
    m->lanes_count = 1;
    memcpy(m->node_id, node_id, sizeof(m->node_id));
    memcpy(m->public_key, public_key, sizeof(m->public_key));
    m->peers = calloc(MESH_PEERS, sizeof(struct mesh_peer *));
    m->nodes = calloc(MESH_NODE_BUCKETS, sizeof(struct mesh_peer *));
    m->sessions = calloc(MESH_SESSIONS, sizeof(struct session *));
    m->port.peer_mtus = m->peer_mtus = calloc(MESH_PEERS, sizeof(uint32_t));
    m->gate = handshake_gate_new(mac1_key, cookie_key);
    m->library = alloc_mb_mgr(0);
    if (rc != 0 || !m->gate || !m->peers || !m->nodes || !m->sessions || !m->peer_mtus ||
        !m->library)
        rc = -ENOMEM;
    if (rc != 0) {
        mesh_free(m);
        return rc;
    }
    init_mb_mgr_auto(m->library, NULL);
    *out = m;
    return 0;
}

void mesh_free(struct mesh *m)
{
    if (!m)
        return;
    for (uint32_t worker = 0; worker < MAX_WORKERS; worker++)
        mesh_lane_remove(m, worker);
    for (uint32_t slot = 0; m->sessions && slot < MESH_SESSIONS; slot++)
        mesh_session_free(m->sessions[slot]);
    for (uint32_t peer = 0; m->peers && peer < MESH_PEERS; peer++)
        mesh_peer_free(m->peers[peer]);
    if (m->library)
        free_mb_mgr(m->library);
    handshake_gate_free(m->gate);
    free(m->sessions);
    free(m->nodes);
    free(m->peers);
    free(m->peer_mtus);
    port_fini(&m->port);
    free(m);
}

struct port *mesh_port(struct mesh *m)
{
    return &m->port;
}

int mesh_has_cipher(const struct mesh *m, uint32_t cipher)
{
    return cipher_find(m->library, cipher) != NULL;
}

int mesh_set_lanes(struct mesh *m, uint32_t lanes)
{
    if (lanes == 0 || lanes > MESH_CONTROL_LANE)
        return -EINVAL;
    for (uint32_t worker = 0; worker < MAX_WORKERS; worker++)
        if (m->lanes[worker])
            return -EBUSY;
    m->lanes_count = lanes;
    return 0;
}

int mesh_lane_add(struct mesh *m, uint32_t worker, int fd, int own_fd)
{
    if (worker >= m->lanes_count)
        return -EINVAL;
    if (m->lanes[worker])
        return -EEXIST;
    return lane_new(&m->lanes[worker], m, worker, fd, own_fd);
}

void mesh_lane_remove(struct mesh *m, uint32_t worker)
{
    if (worker >= MAX_WORKERS || !m->lanes[worker])
        return;
    lane_free(m->lanes[worker]);
    m->lanes[worker] = NULL;
}

struct rxq *mesh_lane_rxq(struct mesh *m, uint32_t worker)
{
    return worker < MAX_WORKERS && m->lanes[worker] ? &m->lanes[worker]->rxq : NULL;
}

struct rxq *mesh_own_rxq(struct mesh *m, uint32_t worker)
{
    struct lane *lane = worker < MAX_WORKERS ? m->lanes[worker] : NULL;
    return lane && lane->own_rxq.fd >= 0 ? &lane->own_rxq : NULL;
}

int mesh_steer(int fd, uint32_t lanes)
{
    /* Offset 0 is the UDP payload's first byte (socket(7), SO_ATTACH_REUSEPORT_CBPF).  Lanes are
     * below 256, so the low byte is enough; handshake messages have a zero there. */
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, RECORD_LANE_AT),
        BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, lanes),
        BPF_STMT(BPF_RET | BPF_A, 0),
    };
    struct sock_fprog program = {.len = ARRAY_LEN(code), .filter = code};
    if (lanes == 0 || lanes > MESH_CONTROL_LANE)
        return -EINVAL;
    if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof(program)) != 0)
        return -errno;
    return 0;
}

void mesh_expect_answer(struct mesh *m, uint32_t local_index)
{
    handshake_expect(m->gate, local_index, clock_now_ns());
}

int mesh_peer_add(struct mesh *m, uint32_t peer, const uint8_t *node_id)
{
    if (peer >= MESH_PEERS)
        return -EINVAL;
    if (m->peers[peer])
        return -EEXIST;
    struct mesh_peer *p = calloc(1, sizeof(*p));
    if (!p)
        return -ENOMEM;
    p->id = peer;
    memcpy(p->node, node_id, sizeof(p->node));
    store_relaxed(&m->peer_mtus[peer], m->mtu_bytes);
    struct mesh_peer **bucket = mesh_node_bucket(m, p->node);
    p->next_of_node = *bucket;
    store_release(bucket, p);          /* pairs with mesh_find_node */
    store_release(&m->peers[peer], p); /* pairs with seal_packet */
    return 0;
}

struct mesh_peer *mesh_peer_unlink(struct mesh *m, uint32_t peer)
{
    struct mesh_peer *p = peer < MESH_PEERS ? m->peers[peer] : NULL;
    if (!p)
        return NULL;
    struct mesh_peer **link = mesh_node_bucket(m, p->node);
    while (*link != p)
        link = &(*link)->next_of_node;
    store_release(link, p->next_of_node); /* pairs with mesh_find_node */
    store_release(&m->peers[peer], NULL); /* pairs with seal_packet */
    return p;
}

void mesh_peer_free(struct mesh_peer *peer)
{
    free(peer);
}

int mesh_peer_set_via(struct mesh *m, uint32_t peer, uint32_t via)
{
    struct mesh_peer *p = peer < MESH_PEERS ? m->peers[peer] : NULL;
    if (!p)
        return -ENOENT;
    if (via > MESH_PEERS)
        return -EINVAL;
    store_relaxed(&p->via, via);
    return 0;
}

int mesh_peer_set_mtu(struct mesh *m, uint32_t peer, uint32_t mtu_bytes)
{
    if (peer >= MESH_PEERS || !m->peers[peer])
        return -ENOENT;
    if (mtu_bytes < MESH_MTU_MIN_BYTES || mtu_bytes > m->mtu_bytes)
        return -EINVAL;
    store_relaxed(&m->peer_mtus[peer], mtu_bytes);
    return 0;
}

int mesh_session_install(struct mesh *m, const struct session_config *config)
{
    struct session **slot = &m->sessions[config->local_index % MESH_SESSIONS];
    struct mesh_peer *peer = config->peer < MESH_PEERS ? m->peers[config->peer] : NULL;
    struct session *s;
    if (!peer)
        return -ENOENT;
    if (*slot)
        return -EEXIST;
    int rc = session_new(&s, config, peer, ++m->generation, m->library);
    if (rc != 0)
        return rc;
    store_release(slot, s); /* pairs with mesh_find_session */
    if (s->confirmed)
        session_promote(s);
    return 0;
}

struct session *mesh_session_unlink(struct mesh *m, uint32_t local_index)
{
    struct session *s = mesh_find_session(m, local_index);
    if (!s)
        return NULL;
    /* pairs with mesh_find_session */
    store_release(&m->sessions[local_index % MESH_SESSIONS], NULL);
    mesh_session_detach(s);
    return s;
}

void mesh_session_detach(struct session *s)
{
    struct session *current = s;
    cas_acq_rel(&s->peer->current, &current, NULL); /* pairs with session_promote */
}

int mesh_session_promote(struct mesh *m, uint32_t local_index)
{
    struct session *s = mesh_find_session(m, local_index);
    if (!s)
        return -ENOENT;
    store_relaxed(&s->confirmed, 1);
    store_release(&s->peer->current, s); /* pairs with seal_packet */
    return 0;
}

int mesh_session_set_endpoint(struct mesh *m, uint32_t local_index,
                              const struct mesh_endpoint *endpoint)
{
    struct session *s = mesh_find_session(m, local_index);
    if (!s)
        return -ENOENT;
    while (!session_set_endpoint(s, endpoint)) /* a worker holds the lock for a few stores */
        cpu_relax();
    return 0;
}

int mesh_session_set_lanes(struct mesh *m, uint32_t local_index,
                           const struct mesh_endpoint *endpoint, uint32_t lanes)
{
    struct session *s = mesh_find_session(m, local_index);
    if (!s)
        return -ENOENT;
    /* The control lane has no port of its own. */
    return lanes >> MESH_CONTROL_LANE ? -EINVAL : session_set_lanes(s, endpoint, lanes);
}

int mesh_session_stats(const struct mesh *m, uint32_t local_index, struct session_stats *out)
{
    const struct session *s = mesh_find_session(m, local_index);
    if (!s)
        return -ENOENT;
    session_read_stats(s, out);
    return 0;
}
