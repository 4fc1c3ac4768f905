/* fdb.c - see fdb.h.
 *
 * Untrusted, Threads: see fdb.h.
 */
#include "vswitch/core/fdb.h"

enum { WAYS = 8, SWEEP_PARTS = 64, PORT_SHARE = 4, DEFAULT_AGEING_S = 300 };

#define MAC_MASK 0xffffffffffffull

struct bucket {
    /* mac | port << 48; 0: free (the all-zero MAC is not learned) */
    CACHE_ALIGNED uint64_t word[WAYS];
};

struct fdb {
    uint64_t seed;
    uint32_t buckets_mask;
    uint32_t ageing_s;
    uint32_t share;                /* entries one port may hold */
    uint32_t sweep_at;             /* next bucket; advanced by whoever sweeps */
    uint64_t swept_ns;
    struct bucket *buckets;
    uint32_t *seen_s;              /* WAYS per bucket */
    uint32_t held[MAX_PORTS];      /* entries per port */
};

struct fdb *fdb_new(uint32_t entries, uint64_t seed)
{
    uint32_t buckets = 1;
    if (entries > 1u << 26)
        return NULL;
    /* Half full at the wished number of entries: a full bucket of eight is then rare. */
    while (buckets * WAYS < entries * 2)
        buckets *= 2;
    struct fdb *fdb = calloc(1, sizeof(*fdb));
    if (!fdb)
        return NULL;
    fdb->seed = seed;
    fdb->buckets_mask = buckets - 1;
    fdb->ageing_s = DEFAULT_AGEING_S;
    fdb->share = entries / PORT_SHARE > 0 ? entries / PORT_SHARE : 1;
    fdb->buckets = aligned_alloc(CACHE_LINE, buckets * sizeof(struct bucket));
    fdb->seen_s = calloc((size_t)buckets * WAYS, sizeof(uint32_t));
    if (!fdb->buckets || !fdb->seen_s) {
        fdb_free(fdb);
        return NULL;
    }
    memset(fdb->buckets, 0, buckets * sizeof(struct bucket));
    return fdb;
}

void fdb_free(struct fdb *fdb)
{
    if (!fdb)
        return;
    free(fdb->buckets);
    free(fdb->seen_s);
    free(fdb);
}

void fdb_set_ageing(struct fdb *fdb, uint32_t seconds)
{
    store_relaxed(&fdb->ageing_s, seconds);
}

static uint32_t bucket_of(const struct fdb *fdb, uint64_t mac)
{
    uint64_t h = (mac ^ fdb->seed) * 0x9e3779b97f4a7c15ull;
    h = (h ^ (h >> 32)) * 0xbf58476d1ce4e5b9ull;
    return (uint32_t)(h >> 32) & fdb->buckets_mask;
}

uint16_t fdb_lookup(const struct fdb *fdb, uint64_t mac)
{
    const struct bucket *b = &fdb->buckets[bucket_of(fdb, mac)];
    for (int i = 0; i < WAYS; i++) {
        uint64_t word = load_relaxed(&b->word[i]);
        if ((word & MAC_MASK) == mac)
            return (uint16_t)(word >> 48);
    }
    return FDB_NOWHERE;
}

static bool replace(struct fdb *fdb, uint64_t *word, uint64_t old, uint64_t new)
{
    if (!cas_acq_rel(word, &old, new))
        return false;
    if (old)
        sub_acq_rel(&fdb->held[old >> 48], 1);
    if (new)
        add_relaxed(&fdb->held[new >> 48], 1);
    return true;
}

bool fdb_learn(struct fdb *fdb, uint64_t mac, uint16_t port, uint64_t now_ns)
{
    uint32_t at = bucket_of(fdb, mac);
    struct bucket *b = &fdb->buckets[at];
    uint32_t *seen = &fdb->seen_s[at * WAYS];
    uint32_t now_s = (uint32_t)(now_ns / NS_PER_S);
    uint64_t wanted = mac | (uint64_t)port << 48;
    int room = -1;

    if (mac == 0 || mac_is_multicast(mac))
        return true;
    for (int i = 0; i < WAYS; i++) {
        uint64_t word = load_relaxed(&b->word[i]);
        if (word == wanted) {
            if (load_relaxed(&seen[i]) != now_s)
                store_relaxed(&seen[i], now_s);
            return true;
        }
        if (word && (word & MAC_MASK) == mac) { /* it moved */
            store_relaxed(&seen[i], now_s);
            return replace(fdb, &b->word[i], word, wanted);
        }
        if (word == 0)
            room = i;
    }
    if (load_relaxed(&fdb->held[port]) >= fdb->share || room < 0)
        return false;
    store_relaxed(&seen[room], now_s);
    return replace(fdb, &b->word[room], 0, wanted);
}

void fdb_sweep(struct fdb *fdb, uint64_t now_ns)
{
    uint32_t now_s = (uint32_t)(now_ns / NS_PER_S), ageing_s = load_relaxed(&fdb->ageing_s);
    uint64_t swept = load_relaxed(&fdb->swept_ns);
    if (now_ns - swept < NS_PER_S / SWEEP_PARTS || !cas_acq_rel(&fdb->swept_ns, &swept, now_ns))
        return;
    uint32_t count = fdb->buckets_mask / SWEEP_PARTS + 1;
    uint32_t from = add_relaxed(&fdb->sweep_at, count);
    for (uint32_t n = 0; n < count; n++) {
        uint32_t at = (from + n) & fdb->buckets_mask;
        for (int i = 0; i < WAYS; i++) {
            uint64_t word = load_relaxed(&fdb->buckets[at].word[i]);
            if (word && now_s - load_relaxed(&fdb->seen_s[at * WAYS + (uint32_t)i]) > ageing_s)
                replace(fdb, &fdb->buckets[at].word[i], word, 0);
        }
    }
}

void fdb_flush_port(struct fdb *fdb, uint16_t port)
{
    for (uint32_t at = 0; at <= fdb->buckets_mask; at++) {
        for (int i = 0; i < WAYS; i++) {
            uint64_t word = load_relaxed(&fdb->buckets[at].word[i]);
            if (word && word >> 48 == port)
                replace(fdb, &fdb->buckets[at].word[i], word, 0);
        }
    }
}

uint32_t fdb_dump(const struct fdb *fdb, uint64_t now_ns, uint32_t *cursor, struct fdb_entry *out,
                  uint32_t max)
{
    uint32_t now_s = (uint32_t)(now_ns / NS_PER_S), count = 0;
    uint64_t slots = (uint64_t)(fdb->buckets_mask + 1) * WAYS;
    while (*cursor < slots && count < max) {
        uint32_t at = (*cursor)++;
        uint64_t word = load_relaxed(&fdb->buckets[at / WAYS].word[at % WAYS]);
        if (word == 0)
            continue;
        struct fdb_entry *e = &out[count++];
        memcpy(e->mac, &word, 6);
        e->port = (uint16_t)(word >> 48);
        e->age_s = now_s - load_relaxed(&fdb->seen_s[at]);
    }
    return count;
}
