/* moves.c - receive queues change their worker while it runs, under ThreadSanitizer.
 *
 * Checks, with destinations that are often full: each frame of each queue arrives once and in
 * order; all of a queue's frames go to the same queue of a destination, whichever worker brings
 * them; no data race.  A queue is moved as the switch does it: a snapshot without it, all workers
 * past that, a snapshot with it elsewhere.
 */
#include "vswitch/core/worker.h"

#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

enum { WORKERS = 2, SOURCES = 3, SINKS = 2, LANES = 2, ROUNDS = 200, WAITING = 64 };

#define CHECK(x)                                                          \
    do {                                                                  \
        if (!(x)) {                                                       \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x);       \
            exit(1);                                                      \
        }                                                                 \
    } while (0)

/* Endless numbered frames, to the sinks in turn: number n goes to sink n % SINKS. */
struct source {
    struct rxq rxq;
    struct port port;
    uint64_t done;                 /* frames that were given back */
    struct segment segs[BURST];
};

/* What one sink's lane got of one source. */
struct sink {
    struct port port;
    struct trylock lock[LANES];
    uint32_t room[LANES];          /* frames it takes until it is full again */
    uint64_t next[SOURCES];        /* number expected */
    uint32_t lane_of[SOURCES];
    uint32_t seed[LANES];
};

static struct source sources[SOURCES];
static struct sink sinks[SINKS];

static void set_mac(uint8_t *mac, uint8_t kind, uint32_t i)
{
    memset(mac, 0, 6);
    mac[0] = 2;
    mac[1] = kind;
    mac[5] = (uint8_t)i;
}

static uint32_t source_burst(struct rxq *q, struct breath *b, struct packet **out, uint32_t max)
{
    struct source *s = CONTAINER_OF(q, struct source, rxq);
    for (uint32_t i = 0; i < max; i++) {
        struct packet *p = &b->packets[i];
        uint64_t number = s->done + i;
        memset(p, 0, sizeof(*p));
        set_mac(p->head, 2, (uint32_t)(number % SINKS));
        set_mac(p->head + 6, 1, s->port.id);
        memcpy(p->head + 14, &number, sizeof(number));
        p->len_bytes = p->head_len = 60;
        s->segs[i] = (struct segment){p->head, 60};
        p->segs = &s->segs[i];
        p->segs_count = 1;
        out[i] = p;
    }
    return max;
}

static void source_done(struct rxq *q, struct breath *b, uint32_t n)
{
    (void)b;
    CONTAINER_OF(q, struct source, rxq)->done += n;
}

static void take(struct sink *k, uint32_t lane, const struct packet *p)
{
    uint64_t number;
    uint32_t from = p->head[11];
    memcpy(&number, p->head + 14, sizeof(number));
    if (k->next[from] < SINKS)
        k->lane_of[from] = lane;
    CHECK(k->lane_of[from] == lane);
    CHECK(number == k->next[from]);
    k->next[from] += SINKS;
}

/* Takes a random number of packets, then says that it is full, once. */
static uint32_t sink_tx(struct port *port, struct breath *b, struct packet *const *pkts, uint32_t n,
                        uint32_t flags)
{
    struct sink *k = CONTAINER_OF(port, struct sink, port);
    uint32_t lane = b->tx_queue % LANES, taken = 0;
    CHECK(flags & TX_MAY_WAIT); /* nothing is flooded here */
    if (!trylock_take(&k->lock[lane]))
        return 0;
    while (taken < n && k->room[lane] > 0) {
        take(k, lane, pkts[taken++]);
        k->room[lane]--;
    }
    if (k->room[lane] == 0) {
        k->seed[lane] = k->seed[lane] * 1664525 + 1013904223;
        k->room[lane] = 1 + (k->seed[lane] >> 16) % WAITING;
    }
    trylock_give(&k->lock[lane]);
    return taken;
}

static void *run_worker(void *w)
{
    worker_run(w);
    return NULL;
}

static struct snapshot *publish(struct worker **workers, struct fdb *fdb, const int *at,
                                struct snapshot *old)
{
    static const uint8_t mac[6] = {2, 9, 9, 9, 9, 9};
    struct snapshot *s = snapshot_new(WORKERS);
    CHECK(snapshot_add_bridge(s, fdb, mac, 1400) == 0);
    for (int i = 0; i < SOURCES; i++) {
        CHECK(snapshot_add_port(s, &sources[i].port, 0) == 0);
        if (at[i] >= 0)
            CHECK(snapshot_add_rxq(s, (uint32_t)at[i], &sources[i].rxq) == 0);
    }
    for (int i = 0; i < SINKS; i++)
        CHECK(snapshot_add_port(s, &sinks[i].port, 0) == 0);
    for (int i = 0; i < WORKERS; i++)
        worker_publish(workers[i], s);
    for (int i = 0; i < WORKERS; i++)
        CHECK(worker_sync(workers[i], 10 * NS_PER_S) == 0);
    snapshot_free(old);
    return s;
}

static struct fdb *make_ports(void)
{
    struct fdb *fdb = fdb_new(64, 1);
    for (uint16_t i = 0; i < SOURCES; i++) {
        CHECK(port_init(&sources[i].port, i) == 0);
        sources[i].rxq = (struct rxq){
            .burst = source_burst, .done = source_done, .port = &sources[i].port, .fd = -1};
    }
    for (uint16_t i = 0; i < SINKS; i++) {
        uint8_t mac[6];
        CHECK(port_init(&sinks[i].port, SOURCES + i) == 0);
        sinks[i].port.tx = sink_tx;
        sinks[i].room[0] = sinks[i].room[1] = 1;
        for (uint32_t from = 0; from < SOURCES; from++)
            sinks[i].next[from] = i;
        set_mac(mac, 2, i);
        uint64_t word = mac_word(mac);
        CHECK(fdb_learn(fdb, fdb_prefetch(fdb, word), word, SOURCES + i));
    }
    return fdb;
}

int main(void)
{
    struct worker *workers[WORKERS] = {worker_new(0), worker_new(1)};
    struct fdb *fdb = make_ports();
    struct snapshot *s = NULL;
    pthread_t threads[WORKERS];
    int at[SOURCES] = {0, 1, 0};

    fdb_set_ageing(fdb, 86400);
    for (int i = 0; i < WORKERS; i++)
        CHECK(pthread_create(&threads[i], NULL, run_worker, workers[i]) == 0);
    s = publish(workers, fdb, at, s);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        uint32_t moved = round % SOURCES;
        int to = 1 - at[moved];
        at[moved] = -1;
        s = publish(workers, fdb, at, s);
        at[moved] = to;
        s = publish(workers, fdb, at, s);
        usleep(500);
    }
    for (int i = 0; i < WORKERS; i++) {
        worker_stop(workers[i]);
        CHECK(pthread_join(threads[i], NULL) == 0);
        worker_free(workers[i]);
    }
    uint64_t frames = 0;
    for (uint32_t i = 0; i < SOURCES; i++) {
        struct rxq_counters c;
        /* A few behind those given back may have been sent, while one before them waited. */
        uint32_t ahead = (uint32_t)__builtin_popcount(sources[i].rxq.sent);
        uint64_t sent = sources[i].done + ahead, got = 0;
        for (uint32_t k = 0; k < SINKS; k++)
            got += sinks[k].next[i] / SINKS;
        rxq_counters_read(&sources[i].rxq, &c);
        CHECK(got == sent && c.packets == sent && c.timed_packets > 0 && c.timed_packets < sent);
        frames += got;
    }
    CHECK(frames > 100000);
    snapshot_free(s);
    fdb_free(fdb);
    printf("frames moved: %llu\n", (unsigned long long)frames);
    return 0;
}
