/* packed.c - walks the chains of a packed ring, and takes up where a former process left off.
 *
 * Untrusted, Threads: see packed.h.
 * Source:     virtio 1.2, section 2.8.
 */
#include "vhost/core/packed.h"

/* All descriptors of the table, in order; NEXT says nothing here (2.8.7).
 *
 * SPEC: nor do we look at WRITE where the ring itself says which way its buffers go.  DPDK's
 * driver leaves the bit set in tables of its transmit ring. */
static bool walk_table(struct virtq_walk *w, const struct virtq_desc *first)
{
    struct virtq *q = w->q;
    struct virtq_table table;
    if (!virtq_table_open(q, first, &table))
        return false;
    for (uint32_t i = 0; i < table.count; i++) {
        _Alignas(8) uint8_t copy[VIRTQ_DESC_BYTES];
        const uint8_t *p = virtq_table_at(q, &table, i, copy);
        if (p == NULL)
            return false;
        struct virtq_desc d = packed_desc_at(p);
        if (d.flags & VIRTQ_DESC_INDIRECT)
            return virtq_broken_by(q, VIRTQ_INDIRECT_NESTED);
        if (w->direction != VIRTQ_BOTH)
            d.flags = w->direction == VIRTQ_WRITABLE ? VIRTQ_DESC_WRITE : 0;
        if (!virtq_walk_buffer(w, &d))
            return false;
    }
    return true;
}

/* The driver makes the first descriptor available last, so the others have to be by then. */
static enum virtq_found walk_chain(struct virtq_walk *w, uint16_t at)
{
    struct virtq *q = w->q;
    for (uint32_t i = 0; i < q->num; i++) {
        struct virtq_desc d = packed_desc_at(packed_desc(q, at));
        if ((d.flags & (PACKED_AVAIL | PACKED_USED)) != packed_available_bits(at)) {
            if (i == 0)
                return VIRTQ_NO_CHAIN;
            virtq_break(q, VIRTQ_NEXT_UNAVAILABLE);
            return VIRTQ_BROKEN;
        }
        w->out->descs++;
        /* The id is the last one's (2.8.6); it means nothing to us but comes back as it is. */
        w->out->elem = (struct virtq_elem){.id = d.next, .slots = (uint16_t)w->out->descs};
        if (d.flags & VIRTQ_DESC_INDIRECT)
            return walk_table(w, &d) ? VIRTQ_CHAIN : VIRTQ_BROKEN;
        if (!virtq_walk_buffer(w, &d))
            return VIRTQ_BROKEN;
        if (!(d.flags & VIRTQ_DESC_NEXT))
            return VIRTQ_CHAIN;
        at = packed_after(q, at, 1);
    }
    virtq_break(q, VIRTQ_LOOP);
    return VIRTQ_BROKEN;
}

enum virtq_found packed_chain(struct virtq *q, uint16_t at, enum virtq_direction direction,
                              struct segment *segs, uint32_t max, struct virtq_buffers *out)
{
    struct virtq_walk w = {.q = q, .direction = direction, .segs = segs, .max = max, .out = out};
    *out = (struct virtq_buffers){0};
    return walk_chain(&w, at);
}

void packed_begin(struct virtq *q)
{
    struct vhost_ring_state *s = q->state;
    store_relaxed(&s->position, q->next);
    store_relaxed(&s->last, VHOST_NO_SLOT);
    store_release(&s->count, 0); /* pairs with packed_resume of another process */
}

/* Whether a descriptor was used in the round of this position, or the driver had it back since. */
static bool shows_used(const struct virtq *q, uint16_t at)
{
    uint16_t flags = guest_load16(packed_desc(q, at) + 14);
    return ((flags & PACKED_USED) != 0) == ((at & PACKED_WRAP) != 0);
}

static uint16_t round_bits(const struct virtq *q, uint16_t at)
{
    return guest_load16(packed_desc(q, at) + 14) & (PACKED_AVAIL | PACKED_USED);
}

/* Whether a driver that zeroed the ring has begun anew in it since.  It always begins with wrap
 * counter 1, so in a round of 1 the newest used descriptor tells: it shows no longer used.  In a
 * round of 0 zeros look used, too, but from the position on every descriptor was the driver's in
 * the round before; and its first is not offered again before the one at the position is. */
static bool began_anew(const struct virtq *q, uint16_t at)
{
    const struct vhost_ring_state *s = q->state;
    if (s->last != VHOST_NO_SLOT && !shows_used(q, (uint16_t)s->last))
        return true;
    if (at & PACKED_WRAP)
        return false;
    for (uint16_t i = at; i < q->num; i++)
        if (round_bits(q, i) == 0)
            return true;
    return at > 0 && round_bits(q, 0) == packed_available_bits(PACKED_WRAP) &&
           round_bits(q, at) != packed_available_bits(at);
}

/* The file may be of another ring, or of another version of us. */
static bool state_fits(const struct virtq *q, uint32_t count)
{
    const struct vhost_ring_state *s = q->state;
    bool fits = count <= VHOST_STATE_USED && (s->position & PACKED_SLOT) < q->num &&
                (s->next_position & PACKED_SLOT) < q->num && (s->told & PACKED_SLOT) < q->num &&
                (s->last == VHOST_NO_SLOT || (s->last & PACKED_SLOT) < q->num);
    for (uint32_t i = 0; fits && i < count; i++)
        fits = (s->used[i].slot & PACKED_SLOT) < q->num;
    return fits;
}

/* What is not written yet: the first one last.  Others than ours may have been, see below. */
static void finish_batch(struct virtq *q, uint32_t count)
{
    struct vhost_ring_state *s = q->state;
    for (uint32_t i = count; i-- > 0;)
        if (!shows_used(q, s->used[i].slot))
            packed_write(q, &s->used[i]);
    store_release(&s->last, s->used[count - 1].slot); /* pairs with ourselves, the next time */
    store_release(&s->position, s->next_position);
    store_release(&s->count, 0);
}

/* The front-end used chains that lie ahead of us.  The driver passes over them when it gets there,
 * so we have to.  What was offered before them is given back as it is; false when that does not
 * lead there. */
static bool pass_over(struct virtq *q, uint16_t from, uint16_t to)
{
    struct segment seg;
    struct virtq_buffers chain;
    while (q->next != from && packed_between(q, q->next, from) < q->num &&
           packed_chain(q, q->next, VIRTQ_BOTH, &seg, 1, &chain) == VIRTQ_CHAIN) {
        packed_put_used(q, chain.elem, 0, 0);
        if (q->pending == VHOST_STATE_USED)
            packed_publish(q);
    }
    packed_publish(q);
    if (q->next != from)
        return false;
    q->next = to;
    packed_begin(q);
    return true;
}

/* SPEC: A front-end without a back-end may use chains itself, from where it last heard that the
 * ring is: QEMU throws away what a guest sends while the link is down.  How far it came is what it
 * says in the next SET_VRING_BASE. */
bool packed_resume(struct virtq *q, uint32_t told)
{
    struct vhost_ring_state *s = q->state;
    uint32_t count = load_acquire(&s->count); /* pairs with packed_publish */
    if (!state_fits(q, count))
        return false;
    uint16_t position = s->position, from = (uint16_t)s->told, to = (uint16_t)told;
    bool took = from != to && (to & PACKED_SLOT) < q->num;
    uint32_t begun = count > 0 ? packed_between(q, position, s->next_position) : 0;
    if (took && from == position && packed_between(q, from, to) >= begun)
        return false; /* it went on for us, and knows better */
    uint16_t at = count > 0 ? s->next_position : position;
    bool is_ahead = took && from != position && packed_between(q, at, from) < q->num &&
                    shows_used(q, from);
    if (!is_ahead && began_anew(q, at))
        return false;
    if (count > 0)
        finish_batch(q, count);
    q->next = s->position;
    return !is_ahead || pass_over(q, from, to);
}
