/* workers.c - two workers, ports that come and go, under ThreadSanitizer.
 *
 * Checks: no data race; worker_sync() really is the grace period (what a snapshot listed before is
 * freed right after it); frames keep flowing through a port that stays.
 */
#include "vswitch/core/port.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PORTS = 4, ROUNDS = 150, FRAME = 12 + 60 };

#define CHECK(x)                                                          \
    do {                                                                  \
        if (!(x)) {                                                       \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x);       \
            exit(1);                                                      \
        }                                                                 \
    } while (0)

struct end {
    int fd;
    uint32_t number;
    uint32_t stop;
    uint64_t got;
    pthread_t thread;
};

static void *run_worker(void *w)
{
    worker_run(w);
    return NULL;
}

/* The device's side: sends frames from changing MAC addresses to others', reads whatever comes. */
static void *run_end(void *arg)
{
    struct end *e = arg;
    uint8_t frame[FRAME] = {0}, sink[FRAME];
    for (uint32_t i = 0; !load_acquire(&e->stop); i++) {
        frame[12] = 2;
        frame[17] = (uint8_t)(i * 7 % 31);
        frame[18] = 2;
        frame[23] = (uint8_t)((i + e->number) % 31);
        frame[24] = 0x88;
        frame[25] = 0xb5;
        if (write(e->fd, frame, sizeof(frame)) < 0)
            usleep(50);
        while (read(e->fd, sink, sizeof(sink)) > 0)
            e->got++;
    }
    return NULL;
}

static struct port *open_port(uint16_t id, struct end *e)
{
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair) == 0);
    *e = (struct end){.fd = pair[0], .number = id};
    CHECK(pthread_create(&e->thread, NULL, run_end, e) == 0);
    return tap_port_new(id, pair[1], 1);
}

static void close_end(struct end *e)
{
    store_release(&e->stop, 1);
    CHECK(pthread_join(e->thread, NULL) == 0);
    close(e->fd);
}

static struct snapshot *make_snapshot(struct fdb *fdb, struct lpm *routes, struct neighbours *n,
                                      struct port **ports, uint32_t count, uint32_t round)
{
    static const uint8_t mac[6] = {2, 0, 0, 0, 0, 0xfe};
    struct snapshot *s = snapshot_new(2);
    CHECK(snapshot_add_bridge(s, fdb, mac, 1400) == 0);
    for (uint32_t i = 0; i < count; i++) {
        CHECK(snapshot_add_port(s, ports[i], 0) == 0);
        /* Queues change their worker from round to round. */
        CHECK(snapshot_add_rxq(s, (i + round) % 2, tap_port_rxq(ports[i])) == 0);
    }
    snapshot_set_routes(s, routes, n);
    return s;
}

int main(void)
{
    struct worker *workers[2] = {worker_new(0), worker_new(1)};
    struct fdb *fdb = fdb_new(64, 1);
    struct lpm *routes = lpm_new(1);
    struct neighbours *n = neighbours_new(16);
    struct port *ports[PORTS];
    struct end ends[PORTS];
    pthread_t threads[2];
    struct snapshot *old = NULL;

    for (uint16_t i = 0; i < PORTS; i++)
        ports[i] = open_port(i, &ends[i]);
    for (int i = 0; i < 2; i++)
        CHECK(pthread_create(&threads[i], NULL, run_worker, workers[i]) == 0);

    for (uint32_t round = 0; round < ROUNDS; round++) {
        bool drop_last = round % 3 == 2;
        struct snapshot *s = make_snapshot(fdb, routes, n, ports, PORTS - drop_last, round);
        /* A queue may change hands only when its old worker has let go of it. */
        for (int i = 0; i < 2; i++)
            worker_publish(workers[i], NULL);
        for (int i = 0; i < 2; i++)
            CHECK(worker_sync(workers[i], 10 * NS_PER_S) == 0);
        for (int i = 0; i < 2; i++)
            worker_publish(workers[i], s);
        for (int i = 0; i < 2; i++)
            CHECK(worker_sync(workers[i], 10 * NS_PER_S) == 0);
        snapshot_free(old);
        old = s;
        if (drop_last) {
            close_end(&ends[PORTS - 1]);
            tap_port_free(ports[PORTS - 1]);
            fdb_flush_port(fdb, PORTS - 1);
            ports[PORTS - 1] = open_port(PORTS - 1, &ends[PORTS - 1]);
        }
        usleep(2000);
    }

    for (int i = 0; i < 2; i++) {
        worker_stop(workers[i]);
        CHECK(pthread_join(threads[i], NULL) == 0);
        worker_free(workers[i]);
    }
    uint64_t got = 0;
    for (int i = 0; i < PORTS; i++) {
        close_end(&ends[i]);
        got += ends[i].got;
        tap_port_free(ports[i]);
    }
    snapshot_free(old);
    fdb_free(fdb);
    lpm_free(routes);
    neighbours_free(n);
    CHECK(got > 1000);
    printf("frames received: %llu\n", (unsigned long long)got);
    return 0;
}
