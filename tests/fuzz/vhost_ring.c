/* vhost_ring.c - a hostile guest: whatever it writes into its rings, also while they are read.
 *
 * Invariant tested: every packet that comes out lies in the guest's memory, is as long as it says
 * and has offload fields that fit its headers; transmit takes every packet; a ring that breaks says
 * why and stays broken; nothing outside of the guest's memory is read or written (ASan).
 *
 * Input: byte 0: features (bits 0 to 3), second thread on (bit 4); then operations:
 *     0 ring index u16:place u16:len flags next    a descriptor; place: see address_of()
 *     1 ring head                                  offer a chain
 *     2 n - u16:offset bytes…                      bytes into memory
 *     3                                            burst, transmit, done
 *     4 ring - u16:idx                             set avail->idx
 *     5 ring - u16:flags u16:event                 what the driver wants to be told
 */
#define _GNU_SOURCE /* memfd_create */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vhost/core/vhost_port.h"

#define CHECK(x) ((x) ? (void)0 : (fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x), abort()))

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { NUM = 16, REGION_BYTES = 65536, RING_BYTES = 1024, MUTATED_BYTES = 8192 };
enum { RX_RING, TX_RING, CONTROL_RING, RINGS };
#define FIRST_GPA 0x10000ull
#define SECOND_GPA (FIRST_GPA + REGION_BYTES) /* follows at once: buffers may cross */
#define USER 0x7000000000ull

/* Two guests in league: they share their memory, so a frame may be copied onto itself. */
static struct port *port, *receiver;
static struct mem_region *first, *regions[2], *receiver_regions[2];
static struct mem_table *mem, *receiver_mem;
static struct breath breath;
static uint32_t mutating, mutations;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
static uint16_t avail_idx[RINGS];

static uint8_t *desc_of(uint32_t ring) { return first->base + ring * RING_BYTES; }
static uint8_t *avail_of(uint32_t ring) { return desc_of(ring) + NUM * 16; }
static uint8_t *used_of(uint32_t ring) { return desc_of(ring) + 512; }

/* The other CPU of the guest: turns bytes of rings and headers over, in no order. */
static void *mutate(void *arg)
{
    uint32_t seed = 1;
    (void)arg;
    for (;;) {
        if (!load_acquire(&mutating)) { /* pairs with LLVMFuzzerTestOneInput */
            pthread_mutex_lock(&lock);
            while (!load_relaxed(&mutating))
                pthread_cond_wait(&wake, &lock);
            pthread_mutex_unlock(&lock);
        }
        seed = seed * 1664525 + 1013904223;
        store_relaxed(&first->base[(seed >> 8) % MUTATED_BYTES], (uint8_t)(seed >> 24));
        store_relaxed(&mutations, mutations + 1);
    }
    return NULL;
}

/* One mapping for each guest; returns the sender's. */
static struct mem_region *region_new(uint64_t gpa)
{
    static uint32_t count;
    struct mem_region *r, *other;
    int fd = memfd_create("guest", MFD_CLOEXEC);
    CHECK(fd >= 0 && ftruncate(fd, REGION_BYTES) == 0);
    CHECK(mem_region_map(port, fd, gpa, REGION_BYTES, USER + gpa, 0, &r) == 0);
    CHECK(mem_region_map(receiver, fd, gpa, REGION_BYTES, USER + gpa, 0, &other) == 0);
    regions[count] = r;
    receiver_regions[count++] = other;
    CHECK(mem_table_set(mem, regions, count) == 0);
    CHECK(mem_table_set(receiver_mem, receiver_regions, count) == 0);
    close(fd);
    return r;
}

static void set_up(void)
{
    static struct packet packets[BURST];
    static struct segment segs[SEGMENT_POOL];
    pthread_t thread;
    port = vhost_port_new(1);
    receiver = vhost_port_new(2);
    mem = mem_table_new();
    receiver_mem = mem_table_new();
    CHECK(port != NULL && receiver != NULL && mem != NULL && receiver_mem != NULL);
    first = region_new(FIRST_GPA);
    region_new(SECOND_GPA);
    breath.packets = packets;
    breath.segs = segs;
    breath.now_ns = 1;
    CHECK(pthread_create(&thread, NULL, mutate, NULL) == 0);
}

/* Ends of regions, their border, nowhere, near wrapping: where mistakes are. */
static uint64_t address_of(uint16_t place)
{
    uint64_t low = place & 0xfff;
    switch (place >> 12) {
    case 0: return SECOND_GPA - 1 - low;
    case 1: return SECOND_GPA + REGION_BYTES - 1 - low;
    case 2: return FIRST_GPA - low;
    case 3: return 0 - low;
    case 4: return FIRST_GPA + low; /* the rings themselves */
    case 5: return low << 32;
    default: return FIRST_GPA + MUTATED_BYTES + (uint64_t)(place >> 12) * 4096 + low;
    }
}

static struct vhost_queue *start(uint32_t ring, uint64_t features)
{
    struct vhost_queue *q;
    struct vhost_ring r = {.features = features,
                           .desc = USER + FIRST_GPA + (uint64_t)(desc_of(ring) - first->base),
                           .avail = USER + FIRST_GPA + (uint64_t)(avail_of(ring) - first->base),
                           .used = USER + FIRST_GPA + (uint64_t)(used_of(ring) - first->base),
                           .num = NUM,
                           .role = ring,
                           .kick_fd = -1,
                           .call_fd = -1,
                           .enabled = 1,
                           .index = ring};
    bool rx = ring == RX_RING;
    CHECK(vhost_queue_start(rx ? receiver : port, rx ? receiver_mem : mem, &r, &q) == 0);
    avail_idx[ring] = 0;
    return q;
}

static bool in_memory(const struct segment *s)
{
    for (uint32_t i = 0; i < mem->list->count; i++) {
        const struct mem_entry *r = &mem->list->entries[i];
        if (s->base >= r->base && s->base + s->len_bytes <= r->base + r->size_bytes)
            return true;
    }
    return false;
}

static void check_packet(struct packet *p)
{
    uint64_t sum = 0;
    CHECK(p->segs_count >= 1 && p->segs_count <= MAX_SEGMENTS && p->len_bytes <= MAX_FRAME_BYTES);
    CHECK(p->head_len == min_u32(p->len_bytes, HEAD_BYTES) && p->len_bytes >= 14);
    for (uint32_t i = 0; i < p->segs_count; i++) {
        CHECK(in_memory(&p->segs[i]));
        sum += p->segs[i].len_bytes;
    }
    CHECK(sum == p->len_bytes);
    CHECK(p->flags == 0 || pkt_offload_ok(p)); /* of head, which is ours: mutation or not */
}

static void move(struct vhost_queue **queues)
{
    struct packet *out[BURST];
    struct rxq *tx = vhost_queue_rxq(queues[TX_RING]);
    struct rxq *control = vhost_queue_rxq(queues[CONTROL_RING]);
    breath.now_ns += 60 * NS_PER_US;
    uint32_t n = tx->burst(tx, &breath, out, BURST);
    CHECK(n <= BURST && !(n > 0 && virtq_broken(&queues[TX_RING]->vq) && n > NUM));
    for (uint32_t i = 0; i < n; i++)
        check_packet(out[i]);
    uint32_t taken = receiver->tx(receiver, &breath, out, n, breath.now_ns & 1 ? TX_MAY_WAIT : 0);
    CHECK(taken <= n && ((breath.now_ns & 1) || taken == n));
    tx->done(tx, &breath, taken);
    CHECK(control->burst(control, &breath, out, BURST) == 0);
    if (tx->arm(tx))
        tx->disarm(tx);
}

/* One operation; returns the bytes it took. */
static size_t operate(const uint8_t *d, size_t size, struct vhost_queue **queues)
{
    uint32_t ring = size > 1 ? d[1] % RINGS : 0;
    uint16_t a = 0, b = 0;
    if (size >= 5)
        memcpy(&a, d + 3, 2);
    if (size >= 7)
        memcpy(&b, d + 5, 2);
    switch (d[0] % 6) {
    case 0:
        if (size < 9)
            return size;
        uint64_t half[2] = {address_of(a), b | (uint64_t)(d[7] & 7) << 32 | (uint64_t)d[8] << 48};
        memcpy(desc_of(ring) + (d[2] % NUM) * 16, half, sizeof(half));
        return 9;
    case 1:
        if (size < 3)
            return size;
        a = d[2];
        memcpy(avail_of(ring) + 4 + (avail_idx[ring]++ % NUM) * 2, &a, 2);
        /* pairs with virtq_available */
        store_release((uint16_t *)(void *)(avail_of(ring) + 2), avail_idx[ring]);
        return 3;
    case 2: {
        size_t n = size > 4 ? min_u32(d[1], (uint32_t)size - 5) : 0;
        if (n > 0)
            memcpy(first->base + a % (REGION_BYTES - 256), d + 5, n);
        return size > 4 ? 5 + n : size;
    }
    case 3:
        move(queues);
        return 1;
    case 4:
        avail_idx[ring] = a;
        memcpy(avail_of(ring) + 2, &a, 2);
        return 5;
    default:
        memcpy(avail_of(ring), &a, 2);
        memcpy(avail_of(ring) + 4 + NUM * 2, &b, 2);
        return 7;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint64_t bits[] = {VIRTQ_F_INDIRECT_DESC, VIRTQ_F_EVENT_IDX,
                                    VNET_F_MRG_RXBUF | VNET_F_VERSION_1,
                                    VNET_F_GUEST_CSUM | VNET_F_GUEST_TSO4 | VNET_F_GUEST_TSO6 |
                                        VNET_F_GUEST_USO4 | VNET_F_GUEST_USO6};
    struct vhost_queue *queues[RINGS];
    uint64_t features = 0;
    if (port == NULL)
        set_up();
    if (size == 0)
        return 0;
    for (uint32_t i = 0; i < ARRAY_LEN(bits); i++)
        features |= data[0] >> i & 1 ? bits[i] : 0;
    memset(first->base, 0, MUTATED_BYTES);
    for (uint32_t ring = 0; ring < RINGS; ring++)
        queues[ring] = start(ring, features);
    CHECK(vhost_port_set_tx(receiver, queues, 1) == 0);
    uint32_t before = load_relaxed(&mutations);
    if (data[0] >> 4 & 1) {
        pthread_mutex_lock(&lock);
        store_release(&mutating, 1); /* pairs with mutate */
        pthread_cond_signal(&wake);
        pthread_mutex_unlock(&lock);
    }
    for (size_t at = 1; at < size;)
        at += operate(data + at, size - at, queues);
    move(queues);
    if (load_relaxed(&mutating) && load_relaxed(&mutations) == before)
        sched_yield();
    move(queues);
    store_release(&mutating, 0); /* pairs with mutate */
    CHECK(vhost_port_set_tx(receiver, NULL, 0) == 0);
    vhost_port_reap(receiver);
    for (uint32_t ring = 0; ring < RINGS; ring++)
        vhost_queue_free(queues[ring]);
    return 0;
}
