/* lane.c - one worker's UDP socket: takes records from it, sends trains by it.
 *
 * Untrusted:  datagrams; lengths are the kernel's, contents are handed to handshake.c and open.c.
 * Threads:    new and free: the control thread.  The rest: the worker that polls the queue; lane_tx
 *             uses the calling worker's own lane, so it needs no lock.
 */
#include "mesh/core/merge.h"
#include "mesh/core/own_port.h"
#include "mesh/core/relay.h"
#include "mesh/core/seal.h"

static uint32_t lane_burst(struct rxq *q, struct breath *b, struct packet **out, uint32_t max);
static void lane_done(struct rxq *q, struct breath *b, uint32_t n);
static bool lane_arm(struct rxq *q);
static void lane_disarm(struct rxq *q);

int lane_new(struct lane **out, struct mesh *m, uint32_t number, int fd, int own_fd)
{
    struct lane *lane = aligned_alloc(CACHE_LINE, sizeof(*lane));
    int rc;
    if (!lane)
        return -ENOMEM;
    memset(lane, 0, sizeof(*lane));
    lane->mesh = m;
    lane->number = number;
    lane->area = aligned_alloc(CACHE_LINE, RECEIVE_SLOTS * LANE_SLOT_BYTES);
    lane->trains_area = aligned_alloc(CACHE_LINE, TRAIN_AREA_BYTES);
    rc = lane->area && lane->trains_area ? 0 : -ENOMEM;
    if (rc == 0)
        rc = train_init(&lane->trains, number, fd, own_fd, lane->trains_area);
    if (rc == 0)
        rc = train_init(&lane->relays, number, fd, own_fd, lane->area);
    if (rc != 0) {
        lane_free(lane);
        return rc;
    }
    lane->rxq = (struct rxq){.burst = lane_burst,
                             .done = lane_done,
                             .arm = lane_arm,
                             .disarm = lane_disarm,
                             .port = &m->port,
                             .fd = fd};
    own_port_init(lane, own_fd);
    *out = lane;
    return 0;
}

void lane_free(struct lane *lane)
{
    free(lane->trains_area);
    free(lane->area);
    free(lane);
}

uint32_t lane_tx(struct port *p, struct breath *b, struct packet *const *pkts, uint32_t n,
                 uint32_t flags)
{
    struct mesh *m = CONTAINER_OF(p, struct mesh, port);
    struct lane *lane = m->lanes[b->worker];
    uint32_t i = 0;
    if (unlikely(!lane)) {
        port_drop(p, b, DROP_PORT_DOWN, n);
        return n;
    }
    while (i < n && seal_packet(m, lane, b, pkts[i], flags))
        i++;
    train_flush(&lane->trains, p, b);
    return i;
}

/* Fills the slots, which are used up, from the socket; false when there was nothing. */
static bool refill(struct lane *lane)
{
    lane->slot = lane->slot_offset = 0;
    lane->slot_count = receive_slots(lane->rxq.fd, lane->area, LANE_SLOT_BYTES, lane->slots);
    return lane->slot_count != 0;
}

static void receive_datagram(struct lane *lane, struct breath *b, uint8_t *bytes, uint32_t len,
                             const struct mesh_endpoint *from)
{
    struct mesh_endpoint through;
    struct opened record;
    uint8_t type = len ? bytes[0] : 0;
    if (likely(type == RECORD_DATA)) {
        if (open_record(lane, b, bytes, len, from, &record) && record.ip_bytes != 0)
            merge_record(lane, b, &record);
    } else if (type >= RECORD_INITIATION && type <= RECORD_COOKIE) {
        handshake_receive(lane, b, bytes, len, from);
    } else if (type == RECORD_RELAY) {
        /* Once only: behind a relay header there is none. */
        if (relay_receive(lane, b, bytes, len, from, &through))
            receive_datagram(lane, b, bytes + MESH_RELAY_BYTES, len - MESH_RELAY_BYTES, &through);
    } else {
        port_drop(&lane->mesh->port, b, DROP_BAD_RECORD, 1);
    }
}

/* Opens what the slots hold, until the packets or the burst's bytes are used up. */
static void open_slots(struct lane *lane, struct breath *b)
{
    uint32_t bytes = 0;
    while (lane->slot < lane->slot_count && lane->count < BURST && bytes < RX_BURST_BYTES) {
        const struct receive_slot *slot = &lane->slots[lane->slot];
        uint32_t len = min_u32(slot->stride_bytes, slot->len_bytes - lane->slot_offset);
        uint8_t *datagram = lane->area + lane->slot * LANE_SLOT_BYTES + lane->slot_offset;
        receive_datagram(lane, b, datagram, len, &slot->from);
        bytes += len;
        lane->slot_offset += len;
        if (lane->slot_offset >= slot->len_bytes) {
            lane->slot++;
            lane->slot_offset = 0;
        }
    }
    merge_finish(lane, b);
    train_flush(&lane->relays, &lane->mesh->port, b);
}

static uint32_t lane_burst(struct rxq *q, struct breath *b, struct packet **out, uint32_t max)
{
    struct lane *lane = CONTAINER_OF(q, struct lane, rxq);
    train_flush(&lane->trains, q->port, b);
    train_flush(&lane->relays, q->port, b);
    if (lane->first == lane->count) {
        lane->first = lane->count = 0;
        if (lane->slot == lane->slot_count && !train_pending(&lane->relays))
            refill(lane);
    }
    open_slots(lane, b);
    uint32_t n = min_u32(max, lane->count - lane->first);
    for (uint32_t i = 0; i < n; i++)
        out[i] = &lane->packets[lane->first + i];
    return n;
}

static void lane_done(struct rxq *q, struct breath *b, uint32_t n)
{
    struct lane *lane = CONTAINER_OF(q, struct lane, rxq);
    struct counters *c = port_counters(q->port, b);
    uint64_t bytes = 0, gso = 0;
    ASSERT(n <= lane->count - lane->first);
    for (uint32_t i = 0; i < n; i++) {
        bytes += lane->packets[lane->first + i].len_bytes;
        gso += lane->packets[lane->first + i].gso_type != GSO_NONE;
    }
    counter_add(&c->rx_packets, n);
    counter_add(&c->rx_bytes, bytes);
    counter_add(&c->rx_gso_packets, gso);
    lane->first += n;
}

/* What waits to be sent keeps the lane awake; what came in after the last burst is taken now. */
static bool lane_arm(struct rxq *q)
{
    struct lane *lane = CONTAINER_OF(q, struct lane, rxq);
    if (train_pending(&lane->trains) || train_pending(&lane->relays) ||
        lane->first != lane->count || lane->slot != lane->slot_count)
        return true;
    lane->first = lane->count = 0;
    return refill(lane);
}

static void lane_disarm(struct rxq *q)
{
    (void)q;
}
