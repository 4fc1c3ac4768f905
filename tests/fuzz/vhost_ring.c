/* vhost_ring.c - a hostile guest: whatever it writes into its rings, also while they are read.
 *
 * Invariant tested: every packet that comes out lies in the guest's memory, is as long as it says
 * and has offload fields that fit its headers; transmit takes every packet; a ring that breaks says
 * why and stays broken, one that does not stays within itself; nothing outside of the guest's
 * memory is read or written (ASan).  Behind each region lie poisoned bytes, and rings end where
 * those begin.
 *
 * Input: byte 0: features, see `bits` (0 to 6), small rings (7);
 * byte 1: which part of which ring lies at the end of memory (0 to 3), the rings' size (4 to 6),
 * second thread on, with bit 6 of byte 0 (7);
 * then operations, each with a ring in its second byte:
 *     0 ring slot u16:place u16:len flags next  a descriptor; place: see address_of()
 *     1 ring head n                              offer a chain; packed: the next n descriptors
 *     2 n - u16:offset bytes…                    bytes into memory
 *     3                                          burst, transmit, done
 *     4 ring slot u16:value                      set avail->idx; packed: flags of a descriptor
 *     5 ring - u16:flags u16:event               what the driver wants to be told
 *     6 ring how u16:base n bytes…               start again; packed: from base, from what it kept
 *                                                (how & 1; base: what the front-end says of it),
 *                                                or from that with these bytes in it
 *     7 ring on                                  enable or disable
 *     8 bits at n                                the guest changes what the n-th load of its
 *                                                memory from now on reads, right before it: the
 *                                                byte `at`, or whose turn a descriptor is (bits 0)
 *
 * The last one is the double fetch in its purest form, and the same every time: the compiler calls
 * us before every load (-fsanitize-coverage=trace-loads).  The thread does what no one thought of.
 */
#define _GNU_SOURCE /* memfd_create */
#include "tests/fuzz/vhost_changes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_packet(struct packet *p)
{
    uint64_t sum = 0;
    CHECK(p->segs_count >= 1 && p->segs_count <= MAX_SEGMENTS && p->len_bytes <= MAX_FRAME_BYTES);
    CHECK(p->head_len == min_u32(p->len_bytes, HEAD_BYTES) && p->len_bytes >= 14);
    for (uint32_t i = 0; i < p->segs_count; i++) {
        CHECK(is_inside(p->segs[i].base, p->segs[i].len_bytes));
        sum += p->segs[i].len_bytes;
    }
    CHECK(sum == p->len_bytes);
    CHECK(p->flags == 0 || pkt_offload_ok(p)); /* of head, which is ours: mutation or not */
}

/* Where each ring stands is in it, whatever the driver did. */
static void check_ring(const struct ring *r)
{
    const struct virtq *q = &r->queue->vq;
    CHECK(load_relaxed(&q->reason) < VIRTQ_REASONS);
    if (!is_packed())
        return;
    CHECK((q->next & PACKED_SLOT) < r->num && q->pending == 0);
    CHECK(r->state.count == 0 && r->state.position == q->next);
}

static void move(void)
{
    struct packet *out[BURST];
    struct rxq *tx = vhost_queue_rxq(rings[TX_RING].queue);
    struct rxq *control = vhost_queue_rxq(rings[CONTROL_RING].queue);
    breath.now_ns += 60 * NS_PER_US;
    uint32_t n = tx->burst(tx, &breath, out, BURST);
    CHECK(n <= BURST && n <= rings[TX_RING].num);
    for (uint32_t i = 0; i < n; i++)
        check_packet(out[i]);
    uint32_t taken = receiver->tx(receiver, &breath, out, n, breath.now_ns & 1 ? TX_MAY_WAIT : 0);
    CHECK(taken <= n && ((breath.now_ns & 1) || taken == n));
    breath.now_ns++;
    tx->done(tx, &breath, taken);
    CHECK(control->burst(control, &breath, out, BURST) == 0);
    if (tx->arm(tx))
        tx->disarm(tx);
    for (uint32_t ring = 0; ring < RINGS; ring++)
        check_ring(&rings[ring]);
}

/* Starts a ring again, as after a restart of the switch; returns the bytes it used. */
static size_t again(uint32_t ring, uint8_t how, uint16_t base, const uint8_t *bytes, size_t size)
{
    struct ring *r = &rings[ring];
    size_t n = 0;
    stop(ring);
    if (how & 2 && size > 1) {
        n = min_u32(bytes[0], (uint32_t)size - 1);
        memcpy((uint8_t *)&r->state + (how >> 2), bytes + 1, n);
        n++;
    }
    base = (uint16_t)((base & PACKED_SLOT) % r->num | (base & PACKED_WRAP));
    start(ring, base, how & 1);
    if (!(how & 1))
        r->at = base;
    r->avail_idx = r->queue->vq.next;
    return n;
}

/* One operation; returns the bytes it took. */
static size_t operate(const uint8_t *d, size_t size)
{
    static const size_t needs[] = {9, 4, 5, 1, 5, 7, 5, 3, 4};
    uint32_t ring = size > 1 ? d[1] % RINGS : 0;
    struct ring *r = &rings[ring];
    uint16_t a = 0, b = 0;
    if (size < needs[d[0] % 9])
        return size;
    if (size >= 5)
        memcpy(&a, d + 3, 2);
    if (size >= 7)
        memcpy(&b, d + 5, 2);
    switch (d[0] % 9) {
    case 0:
        describe(r, d, address_of(a), b);
        break;
    case 1:
        offer(r, d[2], d[3] % 8);
        break;
    case 2: {
        size_t n = min_u32(d[1], (uint32_t)size - 5);
        memcpy(first->base + a % (REGION_BYTES - 256), d + 5, n);
        return 5 + n;
    }
    case 3:
        move();
        break;
    case 4:
        if (is_packed())
            set_turn(r, d[2] % r->num, a & (PACKED_AVAIL | PACKED_USED));
        else
            memcpy(r->part[AVAIL] + 2, &a, 2);
        r->avail_idx = a;
        break;
    case 5:
        memcpy(r->part[AVAIL], &a, 2);
        memcpy(r->part[AVAIL] + (is_packed() ? 2 : 4 + r->num * 2), &b, 2);
        break;
    case 6:
        return 5 + again(ring, d[2], a, d + 5, size - 5);
    case 7:
        vhost_queue_enable(r->queue, d[2] & 1);
        break;
    default:
        change_later(d[1], d[2], d[3]);
        break;
    }
    return needs[d[0] % 9];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint64_t bits[] = {VIRTQ_F_INDIRECT_DESC, VIRTQ_F_EVENT_IDX,
                                    VNET_F_MRG_RXBUF | VNET_F_VERSION_1,
                                    VNET_F_GUEST_CSUM | VNET_F_GUEST_TSO4 | VNET_F_GUEST_TSO6 |
                                        VNET_F_GUEST_USO4 | VNET_F_GUEST_USO6,
                                    VIRTQ_F_RING_PACKED, VIRTQ_F_IN_ORDER, VIRTQ_F_LOG_ALL};
    if (port == NULL) {
        set_up();
        rings_place(0, 0); /* of what the thread may look at once it runs */
        thread_start();
    }
    if (size < 2)
        return 0;
    memset(changes, 0, sizeof(changes));
    features = 0;
    for (uint32_t i = 0; i < ARRAY_LEN(bits); i++)
        features |= data[0] >> i & 1 ? bits[i] : 0;
    memset(first->base, 0, MUTATED_BYTES);
    memset(second->base + REGION_BYTES - RING_BYTES, 0, RING_BYTES);
    rings_place(data[0] >> 7, data[1]);
    for (uint32_t ring = 0; ring < RINGS; ring++)
        start(ring, PACKED_WRAP, false);
    uint32_t before = load_relaxed(&mutations);
    if (data[0] >> 6 & data[1] >> 7 & 1)
        thread_begin();
    for (size_t at = 2; at < size;)
        at += operate(data + at, size - at);
    move();
    if (load_relaxed(&mutating) && load_relaxed(&mutations) == before)
        sched_yield();
    move();
    thread_end();
    for (uint32_t ring = 0; ring < RINGS; ring++)
        stop(ring);
    return 0;
}
