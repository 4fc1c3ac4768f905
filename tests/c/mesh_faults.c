/* mesh_faults.c - two nodes whose keys change while records are lost, doubled, late and replayed.
 *
 * Seeds of rig_random() draw what happens; a list of all that was ever sealed and taken says what
 * must not: a counter used twice, a key sealed with that the peer has not proved to have, a record
 * taken twice or too late.  And what must: every other record is taken, whichever way it came.
 */
#include "mesh/core/seal.h"
#include "tests/c/mesh_rig.h"

enum { SEEDS = 60, STEPS = 2000, SESSIONS = 80, FLIGHT = 64, RECORD_BYTES = 256, TCP_ACK = 16 };
enum { COUNTERS = 1 << 16, JUMP_RECORDS = SESSION_WINDOW_RECORDS + 100, KEPT = 3 };

/* Counters of one lane, as they have to be: the next one sealed is at least that; the highest taken
 * plus one; which were taken. */
struct counting {
    uint64_t sealed, top;
    uint8_t seen[COUNTERS];
};

/* One end of a session.  Keepalives have a lane of their own, the last. */
struct end {
    bool present, confirmed;
    struct counting lanes[2];
};

struct datagram {
    uint8_t bytes[RECORD_BYTES];
    uint32_t len, to;
};

static struct rig_node nodes[2];
static int wires[2][2];          /* of each node: where it sends, before and after it heard of us */
static struct mesh_endpoint wires_at[2][2];
static struct end (*ends)[SESSIONS];
static int32_t current[2], installed, waiting; /* sessions; -1: none; waiting for the initiator */
static uint32_t initiator;
static struct datagram flight[FLIGHT], past[FLIGHT];
static uint32_t flying, pasts, taken, refused;

static uint32_t index_of(uint32_t session)
{
    return 0x10000 * (session + 1) + session;
}

static struct counting *counting_of(struct end *end, const struct record_header *header)
{
    CHECK(header->lane == 0 || header->lane == MESH_CONTROL_LANE);
    return &end->lanes[header->lane == MESH_CONTROL_LANE];
}

static void promote(uint32_t n, int32_t session)
{
    ends[n][session].confirmed = true;
    if (current[n] < session)
        current[n] = session;
}

static void install(uint32_t n, uint32_t session, bool is_initiator)
{
    rig_install(&nodes[n], &nodes[!n], (uint8_t)session, is_initiator, index_of(session),
                index_of(session));
    CHECK(mesh_session_set_endpoint(nodes[n].mesh, index_of(session), &wires_at[n][0]) == 0);
    ends[n][session].present = true;
    if (is_initiator)
        promote(n, (int32_t)session);
}

static void forget(uint32_t n, uint32_t session)
{
    if (!ends[n][session].present)
        return;
    struct session *s = mesh_session_unlink(nodes[n].mesh, index_of(session));
    CHECK(s);
    mesh_session_detach(s);
    mesh_session_free(s);
    ends[n][session].present = false;
    if (current[n] == (int32_t)session)
        current[n] = -1;
}

/* The responder first; the initiator when its answer comes, which may be never. */
static void rekey(void)
{
    if (waiting >= 0 && rig_random(4) != 0) {
        install(initiator, (uint32_t)waiting, true);
        waiting = -1;
    } else if (installed < SESSIONS) {
        waiting = installed++;
        initiator = rig_random(2);
        install(!initiator, (uint32_t)waiting, false);
        for (int32_t old = installed - 1 - KEPT; old >= 0 && old > installed - 6 - KEPT; old--)
            for (uint32_t n = 0; n < 2; n++)
                forget(n, (uint32_t)old);
    }
}

static void restart(uint32_t n)
{
    for (int32_t session = 0; session < installed; session++)
        forget(n, (uint32_t)session);
    if (waiting >= 0 && initiator == n)
        waiting = -1;
}

/* What the node has just sent is checked, and on its way. */
static void capture(uint32_t n)
{
    struct datagram d = {.to = !n};
    struct record_header header;
    for (int wire = 0; wire < 2; wire++) {
        ssize_t len = recv(wires[n][wire], d.bytes, sizeof(d.bytes), MSG_DONTWAIT);
        if (len < 0)
            continue;
        d.len = (uint32_t)len;
        memcpy(&header, d.bytes, sizeof(header));
        uint32_t session = header.index & 0xffff;
        struct end *end = &ends[n][session];
        CHECK(session < SESSIONS && header.index == index_of(session));
        CHECK(end->confirmed && current[n] == (int32_t)session);
        struct counting *counting = counting_of(end, &header);
        CHECK(header.counter >= counting->sealed && header.counter < COUNTERS);
        counting->sealed = header.counter + 1;
        past[pasts++ % FLIGHT] = d;
        for (uint32_t copies = rig_random(3); copies > 0 && flying < FLIGHT; copies--)
            flight[flying++] = d;
    }
}

static void send_one(uint32_t n)
{
    static struct rig_frame frame;
    struct session *s = current[n] >= 0 ? mesh_find_session(nodes[n].mesh,
                                                            index_of((uint32_t)current[n])) : NULL;
    if (s && rig_random(50) == 0 && s->tx[0].next < COUNTERS - 2 * JUMP_RECORDS)
        s->tx[0].next += JUMP_RECORDS;
    if (rig_random(4) == 0) {
        CHECK(mesh_send_keepalive(nodes[n].mesh, RIG_PEER) == (s ? 0 : -ENOKEY));
    } else {
        rig_tcp(&frame, 4, rig_random(50), 0, TCP_ACK);
        CHECK(rig_send(&nodes[n], &frame) == 1);
    }
    capture(n);
}

static void deliver(const struct datagram *d)
{
    struct rig_node *n = &nodes[d->to];
    struct record_header header;
    struct packet *out[BURST];
    struct punt punt;
    memcpy(&header, d->bytes, sizeof(header));
    uint32_t session = header.index & 0xffff;
    struct end *end = &ends[d->to][session];
    struct counting *counting = counting_of(end, &header);
    bool in_time = header.counter + SESSION_WINDOW_RECORDS >= counting->top;
    bool expected = end->present && in_time && !counting->seen[header.counter];
    uint64_t drops = rig_all_drops(n);
    rig_wire_put(wires[d->to][rig_random(8) == 0], n, d->bytes, d->len);
    uint32_t got = n->rxq->burst(n->rxq, &n->breath, out, BURST);
    n->rxq->done(n->rxq, &n->breath, got);
    CHECK(rig_all_drops(n) == drops + !expected);
    CHECK(got == (expected && d->len > RECORD_EMPTY_BYTES));
    while (rig_punt(n, &punt))
        CHECK(punt.kind != PUNT_SESSION_CONFIRMED || (expected && !end->confirmed));
    taken += expected;
    refused += !expected;
    if (!expected)
        return;
    if (!end->confirmed)
        promote(d->to, (int32_t)session);
    counting->seen[header.counter] = 1;
    if (header.counter >= counting->top)
        counting->top = header.counter + 1;
}

static void step(void)
{
    uint32_t chance = rig_random(100);
    if (chance < 40)
        send_one(rig_random(2));
    else if (chance < 85 && flying > 0) {
        uint32_t i = rig_random(flying);
        struct datagram d = flight[i];
        flight[i] = flight[--flying];
        deliver(&d);
    } else if (chance < 92 && pasts > 0)
        deliver(&past[rig_random(min_u32(pasts, FLIGHT))]);
    else if (chance < 96)
        rekey();
    else if (rig_random(10) == 0)
        restart(rig_random(2));
}

/* With nothing in the way, two records are enough. */
static void expect_alive(void)
{
    flying = 0;
    waiting = installed;
    install(1, (uint32_t)waiting, false);
    install(0, (uint32_t)waiting, true);
    installed++;
    for (uint32_t n = 0; n < 2; n++) {
        uint32_t before = taken;
        do
            send_one(n);
        while (flying == 0);
        deliver(&flight[0]);
        CHECK(taken == before + 1);
        flying = 0;
    }
    CHECK(current[0] == waiting && current[1] == waiting);
}

static void simulate(uint32_t seed)
{
    rig_random_state = seed;
    memset(ends, 0, 2 * sizeof(*ends));
    flying = pasts = 0;
    installed = 0;
    current[0] = current[1] = waiting = -1;
    for (uint32_t n = 0; n < 2; n++) {
        rig_node_new(&nodes[n], (uint8_t)(n + 1));
        for (int wire = 0; wire < 2; wire++)
            wires[n][wire] = rig_socket(&wires_at[n][wire], false);
    }
    uint8_t node[2][8] = {{2, 2, 2, 2, 2, 2, 2, 2}, {1, 1, 1, 1, 1, 1, 1, 1}};
    for (uint32_t n = 0; n < 2; n++)
        CHECK(mesh_peer_add(nodes[n].mesh, RIG_PEER, node[n]) == 0);
    for (uint32_t i = 0; i < STEPS && installed < SESSIONS - 1; i++)
        step();
    expect_alive();
    for (uint32_t n = 0; n < 2; n++) {
        rig_node_free(&nodes[n]);
        close(wires[n][0]);
        close(wires[n][1]);
    }
}

int main(void)
{
    ends = calloc(2, sizeof(*ends));
    CHECK(ends);
    for (uint32_t seed = 1; seed <= SEEDS; seed++)
        simulate(seed);
    CHECK(taken > SEEDS * STEPS / 10 && refused > SEEDS * STEPS / 10);
    printf("%u records taken, %u refused: ok\n", taken, refused);
    free(ends);
    return 0;
}
