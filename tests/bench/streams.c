/* streams.c - frames at a rate, from one guest's ring to another's, and how many arrive.
 *
 * Workers may want every CPU, so the caller sleeps when no frame is due and none has come.
 */
#include <time.h>

#include "tests/bench/ring.h"

enum { BURST = 256, NAP_NS = 20000, LAST_NS = 200 * 1000 * 1000 };

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void nap(void)
{
    struct timespec t = {.tv_nsec = NAP_NS};
    nanosleep(&t, NULL);
}

/* Of a sender's ring, what went out; of a receiver's, offered again. */
static uint32_t take(struct ring *r, bool again)
{
    struct used used;
    uint32_t taken = 0;
    for (; ring_take(r, &used); taken++)
        if (again)
            ring_add(r, used.place, r->stride_bytes, true);
    if (again && taken > 0)
        ring_publish(r);
    return taken;
}

/* How many of those due were put into the ring. */
static uint32_t put(struct ring *tx, struct traffic *t, uint64_t due)
{
    uint32_t count = due < BURST ? (uint32_t)due : BURST;
    if (count > tx->frames - tx->in_flight)
        count = tx->frames - tx->in_flight;
    for (uint32_t i = 0; i < count; i++) {
        frame_write(t, ring_buffer(tx, tx->place));
        ring_add(tx, tx->place, t->frame_bytes + VNET_BYTES, false);
        tx->place = (tx->place + 1) % tx->frames;
    }
    if (count > 0)
        ring_publish(tx);
    return count;
}

void send_frames(struct ring *tx, struct ring *rx, struct traffic *t, struct datagrams *d)
{
    take(rx, true); /* of an earlier time */
    prepare(tx, t);
    d->sent = d->received = d->received_ns = 0;
    uint64_t begun = now_ns(), passed = 0;
    while ((passed = now_ns() - begun) < d->duration_ns) {
        uint64_t due = (uint64_t)((double)passed * d->rate * 1e-9);
        take(tx, false);
        uint32_t count = due > d->sent ? put(tx, t, due - d->sent) : 0;
        uint32_t came = take(rx, true);
        d->sent += count;
        d->received += came;
        if (came > 0)
            d->received_ns = now_ns() - begun;
        if (count == 0 && came == 0)
            nap();
    }
    d->elapsed_ns = passed;
    for (uint64_t since = now_ns(); d->received < d->sent && now_ns() - since < LAST_NS; nap()) {
        uint32_t came = take(rx, true);
        d->received += came;
        if (came == 0)
            continue;
        since = now_ns();
        d->received_ns = since - begun;
    }
    take(tx, false);
}
