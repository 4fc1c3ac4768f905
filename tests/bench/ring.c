/* ring.c - see ring.h */
#include "tests/bench/ring.h"

#include <time.h>
#include <unistd.h>

static uint16_t *avail_word(const struct ring *r, uint32_t at) { return (uint16_t *)r->avail + at; }
static uint16_t *used_word(const struct ring *r, uint32_t at) { return (uint16_t *)r->used + at; }
static uint16_t *packed_flags(const struct ring *r, uint32_t slot)
{
    return (uint16_t *)(r->desc + (uint64_t)slot * DESC_BYTES + 14);
}

static void describe(uint8_t *desc, uint64_t gpa, uint32_t len_bytes, uint16_t low, uint16_t high)
{
    memcpy(desc, &gpa, 8);
    memcpy(desc + 8, &len_bytes, 4);
    memcpy(desc + 12, &low, 2);
    memcpy(desc + 14, &high, 2);
}

/* Bytes of the i-th piece of a frame: a small one for the headers, then equal ones. */
static uint32_t piece_bytes(const struct ring *r, uint32_t i, uint32_t len_bytes)
{
    if (r->pieces == 1)
        return len_bytes;
    if (i == 0)
        return HEAD_PIECE_BYTES;
    uint32_t rest = len_bytes - HEAD_PIECE_BYTES, each = rest / (r->pieces - 1);
    return i == r->pieces - 1 ? rest - each * (r->pieces - 2) : each;
}

static void add_split(struct ring *r, uint32_t place, uint32_t len_bytes, uint16_t flags)
{
    uint32_t head = place * r->pieces;
    uint64_t gpa = r->buffers_gpa + (uint64_t)place * r->stride_bytes;
    for (uint32_t i = 0; i < r->pieces; i++) {
        bool last = i == r->pieces - 1;
        uint32_t n = piece_bytes(r, i, len_bytes);
        describe(r->desc + (uint64_t)(head + i) * DESC_BYTES, gpa, n,
                 (uint16_t)(flags | (last ? 0 : DESC_NEXT)), (uint16_t)(last ? 0 : head + i + 1));
        gpa += n;
    }
    *avail_word(r, 2 + r->next++ % r->num) = (uint16_t)head;
}

/* The flags of a batch's first descriptor are written last: they make all of it visible. */
static void add_packed(struct ring *r, uint32_t place, uint32_t len_bytes, uint16_t flags)
{
    uint64_t gpa = r->buffers_gpa + (uint64_t)place * r->stride_bytes;
    for (uint32_t i = 0; i < r->pieces; i++) {
        uint32_t n = piece_bytes(r, i, len_bytes);
        uint16_t mark = r->wrap ? PACKED_AVAIL : PACKED_USED;
        uint16_t all = (uint16_t)(flags | mark | (i == r->pieces - 1 ? 0 : DESC_NEXT));
        uint8_t *desc = r->desc + (uint64_t)r->next * DESC_BYTES;
        memcpy(desc, &gpa, 8);
        memcpy(desc + 8, &n, 4);
        *(uint16_t *)(desc + 12) = (uint16_t)place;
        if (!r->pending_any) {
            r->pending_any = 1;
            r->pending = r->next;
            r->pending_flags = all;
        } else {
            __atomic_store_n(packed_flags(r, r->next), all, __ATOMIC_RELEASE);
        }
        if (++r->next == r->num) {
            r->next = 0;
            r->wrap ^= 1;
        }
        gpa += n;
    }
}

void ring_add(struct ring *r, uint32_t place, uint32_t len_bytes, bool write)
{
    r->in_flight++;
    if (r->packed)
        add_packed(r, place, len_bytes, write ? DESC_WRITE : 0);
    else
        add_split(r, place, len_bytes, write ? DESC_WRITE : 0);
}

static bool wants_kick(const struct ring *r)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* what was added is seen before we look, 2.7.13.3.1 */
    if (r->packed)
        return (__atomic_load_n(used_word(r, 1), __ATOMIC_RELAXED) & 3) != 1;
    return (__atomic_load_n(used_word(r, 0), __ATOMIC_RELAXED) & 1) == 0;
}

void ring_publish(struct ring *r)
{
    uint64_t one = 1;
    if (!r->packed) {
        __atomic_store_n(avail_word(r, 1), r->next, __ATOMIC_RELEASE);
    } else if (r->pending_any) {
        __atomic_store_n(packed_flags(r, r->pending), r->pending_flags, __ATOMIC_RELEASE);
        r->pending_any = 0;
    }
    if (wants_kick(r)) {
        r->kicks++;
        if (write(r->kick_fd, &one, sizeof(one)) < 0)
            return; /* the counter is full: the device is awake */
    }
}

static bool used_at(const struct ring *r, uint32_t slot, uint16_t wrap)
{
    uint16_t flags = __atomic_load_n(packed_flags(r, slot), __ATOMIC_ACQUIRE);
    return !!(flags & PACKED_AVAIL) == wrap && !!(flags & PACKED_USED) == wrap;
}

bool ring_has(const struct ring *r, uint32_t count)
{
    if (!r->packed)
        return (uint16_t)(__atomic_load_n(used_word(r, 1), __ATOMIC_ACQUIRE) - r->seen) >= count;
    uint32_t at = r->seen + (count - 1) * r->pieces;
    return at < r->num ? used_at(r, at, r->seen_wrap) : used_at(r, at - r->num, r->seen_wrap ^ 1);
}

bool ring_take(struct ring *r, struct used *out)
{
    if (!ring_has(r, 1))
        return false;
    r->in_flight--;
    if (!r->packed) {
        uint32_t entry[2];
        memcpy(entry, r->used + 4 + (uint64_t)(r->seen++ % r->num) * 8, sizeof(entry));
        *out = (struct used){.place = entry[0] / r->pieces, .len_bytes = entry[1]};
        return true;
    }
    const uint8_t *desc = r->desc + (uint64_t)r->seen * DESC_BYTES;
    out->place = *(const uint16_t *)(desc + 12);
    memcpy(&out->len_bytes, desc + 8, 4);
    r->seen = (uint16_t)(r->seen + r->pieces);
    if (r->seen >= r->num) {
        r->seen = (uint16_t)(r->seen - r->num);
        r->seen_wrap ^= 1;
    }
    return true;
}

void ring_offer_all(struct ring *r)
{
    for (uint32_t i = 0; i < r->frames; i++)
        ring_add(r, i, r->stride_bytes, true);
    ring_publish(r);
}

uint64_t tsc_per_second(void)
{
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    uint64_t begun = tsc();
    do {
        clock_gettime(CLOCK_MONOTONIC, &to);
    } while ((to.tv_sec - from.tv_sec) * 1000000000ll + to.tv_nsec - from.tv_nsec < 50000000);
    uint64_t cycles = tsc() - begun;
    uint64_t ns = (uint64_t)((to.tv_sec - from.tv_sec) * 1000000000ll + to.tv_nsec - from.tv_nsec);
    return cycles * 1000000000ull / ns;
}

uint64_t tsc_now(void)
{
    return tsc();
}
