/* pings.c - round trips between two guests that poll, with other frames in the way.
 *
 * The first guest sends a probe when it is due and no other is under way; the second sends it back;
 * other frames go from the first to the second at a rate that does not wait for anybody.
 */
#include "tests/bench/ring.h"

enum { BATCH = 32, PROBE = 0x40000000 };

struct state {
    struct ping_ends e;
    struct pings *p;
    struct traffic load, probe, answer;
    uint64_t now, next_load, next_probe, stamp;
    bool under_way;
};

static bool send_frame(struct ring *tx, struct traffic *t)
{
    if (tx->in_flight == tx->frames)
        return false;
    frame_write(t, ring_buffer(tx, tx->place));
    ring_add(tx, tx->place, t->frame_bytes + VNET_BYTES, false);
    tx->place = (tx->place + 1) % tx->frames;
    return true;
}

static void send_due(struct state *s)
{
    struct pings *p = s->p;
    uint32_t added = 0;
    for (; p->load_gap_cycles && s->next_load <= s->now && added < BATCH; added++) {
        s->next_load += p->load_gap_cycles;
        if (send_frame(s->e.first_tx, &s->load))
            p->load_sent++;
        else
            p->load_refused++;
    }
    if (s->under_way && s->now - s->stamp > p->patience_cycles) {
        p->lost++;
        s->under_way = false;
    }
    if (!s->under_way && s->now >= s->next_probe &&
        send_frame(s->e.first_tx, &s->probe)) {
        s->under_way = true;
        s->stamp = tsc();
        added++;
    }
    if (added > 0)
        ring_publish(s->e.first_tx);
}

/* Takes what a guest received and offers its buffers again; true when the probe was among it. */
static bool receive(struct state *s, struct ring *rx, const struct traffic *t)
{
    struct used used;
    uint32_t taken = 0;
    bool found = false;
    for (; taken < BATCH && ring_take(rx, &used); taken++) {
        uint32_t number = frame_sequence(t, ring_buffer(rx, used.place));
        if (number == s->probe.sequence - 1)
            found = true;
        else if (number < PROBE)
            s->p->load_received++;
        ring_add(rx, used.place, rx->stride_bytes, true);
    }
    if (taken > 0)
        ring_publish(rx);
    return found;
}

static void reclaim(struct ring *tx)
{
    struct used used;
    while (tx->in_flight > 0 && ring_take(tx, &used))
        continue;
}

static void turn(struct state *s)
{
    struct pings *p = s->p;
    send_due(s);
    if (receive(s, s->e.second_rx, &s->load) && s->under_way) {
        s->answer.sequence = s->probe.sequence - 1;
        if (send_frame(s->e.second_tx, &s->answer))
            ring_publish(s->e.second_tx);
    }
    if (receive(s, s->e.first_rx, &s->load) && s->under_way) {
        uint64_t now = tsc();
        if (p->answered < p->room)
            p->cycles[p->answered++] = now - s->stamp;
        s->under_way = false;
        /* Not in step with anything: gaps of half to one and a half. */
        p->random = p->random * 6364136223846793005ull + 1442695040888963407ull;
        s->next_probe = now + p->gap_cycles / 2 + (p->random >> 33) % (p->gap_cycles + 1);
    }
    reclaim(s->e.first_tx);
    reclaim(s->e.second_tx);
}

void run_pings(const struct ping_ends *e, const struct traffic *t, struct pings *p)
{
    struct state s = {.e = *e, .p = p, .load = *t, .probe = *t, .answer = *t};
    memcpy(s.answer.source, t->destination, 6);
    memcpy(s.answer.destination, t->source, 6);
    s.load.sequence = 0;
    s.probe.sequence = PROBE;
    prepare(e->first_tx, &s.load);
    prepare(e->second_tx, &s.answer);
    uint64_t begun = s.now = s.next_load = s.next_probe = tsc();
    while (s.now - begun < p->duration_cycles) {
        turn(&s);
        s.now = tsc();
    }
    p->elapsed_cycles = s.now - begun;
    /* What is still under way belongs to nobody's count but has to leave the rings. */
    p->load_gap_cycles = 0;
    s.next_probe = UINT64_MAX;
    uint64_t end = s.now + p->patience_cycles;
    for (; s.now < end && (e->first_tx->in_flight || e->second_tx->in_flight || s.under_way);
         s.now = tsc())
        turn(&s);
}
