/* neighbour.c - see neighbour.h.
 *
 * Untrusted, Threads: see neighbour.h.
 */
#include "vswitch/core/neighbour.h"

enum { WAYS = 4, WAITING = 64, STALE_S = 60, ASK_INTERVAL_NS = 1000000000 };

struct neighbour {
    uint32_t sequence;             /* odd while it is being written */
    uint16_t port;
    uint16_t used;
    uint32_t seen_s;
    uint32_t pad;
    uint64_t mac;
    uint64_t ip[2];
};

/* An address somebody wants and that has not answered yet. */
struct waiting {
    uint64_t ip[2];
    uint64_t asked_ns;
    uint32_t len_bytes;            /* 0: no packet waits */
    uint16_t csum_start, csum_offset;
    uint8_t flags;
    uint8_t used;
    uint8_t bytes[HELD_BYTES];
};

struct neighbours {
    uint32_t buckets_mask;
    struct trylock lock;           /* of writers, and of waiting */
    uint32_t waiting_count;        /* slots in use: a look without the lock when zero */
    struct neighbour *entries;
    struct waiting waiting[WAITING];
};

struct neighbours *neighbours_new(uint32_t entries)
{
    uint32_t buckets = 1;
    if (entries > 1u << 24)
        return NULL;
    while (buckets * WAYS < entries * 2)
        buckets *= 2;
    struct neighbours *n = calloc(1, sizeof(*n));
    if (!n)
        return NULL;
    n->buckets_mask = buckets - 1;
    n->entries = calloc((size_t)buckets * WAYS, sizeof(*n->entries));
    if (!n->entries) {
        free(n);
        return NULL;
    }
    return n;
}

void neighbours_free(struct neighbours *n)
{
    if (!n)
        return;
    free(n->entries);
    free(n);
}

static struct neighbour *bucket_of(const struct neighbours *n, const uint64_t ip[2])
{
    uint64_t h = ip[0] ^ ip[1] * 0x9e3779b97f4a7c15ull;
    /* The last bytes of an address stand highest, and a product carries upwards only. */
    h = (h ^ h >> 32) * 0xbf58476d1ce4e5b9ull;
    return &n->entries[((uint32_t)(h >> 32) & n->buckets_mask) * WAYS];
}

/* A whole copy of an entry that may be written at this moment; false when it was. */
static bool read_entry(const struct neighbour *e, struct neighbour *copy)
{
    uint32_t before = load_acquire(&e->sequence); /* pairs with write_entry */
    if (before & 1)
        return false;
    /* Acquire, each of them: none may be read after the second look at the sequence. */
    copy->used = load_acquire(&e->used);
    copy->port = load_acquire(&e->port);
    copy->seen_s = load_acquire(&e->seen_s);
    copy->mac = load_acquire(&e->mac);
    copy->ip[0] = load_acquire(&e->ip[0]);
    copy->ip[1] = load_acquire(&e->ip[1]);
    return load_acquire(&e->sequence) == before;
}

/* Under the lock. */
static void write_entry(struct neighbour *e, const uint64_t ip[2], uint64_t mac, uint16_t port,
                        uint32_t now_s)
{
    uint32_t sequence = load_relaxed(&e->sequence);
    store_relaxed(&e->sequence, sequence + 1);
    fence_full();
    store_relaxed(&e->used, 1);
    store_relaxed(&e->port, port);
    store_relaxed(&e->seen_s, now_s);
    store_relaxed(&e->mac, mac);
    store_relaxed(&e->ip[0], ip[0]);
    store_relaxed(&e->ip[1], ip[1]);
    store_release(&e->sequence, sequence + 2); /* pairs with read_entry */
}

enum neighbour_state neighbour_lookup(const struct neighbours *n, const uint8_t *ip_bytes,
                                      uint64_t now_ns, uint8_t *mac)
{
    uint64_t ip[2];
    memcpy(ip, ip_bytes, sizeof(ip));
    const struct neighbour *bucket = bucket_of(n, ip);
    for (int i = 0; i < WAYS; i++) {
        struct neighbour e;
        if (!read_entry(&bucket[i], &e) || !e.used || e.ip[0] != ip[0] || e.ip[1] != ip[1])
            continue;
        memcpy(mac, &e.mac, 6);
        return (uint32_t)(now_ns / NS_PER_S) - e.seen_s > STALE_S ? NEIGHBOUR_STALE
                                                                   : NEIGHBOUR_KNOWN;
    }
    return NEIGHBOUR_UNKNOWN;
}

static int held_by(const struct neighbour *bucket, uint16_t port)
{
    int held = 0;
    for (int i = 0; i < WAYS; i++)
        held += bucket[i].used && bucket[i].port == port;
    return held;
}

/* The entry to write: the address's own, a free one, the oldest of a port that holds at least two
 * more than this one, or the oldest of this port.  Who owns many addresses could fill the table
 * otherwise, and nobody else's would ever be learned. */
static struct neighbour *choose(struct neighbour *bucket, const uint64_t ip[2], uint16_t port)
{
    struct neighbour *unused = NULL, *other = NULL, *own = NULL;
    int held = held_by(bucket, port);
    for (int i = 0; i < WAYS; i++) {
        struct neighbour *e = &bucket[i];
        if (!e->used)
            unused = e;
        else if (e->ip[0] == ip[0] && e->ip[1] == ip[1])
            return e;
        else if (e->port == port)
            own = !own || e->seen_s < own->seen_s ? e : own;
        else if (held_by(bucket, e->port) > held + 1)
            other = !other || e->seen_s < other->seen_s ? e : other;
    }
    return unused ? unused : other ? other : own;
}

void neighbour_learn(struct neighbours *n, const uint8_t *ip_bytes, const uint8_t *mac_bytes,
                     uint16_t port, uint64_t now_ns)
{
    uint64_t ip[2], mac = 0;
    uint32_t now_s = (uint32_t)(now_ns / NS_PER_S);
    memcpy(ip, ip_bytes, sizeof(ip));
    memcpy(&mac, mac_bytes, 6);
    struct neighbour *bucket = bucket_of(n, ip);
    for (int i = 0; i < WAYS; i++) {
        struct neighbour e;
        if (read_entry(&bucket[i], &e) && e.used && e.ip[0] == ip[0] && e.ip[1] == ip[1] &&
            e.mac == mac && e.seen_s == now_s)
            return;
    }
    if (!trylock_take(&n->lock))
        return;
    struct neighbour *e = choose(bucket, ip, port);
    if (e)
        write_entry(e, ip, mac, port, now_s);
    trylock_give(&n->lock);
}

/* Under the lock: the address's slot, or with make the free or oldest one. */
static struct waiting *find_waiting(struct neighbours *n, const uint8_t *ip, bool make)
{
    struct waiting *best = &n->waiting[0];
    for (int i = 0; i < WAITING; i++) {
        struct waiting *w = &n->waiting[i];
        if (w->used && memcmp(w->ip, ip, sizeof(w->ip)) == 0)
            return w;
        if (!w->used ? best->used : best->used && w->asked_ns < best->asked_ns)
            best = w;
    }
    if (!make)
        return NULL;
    if (!best->used)
        store_relaxed(&n->waiting_count, n->waiting_count + 1);
    best->used = 1;
    best->asked_ns = 0;
    best->len_bytes = 0;
    memcpy(best->ip, ip, sizeof(best->ip));
    return best;
}

bool neighbour_may_ask(struct neighbours *n, const uint8_t *ip, uint64_t now_ns)
{
    if (!trylock_take(&n->lock))
        return false;
    struct waiting *w = find_waiting(n, ip, true);
    bool may = w->asked_ns == 0 || now_ns - w->asked_ns >= ASK_INTERVAL_NS;
    if (may)
        w->asked_ns = now_ns;
    trylock_give(&n->lock);
    return may;
}

bool neighbour_hold(struct neighbours *n, const uint8_t *ip, const struct packet *p)
{
    if (p->len_bytes > HELD_BYTES || p->gso_type != GSO_NONE || !trylock_take(&n->lock))
        return false;
    struct waiting *w = find_waiting(n, ip, true);
    bool room = w->len_bytes == 0;
    if (room) {
        pkt_copy(p, 0, w->bytes, p->len_bytes);
        w->len_bytes = p->len_bytes;
        w->flags = p->flags;
        w->csum_start = p->csum_start;
        w->csum_offset = p->csum_offset;
    }
    trylock_give(&n->lock);
    return room;
}

uint32_t neighbour_release(struct neighbours *n, const uint8_t *ip, uint8_t *bytes,
                           struct packet *fields)
{
    uint32_t len_bytes = 0;
    if (load_relaxed(&n->waiting_count) == 0 || !trylock_take(&n->lock))
        return 0;
    struct waiting *w = find_waiting(n, ip, false);
    if (w) {
        len_bytes = w->len_bytes;
        memcpy(bytes, w->bytes, len_bytes);
        fields->flags = w->flags;
        fields->csum_start = w->csum_start;
        fields->csum_offset = w->csum_offset;
        w->used = 0;
        store_relaxed(&n->waiting_count, n->waiting_count - 1);
    }
    trylock_give(&n->lock);
    return len_bytes;
}
