/* fdb.c - see fdb.h.
 *
 * Untrusted, Threads: see fdb.h.
 */
#include "vswitch/core/fdb.h"

#include <sys/mman.h>

enum {
    SWEEP_NS = 15 * 1000 * 1000,   /* at least, from one sweep to the next */
    AGEING_UNITS = FDB_STAMPS / 2, /* the other half tells old from new */
    DEFAULT_AGEING_S = 300,
    PORT_SHARE = 4,                /* a port may always have one in so many of the wished entries */
    HUGE_BYTES = 2 * 1024 * 1024,
};

static uint64_t mac_of(uint64_t word) { return word & ((1ull << FDB_PORT_SHIFT) - 1); }
static uint32_t port_of(uint64_t word) { return (word >> FDB_PORT_SHIFT) & (MAX_PORTS - 1); }
static uint32_t stamp_of(uint64_t word) { return (uint32_t)(word >> FDB_STAMP_SHIFT); }

static uint32_t stamp_at(uint64_t now_ns, uint32_t unit_s)
{
    return (uint32_t)(now_ns / (unit_s * NS_PER_S)) % FDB_STAMPS;
}

/* How many units ago, seen from stamp now. */
static uint32_t age_units(uint32_t now, uint64_t word)
{
    return (now - stamp_of(word)) % FDB_STAMPS;
}

struct fdb *fdb_new(uint32_t entries, uint64_t seed)
{
    uint32_t buckets = 1;
    if (entries > 1u << 26)
        return NULL;
    /* Half full at the wished number of entries: a full bucket of eight is then rare. */
    while (buckets * FDB_WAYS < entries * 2)
        buckets *= 2;
    size_t bytes = (sizeof(struct fdb) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    struct fdb *fdb = aligned_alloc(CACHE_LINE, bytes);
    if (!fdb)
        return NULL;
    memset(fdb, 0, sizeof(*fdb));
    fdb->seed = seed;
    fdb->buckets_mask = buckets - 1;
    fdb->entries = entries;
    fdb->port_share = entries / PORT_SHARE > 0 ? entries / PORT_SHARE : 1;
    fdb->ageing_s = DEFAULT_AGEING_S;
    fdb->unit_s = (DEFAULT_AGEING_S + AGEING_UNITS - 1) / AGEING_UNITS;
    size_t table_bytes = buckets * sizeof(struct fdb_bucket);
    bool huge = table_bytes >= HUGE_BYTES;
    fdb->buckets = aligned_alloc(huge ? HUGE_BYTES : CACHE_LINE, table_bytes);
    if (!fdb->buckets) {
        free(fdb);
        return NULL;
    }
    if (huge) /* a wish: small pages are as right, only slower */
        (void)madvise(fdb->buckets, table_bytes, MADV_HUGEPAGE);
    memset(fdb->buckets, 0, table_bytes);
    return fdb;
}

void fdb_free(struct fdb *fdb)
{
    if (!fdb)
        return;
    free(fdb->buckets);
    free(fdb);
}

static bool replace(struct fdb *fdb, uint64_t *word, uint64_t old, uint64_t new)
{
    if (!cas_acq_rel(word, &old, new))
        return false;
    if (old && new && port_of(old) == port_of(new))
        return true;
    if (old)
        sub_acq_rel(&fdb->held[port_of(old)], 1);
    else
        add_relaxed(&fdb->total, 1);
    if (new)
        add_relaxed(&fdb->held[port_of(new)], 1);
    else
        sub_acq_rel(&fdb->total, 1);
    return true;
}

/* The way of b whose port holds most; b has at least one entry, or the answer is -1. */
static int largest_holder(const struct fdb *fdb, const struct fdb_bucket *b)
{
    uint32_t most = 0;
    int found = -1;
    for (int i = 0; i < FDB_WAYS; i++) {
        uint64_t word = load_relaxed(&b->word[i]);
        uint32_t held = word ? load_relaxed(&fdb->held[port_of(word)]) : 0;
        if (held > most) {
            most = held;
            found = i;
        }
    }
    return found;
}

bool fdb_learn_new(struct fdb *fdb, struct fdb_bucket *b, uint64_t mac, uint16_t port)
{
    uint64_t wanted = mac | (uint64_t)port << FDB_PORT_SHIFT |
                      (uint64_t)load_relaxed(&fdb->stamp) << FDB_STAMP_SHIFT;
    int room = -1;

    if (mac == 0 || mac_is_multicast(mac))
        return true;
    for (int i = FDB_WAYS - 1; i >= 0; i--) {
        uint64_t word = load_relaxed(&b->word[i]);
        if (word == 0)
            room = i;
        else if (mac_of(word) == mac) /* seen again, or it moved */
            return replace(fdb, &b->word[i], word, wanted);
    }
    uint32_t held = load_relaxed(&fdb->held[port]);
    if (room >= 0 && (load_relaxed(&fdb->total) < fdb->entries || held < fdb->port_share))
        return replace(fdb, &b->word[room], 0, wanted);
    int victim = largest_holder(fdb, b);
    if (victim < 0)
        return false;
    uint64_t word = load_relaxed(&b->word[victim]);
    if (word == 0 || load_relaxed(&fdb->held[port_of(word)]) / 2 <= held)
        return false;
    return replace(fdb, &b->word[victim], word, wanted);
}

void fdb_set_ageing(struct fdb *fdb, uint32_t seconds)
{
    uint32_t unit_s = (seconds + AGEING_UNITS - 1) / AGEING_UNITS, was_s = fdb->unit_s;
    store_relaxed(&fdb->ageing_s, seconds);
    if (unit_s == was_s)
        return;
    uint64_t now_ns = load_relaxed(&fdb->swept_ns);
    uint32_t before = stamp_at(now_ns, was_s), after = stamp_at(now_ns, unit_s);
    store_relaxed(&fdb->unit_s, unit_s);
    store_relaxed(&fdb->stamp, after);
    for (uint32_t at = 0; at <= fdb->buckets_mask; at++) {
        for (int i = 0; i < FDB_WAYS; i++) {
            uint64_t *word = &fdb->buckets[at].word[i], old = load_relaxed(word);
            if (old == 0)
                continue;
            uint32_t age_s = age_units(before, old) * was_s, units = age_s / unit_s;
            uint32_t stamp = (after - (units < FDB_STAMPS ? units : FDB_STAMPS - 1)) % FDB_STAMPS;
            uint64_t rest = old & ((1ull << FDB_STAMP_SHIFT) - 1);
            replace(fdb, word, old, rest | (uint64_t)stamp << FDB_STAMP_SHIFT);
        }
    }
}

void fdb_sweep(struct fdb *fdb, uint64_t now_ns)
{
    uint64_t swept = load_relaxed(&fdb->swept_ns);
    uint32_t unit_s = load_relaxed(&fdb->unit_s), ageing_s = load_relaxed(&fdb->ageing_s);
    uint32_t buckets = fdb->buckets_mask + 1, stamp = stamp_at(now_ns, unit_s);
    uint32_t ageing_units = (ageing_s + unit_s - 1) / unit_s;
    /* Another worker's breath may have begun later, and swept already. */
    if (now_ns < swept + SWEEP_NS || !cas_acq_rel(&fdb->swept_ns, &swept, now_ns))
        return;
    uint64_t elapsed = now_ns - swept;
    if (load_relaxed(&fdb->stamp) != stamp)
        store_relaxed(&fdb->stamp, stamp);
    if (swept == 0)
        return; /* a new table is empty */
    uint64_t part = elapsed / NS_PER_MS * buckets / (unit_s * 1000u) + 1;
    uint32_t count = part < buckets ? (uint32_t)part : buckets;
    uint32_t from = add_relaxed(&fdb->sweep_at, count);
    for (uint32_t n = 0; n < count; n++) {
        uint32_t at = (from + n) & fdb->buckets_mask;
        for (int i = 0; i < FDB_WAYS; i++) {
            uint64_t word = load_relaxed(&fdb->buckets[at].word[i]);
            /* Seen in that unit, at its end perhaps. */
            if (word && age_units(stamp, word) > ageing_units)
                replace(fdb, &fdb->buckets[at].word[i], word, 0);
        }
    }
}

void fdb_flush_port(struct fdb *fdb, uint16_t port)
{
    for (uint32_t at = 0; at <= fdb->buckets_mask; at++) {
        for (int i = 0; i < FDB_WAYS; i++) {
            uint64_t word = load_relaxed(&fdb->buckets[at].word[i]);
            if (word && port_of(word) == port)
                replace(fdb, &fdb->buckets[at].word[i], word, 0);
        }
    }
}

uint32_t fdb_dump(const struct fdb *fdb, uint64_t now_ns, uint32_t *cursor, struct fdb_entry *out,
                  uint32_t max)
{
    uint32_t unit_s = load_relaxed(&fdb->unit_s), stamp = stamp_at(now_ns, unit_s), count = 0;
    uint64_t slots = (uint64_t)(fdb->buckets_mask + 1) * FDB_WAYS;
    while (*cursor < slots && count < max) {
        uint32_t at = (*cursor)++;
        uint64_t word = load_relaxed(&fdb->buckets[at / FDB_WAYS].word[at % FDB_WAYS]);
        if (word == 0)
            continue;
        struct fdb_entry *e = &out[count++];
        memcpy(e->mac, &word, 6);
        e->port = (uint16_t)port_of(word);
        e->age_s = age_units(stamp, word) * unit_s;
    }
    return count;
}
