/* fdb.h - the MAC table of a bridge.
 *
 * A bucket is one cache line of eight words, each a MAC, a port and the time when it was last seen,
 * so an entry is read and replaced whole, without a lock, and a lookup or a learning that has
 * nothing to learn costs one line of memory.  Who has several to look up asks for their lines
 * first (fdb_prefetch), so that they arrive together.
 *
 * Time is counted in units of a 32nd of the ageing time, at least a second; a MAC that goes on
 * being seen is written once per unit.
 *
 * A guest that makes up addresses evicts nobody else's: it gets the wished number of entries at
 * most, which fill half of the table, and a port with a quarter of that only when fewer than wished
 * are there.  Where a bucket is full nevertheless, only a port that holds more than twice as many
 * entries as the newcomer's gives one up.  The hash is seeded, so that buckets cannot be aimed at.
 *
 * Untrusted:  the MAC addresses.
 * Threads:    lookup, learn, sweep, dump and flush: any thread, at the same time; words are swapped
 *             with compare-and-swap.  A lost race costs one learning, which the next packet
 *             repeats.  fdb_set_ageing: the control thread.
 */
#ifndef VSW_FDB_H
#define VSW_FDB_H

#include "vswitch/core/port.h"

enum {
    FDB_NOWHERE = 0xffff,
    FDB_WAYS = 8,
    FDB_PORT_SHIFT = 48,
    FDB_PORT_BITS = 10,
    FDB_STAMP_SHIFT = FDB_PORT_SHIFT + FDB_PORT_BITS,
    FDB_STAMPS = 64,               /* what is left of a word */
};

_Static_assert(1 << FDB_PORT_BITS == (int)MAX_PORTS, "every port's id has room in a word");

struct fdb_bucket {
    /* mac | port << 48 | stamp << 58; 0: free (the all-zero MAC is not learned) */
    CACHE_ALIGNED uint64_t word[FDB_WAYS];
};

struct fdb {
    /* Read for each packet, written once per unit of time. */
    uint64_t seed;
    struct fdb_bucket *buckets;
    uint32_t buckets_mask;
    uint32_t stamp;                /* now, in units, modulo FDB_STAMPS */
    uint32_t ageing_s;
    uint32_t unit_s;
    uint32_t entries;              /* the wished limit */
    uint32_t port_share;           /* what a port may hold in any case */
    /* Written when something comes, goes or moves. */
    CACHE_ALIGNED uint32_t total;
    uint32_t sweep_at;             /* next bucket; advanced by whoever sweeps */
    uint64_t swept_ns;
    uint32_t held[MAX_PORTS];      /* entries per port */
};

/* Of a mac_word(). */
static inline bool mac_is_multicast(uint64_t mac) { return mac & 1; }

/* Where a MAC is, when it is known; its line is asked for. */
static inline struct fdb_bucket *fdb_prefetch(const struct fdb *fdb, uint64_t mac)
{
    uint64_t h = (mac ^ fdb->seed) * 0x9e3779b97f4a7c15ull;
    h = (h ^ (h >> 32)) * 0xbf58476d1ce4e5b9ull;
    struct fdb_bucket *b = &fdb->buckets[(uint32_t)(h >> 32) & fdb->buckets_mask];
    __builtin_prefetch(b);
    return b;
}

/* The port id behind a MAC of bucket b, or FDB_NOWHERE.  Looks at all ways without a branch: where
 * in its bucket an entry lies is not to be predicted. */
static inline uint16_t fdb_lookup(const struct fdb_bucket *b, uint64_t mac)
{
    uint64_t found = 0;
    UNROLLED
    for (int i = 0; i < FDB_WAYS; i++) {
        uint64_t word = load_relaxed(&b->word[i]);
        found = ((word ^ mac) << (64 - FDB_PORT_SHIFT)) == 0 ? word : found;
    }
    return found ? (found >> FDB_PORT_SHIFT) & (MAX_PORTS - 1) : FDB_NOWHERE;
}

/* Remembers that mac, of bucket b, is behind port, when the table does not say so already. */
bool fdb_learn_new(struct fdb *fdb, struct fdb_bucket *b, uint64_t mac, uint16_t port);

/* False when there is no room for it. */
static inline bool fdb_learn(struct fdb *fdb, struct fdb_bucket *b, uint64_t mac, uint16_t port)
{
    uint64_t wanted = mac | (uint64_t)port << FDB_PORT_SHIFT |
                      (uint64_t)load_relaxed(&fdb->stamp) << FDB_STAMP_SHIFT;
    bool known = false;
    UNROLLED
    for (int i = 0; i < FDB_WAYS; i++)
        known |= load_relaxed(&b->word[i]) == wanted;
    return likely(known) || fdb_learn_new(fdb, b, mac, port);
}

/* Tells the table the time, and forgets what is too old in a part of it; called every so often, it
 * gets around in a unit of time. */
void fdb_sweep(struct fdb *fdb, uint64_t now_ns);

#endif
