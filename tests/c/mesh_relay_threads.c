/* mesh_relay_threads.c - a - t - b, two lanes each, while a seventh thread changes t's keys and
 * peers, for ThreadSanitizer.
 *
 * Checks: no data race, also where t's workers and the control thread count in one lane; the grace
 * period of peers found by node id; nothing that arrives was damaged, seen before or astray.
 */
#include <pthread.h>
#include <sched.h>

#include "tests/c/mesh_rig.h"

enum { LANES = 2, NODES = 3, ROUNDS = 8, SENT_BYTES = 6000, A = 0, T = 1, B = 2 };

struct worker_thread {
    pthread_t thread;
    struct mesh *mesh;
    struct rxq *rxq;
    struct breath breath;
    struct rig_frame frame;
    bool sends;
    uint64_t breaths;            /* written by the thread */
    uint64_t packets;
    uint64_t passed_on;
    uint32_t stop;
};

static struct rig_node nodes[NODES];
static struct worker_thread threads[NODES * LANES];

static void node_new(uint32_t number)
{
    struct rig_node *n = &nodes[number];
    struct mesh_endpoint own;
    uint8_t node[8], mac1_key[32] = {0};
    memset(node, (int)number + 1, sizeof(node));
    CHECK(mesh_new(&n->mesh, (uint16_t)number, node, mac1_key, mac1_key, mac1_key, RIG_MTU) == 0);
    CHECK(mesh_set_lanes(n->mesh, LANES) == 0);
    for (uint32_t lane = 0; lane < LANES; lane++) {
        struct worker_thread *t = &threads[number * LANES + lane];
        n->fd = rig_group_socket(&n->at, lane);
        if (lane == 0)
            CHECK(mesh_steer(n->fd, LANES) == 0);
        CHECK(mesh_lane_add(n->mesh, lane, n->fd, lane ? rig_socket(&own, false) : -1) == 0);
        t->mesh = n->mesh;
        t->rxq = mesh_lane_rxq(n->mesh, lane);
        t->breath = (struct breath){.worker = lane, .punts = punt_ring_new()};
        t->sends = number != B;
        rig_tcp(&t->frame, 4, SENT_BYTES, 1000, 16);
        t->frame.packet.peer = number == A ? B : A;
    }
}

static void *run(void *arg)
{
    struct worker_thread *t = arg;
    struct packet *out[BURST], *own = &t->frame.packet;
    struct port *port = mesh_port(t->mesh);
    while (!load_acquire(&t->stop)) {
        t->breath.now_ns = clock_now_ns();
        uint32_t n = t->rxq->burst(t->rxq, &t->breath, out, BURST);
        for (uint32_t i = 0; i < n; i++)
            CHECK(pkt_offload_ok(out[i]));
        t->rxq->done(t->rxq, &t->breath, n);
        t->packets += n;
        t->passed_on += t->breath.passed_on;
        t->breath.passed_on = 0;
        if (t->sends || n > 0)
            port->tx(port, &t->breath, &own, 1, TX_MAY_WAIT);
        store_release(&t->breaths, load_relaxed(&t->breaths) + 1); /* pairs with sync_all */
        sched_yield(); /* there may be fewer CPUs than threads */
    }
    return NULL;
}

/* worker_sync() for these threads. */
static void sync_all(void)
{
    for (uint32_t i = 0; i < NODES * LANES; i++) {
        uint64_t then = load_acquire(&threads[i].breaths); /* pairs with run */
        while (load_acquire(&threads[i].breaths) < then + 2)
            sched_yield();
    }
}

/* One side of a session; peers are numbered as nodes are.  via: see struct mesh_endpoint. */
static void install(uint32_t number, uint32_t other, uint32_t index, bool initiator, uint32_t via)
{
    struct session_config c = {.peer = other,
                               .local_index = index,
                               .remote_index = index,
                               .cipher = CIPHER_AES256_GCM,
                               .initiator = initiator,
                               .endpoint = nodes[other].at};
    if (via)
        c.endpoint = (struct mesh_endpoint){.via = via};
    mesh_peer_add(nodes[number].mesh, other, nodes[other].mesh->node_id);
    memset(c.send_key, (int)index * 2 + initiator, sizeof(c.send_key));
    memset(c.receive_key, (int)index * 2 + !initiator, sizeof(c.receive_key));
    memcpy(c.relay_send_key, c.send_key, sizeof(c.relay_send_key));
    memcpy(c.relay_receive_key, c.receive_key, sizeof(c.relay_receive_key));
    CHECK(mesh_session_install(nodes[number].mesh, &c) == 0);
}

static void forget(uint32_t number, uint32_t index)
{
    struct session *s = mesh_session_unlink(nodes[number].mesh, index);
    CHECK(s);
    sync_all();
    mesh_session_detach(s);
    sync_all();
    mesh_session_free(s);
}

static uint64_t traces; /* answered */

/* New keys between t and both ends; somebody comes and goes at t; the control threads send. */
static void change(uint32_t round)
{
    static const uint8_t stranger[8] = {2, 2, 9}; /* in one list with t's own id */
    struct mesh *t = nodes[T].mesh;
    struct punt punt;
    uint32_t index = 10 + round * 2;
    install(T, A, index, false, 0);
    install(A, T, index, true, 0);
    install(B, T, index + 1, false, 0);
    install(T, B, index + 1, true, 0);
    CHECK(mesh_peer_add(t, 7, stranger) == 0 && mesh_peer_set_via(t, 7, A + 1) == 0);
    for (uint32_t i = 0; i < 6; i++) {
        CHECK(mesh_send_keepalive(nodes[A].mesh, B) == 0);
        CHECK(mesh_send_keepalive(t, A) == 0 || i == 0);
        CHECK(mesh_send_trace(nodes[A].mesh, B, i % 2, i) == 0);
        CHECK(mesh_session_set_lanes(t, index, &nodes[A].at, i % 2 * 2) == 0);
        CHECK(mesh_session_set_lanes(nodes[A].mesh, index, &nodes[T].at, i % 2 * 2) == 0);
        for (uint32_t k = 0; k < NODES * LANES; k++)
            while (punt_next(threads[k].breath.punts, &punt)) {
                CHECK(punt.kind != PUNT_HANDSHAKE);
                traces += punt.kind == PUNT_TRACE_REPLY;
            }
        sync_all();
    }
    struct mesh_peer *gone = mesh_peer_unlink(t, 7);
    sync_all();
    mesh_peer_free(gone);
    for (uint32_t end = 0; end < 2 && round > 0; end++) {
        forget(T, index - 2 + end);
        forget(end ? B : A, index - 2 + end);
    }
}

int main(void)
{
    uint64_t packets[NODES] = {0}, passed_on = 0;
    for (uint32_t i = 0; i < NODES; i++)
        node_new(i);
    install(B, A, 2, false, T + 1);
    install(A, B, 2, true, T + 1);
    for (uint32_t i = 0; i < NODES * LANES; i++)
        CHECK(pthread_create(&threads[i].thread, NULL, run, &threads[i]) == 0);
    for (uint32_t round = 0; round < ROUNDS; round++)
        change(round);
    for (uint32_t i = 0; i < NODES * LANES; i++)
        store_release(&threads[i].stop, 1);
    for (uint32_t i = 0; i < NODES * LANES; i++) {
        pthread_join(threads[i].thread, NULL);
        packets[i / LANES] += threads[i].packets;
        passed_on += threads[i].passed_on;
        punt_ring_free(threads[i].breath.punts);
    }
    CHECK(packets[A] > ROUNDS && packets[B] > ROUNDS && passed_on > ROUNDS && traces > ROUNDS);
    for (uint32_t i = 0; i < NODES; i++) {
        CHECK(rig_drops(&nodes[i], DROP_AUTH) == 0 && rig_drops(&nodes[i], DROP_REPLAY) == 0);
        CHECK(rig_drops(&nodes[i], DROP_BAD_RECORD) == 0);
        CHECK(rig_drops(&nodes[i], DROP_HOP_LIMIT) == 0);
        mesh_free(nodes[i].mesh);
    }
    printf("ok: %llu and %llu packets, %llu passed on\n", (unsigned long long)packets[A],
           (unsigned long long)packets[B], (unsigned long long)passed_on);
    return 0;
}
