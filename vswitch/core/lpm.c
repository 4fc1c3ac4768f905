/* lpm.c - longest-prefix match: one hash table for all prefixes, one probe per prefix length in
 * use.
 *
 * IPv4 addresses are looked up as ::ffff:a.b.c.d, so one table and one walk serve both families;
 * but no prefix of IPv6 holds them, not even ::/0.  A mesh uses a handful of prefix lengths, so a
 * lookup is a handful of probes whatever the number of routes.
 *
 * Untrusted:  the address looked up.
 * Threads:    built by the control thread, immutable once published, read by all workers.
 */
#include "vswitch/core/port.h"

enum { IP4_PREFIX = 96 };

struct lpm_route {
    uint64_t high, low;      /* masked address, host order */
    uint32_t value;
    uint8_t prefix;
    uint8_t used;
};

struct lpm {
    uint32_t mask;           /* slots - 1, a power of two */
    uint32_t lengths_count;
    uint32_t count, limit;
    uint8_t lengths[129];    /* in use, longest first */
    struct lpm_route slots[];
};

static uint64_t mask_high(uint32_t prefix)
{
    return prefix == 0 ? 0 : prefix >= 64 ? UINT64_MAX : UINT64_MAX << (64 - prefix);
}

static uint64_t mask_low(uint32_t prefix)
{
    return prefix <= 64 ? 0 : UINT64_MAX << (128 - prefix);
}

static uint64_t get_be64(const uint8_t *p)
{
    return (uint64_t)get_be32(p) << 32 | get_be32(p + 4);
}

static uint32_t hash(uint64_t high, uint64_t low, uint32_t prefix)
{
    uint64_t h = (high ^ prefix) * 0x9e3779b97f4a7c15ull;
    h = (h ^ (h >> 29) ^ low) * 0xbf58476d1ce4e5b9ull;
    return (uint32_t)(h >> 32) ^ (uint32_t)h;
}

struct lpm *lpm_new(uint32_t routes)
{
    uint32_t slots = 16;
    if (routes > 1u << 28)
        return NULL;
    while (slots < routes * 2u)
        slots *= 2;
    struct lpm *t = calloc(1, sizeof(*t) + (size_t)slots * sizeof(t->slots[0]));
    if (!t)
        return NULL;
    t->mask = slots - 1;
    t->limit = routes;
    return t;
}

void lpm_free(struct lpm *t)
{
    free(t);
}

static void add_length(struct lpm *t, uint8_t prefix)
{
    uint32_t at = 0;
    while (at < t->lengths_count && t->lengths[at] > prefix)
        at++;
    if (at < t->lengths_count && t->lengths[at] == prefix)
        return;
    memmove(t->lengths + at + 1, t->lengths + at, t->lengths_count - at);
    t->lengths[at] = prefix;
    t->lengths_count++;
}

static struct lpm_route *find(const struct lpm *t, uint64_t high, uint64_t low, uint32_t prefix)
{
    uint32_t i = hash(high, low, prefix) & t->mask;
    for (;; i = (i + 1) & t->mask) { /* ends: at most half of the slots are used */
        const struct lpm_route *r = &t->slots[i];
        if (!r->used || (r->high == high && r->low == low && r->prefix == prefix))
            return (struct lpm_route *)(uintptr_t)r;
    }
}

int lpm_add(struct lpm *t, const uint8_t *address, uint32_t prefix, uint32_t value)
{
    if (prefix > 128 || value >= ROUTE_PEER + 65536u)
        return -EINVAL;
    uint64_t high = get_be64(address) & mask_high(prefix);
    uint64_t low = get_be64(address + 8) & mask_low(prefix);
    struct lpm_route *r = find(t, high, low, prefix);
    if (r->used)
        return -EEXIST;
    if (t->count == t->limit)
        return -ENOSPC;
    *r = (struct lpm_route){high, low, value, (uint8_t)prefix, 1};
    t->count++;
    add_length(t, (uint8_t)prefix);
    return 0;
}

int64_t lpm_lookup(const struct lpm *t, const uint8_t *address)
{
    uint64_t high = get_be64(address), low = get_be64(address + 8);
    uint32_t shortest = high == 0 && low >> 32 == 0xffff ? IP4_PREFIX : 0;
    for (uint32_t i = 0; i < t->lengths_count; i++) {
        uint32_t prefix = t->lengths[i];
        if (prefix < shortest)
            break;
        const struct lpm_route *r =
            find(t, high & mask_high(prefix), low & mask_low(prefix), prefix);
        if (r->used)
            return r->value;
    }
    return -1;
}
