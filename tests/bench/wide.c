/* wide.c - phases over several rings at once, for several workers.
 *
 * Workers may have every CPU, the caller's too: so it shows its frames with one store per ring and
 * sleeps until they are through.  What that cost, the workers' own counters tell.
 */
#include <time.h>

#include "tests/bench/ring.h"

static bool all_back(struct ring *const *rings, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (rings[i]->in_flight > 0 && !ring_has(rings[i], rings[i]->in_flight))
            return false;
    return true;
}

/* Takes what is there out of a receiver's ring and offers it again.  t: whose frames have to come
 * in order, beginning with number expected; NULL: anybody's. */
static void receive(struct ring *rx, const struct traffic *t, uint32_t expected, struct phase *out)
{
    struct used used;
    uint32_t taken = 0;
    for (; ring_take(rx, &used); taken++) {
        if (t != NULL) {
            uint32_t number = frame_sequence(t, ring_buffer(rx, used.place));
            out->wrong += number != expected;
            expected = number + 1;
        }
        ring_add(rx, used.place, rx->stride_bytes, true);
    }
    if (taken > 0)
        ring_publish(rx);
    out->received += taken;
}

static void fill(struct ring *tx, struct traffic *t, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        frame_write(t, ring_buffer(tx, tx->place));
        ring_add(tx, tx->place, t->frame_bytes + VNET_BYTES, false);
        tx->place = (tx->place + 1) % tx->frames;
    }
}

void run_wide_phase(const struct wide *w, uint32_t count, struct phase *out)
{
    struct timespec pause = {.tv_nsec = w->pause_ns};
    struct used used;
    *out = (struct phase){.sent = count * w->txs_count};
    for (uint32_t i = 0; i < w->txs_count; i++)
        fill(w->txs[i], w->traffics[i], count);
    uint64_t begun = tsc();
    for (uint32_t i = 0; i < w->txs_count; i++)
        ring_publish(w->txs[i]);
    do {
        if (w->pause_ns > 0)
            nanosleep(&pause, NULL);
        else
            _mm_pause();
    } while (!all_back(w->txs, w->txs_count) && tsc() - begun < PATIENCE_CYCLES);
    out->cycles = tsc() - begun;
    for (uint32_t i = 0; i < w->txs_count; i++)
        while (ring_take(w->txs[i], &used))
            continue;
    for (uint32_t i = 0; i < w->rxs_count; i++) {
        if (w->paired)
            receive(w->rxs[i], w->traffics[i], w->traffics[i]->sequence - count, out);
        else
            receive(w->rxs[i], NULL, 0, out);
    }
}
