/* vhost_tx.c - gives frames to a guest: which of its RX rings, under its lock, for how long.
 *
 * A full ring: with TX_MAY_WAIT the caller keeps its packets and comes again, for at most
 * TX_WAIT_NS; then they are dropped, and so is everything else at once until the guest adds
 * buffers, so a dead guest costs its neighbours one wait.
 *
 * Untrusted:  see vhost_put.c; here nothing is read.
 * Threads:    any worker.  One lock at a time, for at most TX_HOLD_BYTES.
 */
#include "vhost/core/vhost_port.h"

enum { LOCK_TRIES = 1000 }; /* of a caller that cannot come again: some 20 us, longer than a hold */

static bool lock_queue(struct vhost_tx *tx, uint32_t flags)
{
    if (likely(trylock_take(&tx->lock)))
        return true;
    for (int i = 0; i < LOCK_TRIES && !(flags & TX_MAY_WAIT); i++) {
        cpu_relax();
        if (trylock_take(&tx->lock))
            return true;
    }
    return false;
}

/* Whether the ring that just ran full may be waited for. */
static bool may_wait(struct vhost_queue *q, const struct breath *b, uint32_t flags)
{
    struct vhost_tx *tx = q->tx;
    if (!(flags & TX_MAY_WAIT) || virtq_broken(&q->vq))
        return false;
    if (tx->gave_up && tx->waited_at == tx->missing_at)
        return false;
    if (tx->gave_up || tx->waiting_since_ns == 0) {
        tx->gave_up = false;
        tx->waiting_since_ns = b->now_ns | 1; /* 0 means not waiting */
        return true;
    }
    if (b->now_ns - tx->waiting_since_ns < TX_WAIT_NS)
        return true;
    tx->gave_up = true;
    tx->waited_at = tx->missing_at;
    tx->waiting_since_ns = 0;
    return false;
}

static struct vhost_queue *choose_queue(const struct vhost_port *vp, const struct breath *b)
{
    const struct vhost_txset *set = load_acquire(&vp->txset); /* pairs with vhost_port_set_tx */
    if (set == NULL || set->count == 0)
        return NULL;
    uint32_t count = min_u32(set->count, load_relaxed(&vp->pairs));
    return set->queues[count > 1 ? b->tx_queue % count : 0];
}

uint32_t vhost_port_tx(struct port *p, struct breath *b, struct packet *const *pkts, uint32_t n,
                       uint32_t flags)
{
    struct vhost_queue *q = choose_queue(vhost_port_of(p), b);
    struct counters *c = port_counters(p, b);
    uint32_t taken = 0;
    if (unlikely(q == NULL || virtq_broken(&q->vq))) {
        if (q == NULL && (flags & TX_MAY_WAIT) && load_relaxed(&vhost_port_of(p)->held))
            return 0;
        port_drop(p, b, DROP_PORT_DOWN, n);
        return n;
    }
    while (taken < n) {
        struct vhost_hold h = {0};
        if (!lock_queue(q->tx, flags)) {
            if (flags & TX_MAY_WAIT)
                break;
            vhost_queue_drop(q, b, DROP_RING_FULL, n - taken);
            return n;
        }
        q->tx->put(q, b, pkts + taken, n - taken, &h);
        bool full = h.stopped == PUT_FULL;
        bool wait = full ? may_wait(q, b, flags)
                         : h.stopped == PUT_NOT_YET && (flags & TX_MAY_WAIT);
        if (unlikely(full && !wait && vhost_cut_is_of(&q->tx->cut, pkts[taken + h.taken])))
            q->tx->cut.next = 0;
        if (unlikely(virtq_broken(&q->vq)))
            vhost_queue_report(q);
        trylock_give(&q->tx->lock);
        taken += h.taken;
        counter_add(&c->tx_packets, h.delivered);
        counter_add(&c->tx_bytes, h.bytes);
        counter_add(&c->tx_gso_packets, h.gso);
        if (wait)
            break;
        if (h.stopped != PUT_DONE) {
            vhost_queue_drop(q, b, virtq_broken(&q->vq) ? DROP_PORT_DOWN : DROP_RING_FULL,
                             n - taken);
            return n;
        }
    }
    return taken;
}
