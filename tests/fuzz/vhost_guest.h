/* vhost_guest.h - two guests in league, who share their memory, and the drivers of their rings.
 *
 * Behind each region lie poisoned bytes, and a ring's part may end where those begin.
 */
#ifndef VHOST_GUEST_H
#define VHOST_GUEST_H

#include <sanitizer/asan_interface.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vhost/core/vhost_port.h"

/* Not what is tested: vhost_changes.h is not told of its loads. */
#define UNTRACED __attribute__((no_sanitize("coverage")))
#define CHECK(x) ((x) ? (void)0 : (fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x), abort()))

enum { MAX_NUM = 16, MAP_BYTES = 65536, REGION_BYTES = MAP_BYTES - 1024, RING_BYTES = 1024 };
enum { MUTATED_BYTES = 8192, REGIONS = 2, GUESTS = 2, LOG_BYTES = 5, LOG_OFFSET = 8 };
enum { RX_RING, TX_RING, CONTROL_RING, RINGS };
enum { DESC, AVAIL, USED, PARTS };
#define FIRST_GPA 0x10000ull
#define SECOND_GPA (FIRST_GPA + REGION_BYTES) /* follows at once: buffers may cross */
#define END_GPA (SECOND_GPA + REGION_BYTES)
#define USER 0x7000000000ull

/* The driver's side of a ring. */
struct ring {
    uint64_t gpa[PARTS];
    uint8_t *part[PARTS];
    uint32_t num;
    uint16_t avail_idx;      /* split */
    uint16_t at;             /* packed: next slot to offer, wrap counter as bit 15 */
    struct vhost_ring_state state;
    struct vhost_queue *queue;
};

/* Two guests in league: they share their memory, so a frame may be copied onto itself. */
static struct port *port, *receiver;
static struct mem_region *first, *second, *regions[GUESTS][REGIONS];
static struct mem_table *mem, *receiver_mem;
static struct dirty_log *logs[GUESTS];
static struct breath breath;
static struct ring rings[RINGS];
static uint64_t features;

static bool is_packed(void) { return (features & VIRTQ_F_RING_PACKED) != 0; }

UNTRACED static bool is_inside(const uint8_t *base, uint64_t len_bytes)
{
    for (uint32_t i = 0; i < GUESTS * REGIONS; i++) {
        const struct mem_region *r = regions[i / REGIONS][i % REGIONS];
        if (base >= r->base && base + len_bytes <= r->base + r->size_bytes)
            return true;
    }
    return false;
}

/* One mapping for each guest; returns the sender's. */
static struct mem_region *region_new(uint64_t gpa)
{
    static uint32_t count;
    struct port *const ports[GUESTS] = {port, receiver};
    struct mem_table *const tables[GUESTS] = {mem, receiver_mem};
    int fd = memfd_create("guest", MFD_CLOEXEC);
    CHECK(fd >= 0 && ftruncate(fd, MAP_BYTES) == 0);
    count++;
    for (uint32_t i = 0; i < GUESTS; i++) {
        struct mem_region *r;
        CHECK(mem_region_map(ports[i], fd, gpa, REGION_BYTES, USER + gpa, 0, &r) == 0);
        ASAN_POISON_MEMORY_REGION(r->base + REGION_BYTES, MAP_BYTES - REGION_BYTES);
        regions[i][count - 1] = r;
        CHECK(mem_table_set(tables[i], regions[i], count) == 0);
    }
    close(fd);
    return regions[0][count - 1];
}

/* A log too short for the second region's last pages, and poisoned behind its end. */
static void log_new(uint32_t guest)
{
    struct port *const ports[GUESTS] = {port, receiver};
    int fd = memfd_create("log", MFD_CLOEXEC);
    CHECK(fd >= 0 && ftruncate(fd, MAP_BYTES) == 0);
    CHECK(dirty_log_new(ports[guest], fd, LOG_BYTES, LOG_OFFSET, &logs[guest]) == 0);
    ASAN_POISON_MEMORY_REGION(logs[guest]->bits + LOG_BYTES, 4096 - LOG_BYTES - LOG_OFFSET);
    close(fd);
}

static void set_up(void)
{
    static struct packet packets[BURST];
    static struct segment segs[SEGMENT_POOL];
    port = vhost_port_new(1);
    receiver = vhost_port_new(2);
    mem = mem_table_new();
    receiver_mem = mem_table_new();
    CHECK(port != NULL && receiver != NULL && mem != NULL && receiver_mem != NULL);
    first = region_new(FIRST_GPA);
    second = region_new(SECOND_GPA);
    log_new(0);
    log_new(1);
    breath.packets = packets;
    breath.segs = segs;
    breath.now_ns = 1;
}

/* Ends of regions, their border, nowhere, near wrapping: where mistakes are. */
static uint64_t address_of(uint16_t place)
{
    uint64_t low = place & 0xfff;
    switch (place >> 12) {
    case 0: return SECOND_GPA - 1 - low;
    case 1: return END_GPA - 1 - low;
    case 2: return FIRST_GPA - low;
    case 3: return 0 - low;
    case 4: return FIRST_GPA + low; /* the rings themselves */
    case 5: return low << 32;
    default: return FIRST_GPA + MUTATED_BYTES + (uint64_t)(place >> 12) * 3072 + low;
    }
}

static uint32_t part_bytes(uint32_t part, uint32_t num)
{
    const uint32_t split[] = {num * 16, 6 + num * 2, 6 + num * 8}, packed[] = {num * 16, 4, 4};
    return is_packed() ? packed[part] : split[part];
}

/* Lays the rings out: in a row, but one part of one ring at the very end of memory. */
static void rings_place(uint8_t small, uint8_t layout)
{
    static const uint8_t any[] = {1, 2, 3, 4, 5, 7, 8, 16}, powers[] = {1, 2, 4, 8, 16, 16, 16, 16};
    static const uint32_t align[] = {16, 2, 4};
    const uint8_t *nums = is_packed() ? any : powers;
    for (uint32_t ring = 0; ring < RINGS; ring++) {
        struct ring *r = &rings[ring];
        r->num = small ? nums[(layout >> 4 & 7) + 0u] : MAX_NUM;
        r->avail_idx = 0;
        r->at = PACKED_WRAP;
        for (uint32_t part = 0; part < PARTS; part++) {
            uint32_t offset = ring * RING_BYTES + part * 256;
            r->gpa[part] = FIRST_GPA + offset;
            r->part[part] = first->base + offset;
            if ((layout & 15u) == 1 + ring * PARTS + part) {
                uint32_t to = is_packed() && part != DESC ? 4 : align[part];
                offset = (REGION_BYTES - part_bytes(part, r->num)) / to * to;
                r->gpa[part] = SECOND_GPA + offset;
                r->part[part] = second->base + offset;
            }
        }
    }
}

static void start(uint32_t ring, uint32_t base, bool resume)
{
    struct ring *r = &rings[ring];
    struct vhost_ring told = {.features = features,
                              .desc = USER + r->gpa[DESC],
                              .avail = USER + r->gpa[AVAIL],
                              .used = USER + r->gpa[USED],
                              .num = r->num,
                              .role = ring,
                              .kick_fd = -1,
                              .call_fd = -1,
                              .enabled = 1,
                              .index = ring,
                              .state = &r->state,
                              .base = base,
                              .told = base,
                              .resume = resume,
                              .log = logs[ring == RX_RING],
                              .log_gpa = r->gpa[USED],
                              .log_used = 1};
    bool rx = ring == RX_RING;
    CHECK(vhost_queue_start(rx ? receiver : port, rx ? receiver_mem : mem, &told, &r->queue) == 0);
    if (rx)
        CHECK(vhost_port_set_tx(receiver, &r->queue, 1) == 0);
}

static void stop(uint32_t ring)
{
    if (ring == RX_RING)
        CHECK(vhost_port_set_tx(receiver, NULL, 0) == 0);
    vhost_port_reap(receiver);
    vhost_queue_free(rings[ring].queue);
}

/* Flags of a packed ring's descriptor, those of its turn replaced. */
static void set_turn(const struct ring *r, uint16_t at, uint16_t turn)
{
    uint16_t *flags = (uint16_t *)(void *)(r->part[DESC] + (at & PACKED_SLOT) * 16u + 14);
    uint16_t others = (uint16_t)(*flags & ~(PACKED_AVAIL | PACKED_USED));
    store_release(flags, (uint16_t)(others | turn)); /* pairs with packed_desc_at */
}

static void offer(struct ring *r, uint16_t head, uint32_t n)
{
    if (!is_packed()) {
        memcpy(r->part[AVAIL] + 4 + r->avail_idx++ % r->num * 2, &head, 2);
        /* pairs with split_available */
        store_release((uint16_t *)(void *)(r->part[AVAIL] + 2), r->avail_idx);
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        set_turn(r, r->at, r->at & PACKED_WRAP ? PACKED_AVAIL : PACKED_USED);
        bool last = (r->at & PACKED_SLOT) + 1u == r->num;
        r->at = last ? (uint16_t)((r->at & PACKED_WRAP) ^ PACKED_WRAP) : (uint16_t)(r->at + 1);
    }
}

static void describe(const struct ring *r, const uint8_t *d, uint64_t address, uint16_t len)
{
    uint64_t flags = d[7] & 7, last = d[8];
    uint8_t *to = r->part[DESC] + d[2] % r->num * 16u;
    uint64_t half[2] = {address, len | flags << 32 | last << 48};
    if (is_packed()) /* the turn stays as it is */
        half[1] = len | last << 32 | (flags | (uint64_t)to[14] | (uint64_t)to[15] << 8) << 48;
    memcpy(to, half, sizeof(half));
}

#endif
