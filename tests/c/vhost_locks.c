/* vhost_locks.c - several workers transmit to one guest while its set of rings is swapped.
 *
 * Proves, under ThreadSanitizer: a ring has one writer at a time; what the driver sees as used is
 * written; a set that was replaced is freed only when nobody reads it; a ring may be switched to
 * another call descriptor at any time.
 *
 * Each frame is filled with one byte that its length tells; the driver checks every frame.
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

enum { SENDERS = 3, NUM = 64, BUFFER_BYTES = 2048, MEMORY_BYTES = 1 << 20, FRAMES = 20000 };
#define GPA 0x100000ull
#define USER 0x7000000000ull

static struct port *port;
static struct mem_region *ram;
static uint32_t stop, sent[SENDERS];
static uint64_t epoch[SENDERS]; /* even: outside of transmit */

static struct virtq_avail *avail(void) { return (void *)(ram->base + NUM * 16); }
static struct virtq_used *used(void) { return (void *)(ram->base + 4096); }
static uint8_t *buffer(uint32_t i) { return ram->base + 65536 + (size_t)i * BUFFER_BYTES; }

static uint32_t length_of(uint32_t sender, uint32_t n) { return 60 + sender + n % 200 * 3; }
static uint8_t fill_of(uint32_t length) { return (uint8_t)(length * 37); }

static void *send_frames(void *arg)
{
    uint32_t me = *(uint32_t *)arg;
    static _Alignas(64) uint8_t bytes[SENDERS][1024];
    struct breath b = {.worker = me, .tx_queue = me};
    struct segment seg = {.base = bytes[me]};
    struct packet p, *list = &p;
    while (!load_acquire(&stop)) { /* pairs with main */
        uint32_t length = length_of(me, load_relaxed(&sent[me]));
        memset(&p, 0, sizeof(p));
        memset(bytes[me], fill_of(length), length);
        seg.len_bytes = p.len_bytes = length;
        p.segs = &seg;
        p.segs_count = 1;
        p.head_len = (uint16_t)min_u32(length, HEAD_BYTES);
        memcpy(p.head, bytes[me], p.head_len);
        b.now_ns = clock_now_ns();
        store_release(&epoch[me], epoch[me] + 1); /* pairs with wait_for_senders */
        fence_full();                             /* in transmit before the set is read */
        uint32_t taken = port->tx(port, &b, &list, 1, TX_MAY_WAIT);
        store_release(&epoch[me], epoch[me] + 1); /* pairs with wait_for_senders */
        if (taken == 1)
            store_relaxed(&sent[me], sent[me] + 1);
        else
            sched_yield();
    }
    return NULL;
}

/* Every sender is past the transmit that it was in: what worker_sync() does for workers. */
static void wait_for_senders(void)
{
    fence_full();
    for (uint32_t i = 0; i < SENDERS; i++) {
        uint64_t seen = load_acquire(&epoch[i]); /* pairs with send_frames */
        while (seen % 2 == 1 && load_acquire(&epoch[i]) == seen)
            sched_yield();
    }
}

static void post(uint16_t head)
{
    uint64_t desc[2] = {GPA + (uint64_t)(buffer(head) - ram->base),
                        BUFFER_BYTES | (uint64_t)VIRTQ_DESC_WRITE << 32};
    uint16_t idx = load_relaxed(&avail()->idx);
    memcpy(ram->base + head * 16, desc, sizeof(desc));
    store_relaxed(&avail()->ring[idx % NUM], head);
    store_release(&avail()->idx, (uint16_t)(idx + 1)); /* pairs with virtq_available */
}

/* Takes what came; returns the number of frames. */
static uint32_t receive(uint16_t *seen)
{
    uint32_t frames = 0;
    uint16_t idx = load_acquire(&used()->idx); /* pairs with virtq_publish */
    for (; *seen != idx; ++*seen, frames++) {
        uint32_t head = load_relaxed(&used()->ring[*seen % NUM].id);
        uint32_t length = load_relaxed(&used()->ring[*seen % NUM].len) - 12;
        CHECK(head < NUM && length < 1024);
        for (uint32_t i = 0; i < length; i++)
            CHECK(buffer(head)[12 + i] == fill_of(length));
        post((uint16_t)head);
    }
    return frames;
}

static struct vhost_queue *ring_start(struct mem_table *t, int call_fd)
{
    struct vhost_queue *q;
    struct vhost_ring ring = {.features = VNET_F_VERSION_1 | VNET_F_MRG_RXBUF,
                              .desc = USER,
                              .avail = USER + NUM * 16,
                              .used = USER + 4096,
                              .num = NUM,
                              .role = VHOST_ROLE_RX,
                              .kick_fd = -1,
                              .call_fd = call_fd,
                              .enabled = 1};
    CHECK(vhost_queue_start(port, t, &ring, &q) == 0);
    return q;
}

int main(void)
{
    pthread_t threads[SENDERS];
    uint32_t numbers[SENDERS], frames = 0, swaps = 0;
    uint16_t seen = 0;
    int fd = memfd_create("guest", MFD_CLOEXEC);
    int calls[2] = {eventfd(0, EFD_NONBLOCK), eventfd(0, EFD_NONBLOCK)};
    struct mem_table *t = mem_table_new();
    port = vhost_port_new(1);
    CHECK(fd >= 0 && ftruncate(fd, MEMORY_BYTES) == 0);
    CHECK(mem_region_map(port, fd, GPA, MEMORY_BYTES, USER, 0, &ram) == 0);
    CHECK(mem_table_set(t, &ram, 1) == 0);
    for (uint16_t i = 0; i < NUM; i++)
        post(i);
    struct vhost_queue *q = ring_start(t, calls[0]);
    CHECK(vhost_port_set_tx(port, &q, 1) == 0);
    for (uint32_t i = 0; i < SENDERS; i++) {
        numbers[i] = i;
        CHECK(pthread_create(&threads[i], NULL, send_frames, &numbers[i]) == 0);
    }
    while (frames < FRAMES) {
        uint32_t n = receive(&seen);
        frames += n;
        if (n == 0)
            sched_yield();
        if (frames / 500 == swaps)
            continue;
        swaps = frames / 500;
        vhost_queue_set_call(q, calls[swaps % 2]);
        if (swaps % 4 == 0) { /* out of service, freed, and a new one in its place */
            CHECK(vhost_port_set_tx(port, NULL, 0) == 0);
            wait_for_senders();
            vhost_port_reap(port);
            vhost_queue_free(q);
            q = ring_start(t, calls[0]);
        }
        CHECK(vhost_port_set_tx(port, &q, 1) == 0);
        wait_for_senders();
        vhost_port_reap(port);
    }
    store_release(&stop, 1); /* pairs with send_frames */
    for (uint32_t i = 0; i < SENDERS; i++)
        pthread_join(threads[i], NULL);
    frames += receive(&seen);
    CHECK(!virtq_broken(&q->vq));
    printf("%u frames received over %u swaps\n", frames, swaps);
    vhost_queue_free(q);
    vhost_port_free(port);
    mem_table_free(t);
    mem_region_unmap(ram);
    return 0;
}
