/* phase.c - prefill, barrier, drain.
 *
 * The driver fills its ring while the device sees nothing of it, shows all of it with one store,
 * and keeps its hands off until the last frame has arrived.  In between the device has work all
 * the time, so what the clock says is what the frames cost.
 */
#include "tests/bench/ring.h"

enum { LOOK_EVERY_CYCLES = 400 };

/* Waits until ring r has count buffers back; false when it stopped moving. */
static bool wait_for(const struct ring *r, uint32_t count, uint64_t *at)
{
    uint64_t deadline = tsc() + PATIENCE_CYCLES, next;
    while (count > 0 && !ring_has(r, count)) {
        next = tsc() + LOOK_EVERY_CYCLES;
        if (next > deadline)
            return false;
        while (tsc() < next)
            _mm_pause();
    }
    *at = tsc();
    return true;
}

static void take_back(struct ring *tx)
{
    struct used used;
    while (ring_take(tx, &used))
        continue;
}

/* Reads what arrived, as a receiver does, and offers the buffers again. */
static void receive(struct ring *rx, const struct traffic *t, uint32_t first, struct phase *out)
{
    uint32_t expected = first, buffers_left = 0;
    struct used used;
    while (ring_take(rx, &used)) {
        const uint8_t *buffer = ring_buffer(rx, used.place);
        if (buffers_left == 0) {
            uint32_t number = frame_sequence(t, buffer);
            buffers_left = (uint32_t)buffer[10] | (uint32_t)buffer[11] << 8;
            out->received++;
            if (number != expected || (buffers_left == 1 &&
                                       used.len_bytes != t->frame_bytes + VNET_BYTES))
                out->wrong++;
            expected = number + 1;
        }
        if (buffers_left > 0)
            buffers_left--;
        ring_add(rx, used.place, rx->stride_bytes, true);
    }
    ring_publish(rx);
}

void prepare(struct ring *tx, const struct traffic *t)
{
    for (uint32_t i = 0; i < tx->frames; i++)
        frame_begin(t, ring_buffer(tx, i));
}

void run_phase(struct ring *tx, struct ring *rx, struct traffic *t, uint32_t count,
               struct phase *out)
{
    uint32_t first = t->sequence, kicks = tx->kicks;
    uint32_t room = rx->stride_bytes;
    uint32_t buffers = (t->frame_bytes + VNET_BYTES + room - 1) / room * count;
    uint64_t end, ignored;
    *out = (struct phase){0};
    if (!wait_for(tx, tx->in_flight, &ignored))
        return;
    take_back(tx);
    receive(rx, t, first, &(struct phase){0});
    out->sent = count;
    for (uint32_t i = 0; i < count; i++) {
        frame_write(t, ring_buffer(tx, tx->place));
        ring_add(tx, tx->place, t->frame_bytes + VNET_BYTES, false);
        tx->place = (tx->place + 1) % tx->frames;
    }
    uint64_t begun = tsc();
    ring_publish(tx);
    if (wait_for(rx, buffers, &end))
        out->cycles = end - begun;
    wait_for(tx, count, &ignored);
    receive(rx, t, first, out);
    take_back(tx);
    out->kicks = tx->kicks - kicks;
}
