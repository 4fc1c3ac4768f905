/* mesh_threads.c - two lanes each way between four threads while a fifth changes keys and
 * addresses, and lets lanes send by their own ports and again by the common one, for
 * ThreadSanitizer.
 *
 * Checks: no data race; the grace period of mesh_session_unlink() and _detach(); every record
 * that arrives is opened (no wrong tag, no replay, no stray lane).
 */
#include <pthread.h>
#include <sched.h>

#include "tests/c/mesh_rig.h"

enum { LANES = 2, REKEYS = 12, SENT_BYTES = 6000 };

struct worker_thread {
    pthread_t thread;
    struct mesh *mesh;
    struct rxq *rxq;
    struct rxq *own_rxq;         /* NULL: no port of its own */
    struct breath breath;
    struct rig_frame frame;
    bool sends;
    uint64_t breaths;            /* written by the thread */
    uint64_t packets;
    uint32_t stop;
};

static struct rig_node nodes[2];
static struct worker_thread threads[2 * LANES];
static uint32_t lane_replies;

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
        t->own_rxq = mesh_own_rxq(n->mesh, lane);
        t->breath = (struct breath){.worker = lane, .punts = punt_ring_new()};
        t->sends = number == 0;
        rig_tcp(&t->frame, 4, SENT_BYTES, 1000, 16);
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
        if (t->own_rxq)
            t->own_rxq->burst(t->own_rxq, &t->breath, out, BURST);
        t->packets += n;
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
    for (uint32_t i = 0; i < 2 * LANES; i++) {
        uint64_t then = load_acquire(&threads[i].breaths); /* pairs with run */
        while (load_acquire(&threads[i].breaths) < then + 2)
            sched_yield();
    }
}

static void drain_punts(void)
{
    struct punt punt;
    for (uint32_t i = 0; i < 2 * LANES; i++)
        while (punt_next(threads[i].breath.punts, &punt)) {
            CHECK(punt.kind != PUNT_HANDSHAKE);
            lane_replies += punt.kind == PUNT_LANE_REPLY;
        }
}

static void forget(struct rig_node *n, uint32_t index)
{
    struct session *s = mesh_session_unlink(n->mesh, index);
    CHECK(s);
    sync_all();
    mesh_session_detach(s);
    sync_all();
    mesh_session_free(s);
}

static void rekey(uint32_t round)
{
    struct rig_node *a = &nodes[round & 1], *b = &nodes[!(round & 1)];
    struct session_stats stats;
    uint32_t index = 0x10000 * (round + 1) + round % 3;
    rig_install(b, a, (uint8_t)round, false, index, index);
    rig_install(a, b, (uint8_t)round, true, index, index);
    for (uint32_t i = 0; i < 8; i++) {
        CHECK(mesh_send_keepalive(a->mesh, RIG_PEER) == 0);
        CHECK(mesh_send_lane_probe(a->mesh, index, 1, &b->at, i, 100) == 0);
        CHECK(mesh_session_set_lanes(a->mesh, index, &b->at, 2) == 0);
        sync_all();
        CHECK(mesh_session_set_endpoint(a->mesh, index, &b->at) == 0); /* by the common port */
        CHECK(mesh_session_stats(b->mesh, index, &stats) == 0);
        drain_punts();
        sync_all();
    }
    if (round > 0) {
        uint32_t old = 0x10000 * round + (round - 1) % 3;
        forget(&nodes[0], old);
        forget(&nodes[1], old);
    }
}

int main(void)
{
    uint64_t packets[2] = {0};
    node_new(0);
    node_new(1);
    for (uint32_t i = 0; i < 2 * LANES; i++)
        CHECK(pthread_create(&threads[i].thread, NULL, run, &threads[i]) == 0);
    for (uint32_t round = 0; round < REKEYS; round++)
        rekey(round);
    for (uint32_t i = 0; i < 2 * LANES; i++)
        store_release(&threads[i].stop, 1);
    for (uint32_t i = 0; i < 2 * LANES; i++) {
        pthread_join(threads[i].thread, NULL);
        CHECK(threads[i].packets > REKEYS);
        packets[i / LANES] += threads[i].packets;
        punt_ring_free(threads[i].breath.punts);
    }
    for (uint32_t i = 0; i < 2; i++) {
        CHECK(rig_drops(&nodes[i], DROP_AUTH) == 0 && rig_drops(&nodes[i], DROP_REPLAY) == 0);
        CHECK(rig_drops(&nodes[i], DROP_BAD_RECORD) == 0);
        mesh_free(nodes[i].mesh);
    }
    CHECK(lane_replies > 0);
    printf("ok: %llu and %llu packets\n", (unsigned long long)packets[0],
           (unsigned long long)packets[1]);
    return 0;
}
