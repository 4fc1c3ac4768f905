/* handshake.c - length, first MAC, rates, cookies; then Python.
 *
 * Untrusted, Threads, Source: see handshake.h.
 */
#include "mesh/core/handshake.h"

#include <sodium.h>

#include "mesh/core/cookie.h"
#include "mesh/core/mesh.h"

uint32_t handshake_bytes(uint8_t type)
{
    static const uint32_t lengths[] = {
        [RECORD_INITIATION] = HANDSHAKE_INITIATION_BYTES,
        [RECORD_RESPONSE] = HANDSHAKE_RESPONSE_BYTES,
        [RECORD_COOKIE] = HANDSHAKE_COOKIE_BYTES,
    };
    return type < ARRAY_LEN(lengths) ? lengths[type] : 0;
}

struct handshake_gate *handshake_gate_new(const uint8_t *mac1_key, const uint8_t *cookie_key)
{
    struct handshake_gate *gate = calloc(1, sizeof(*gate));
    if (!gate)
        return NULL;
    memcpy(gate->mac1_key, mac1_key, sizeof(gate->mac1_key));
    memcpy(gate->cookie_key, cookie_key, sizeof(gate->cookie_key));
    randombytes_buf(gate->secret, sizeof(gate->secret));
    randombytes_buf(gate->nonce_prefix, sizeof(gate->nonce_prefix));
    randombytes_buf(&gate->seed, sizeof(gate->seed));
    return gate;
}

void handshake_gate_free(struct handshake_gate *gate)
{
    if (gate)
        sodium_memzero(gate, sizeof(*gate));
    free(gate);
}

void handshake_expect(struct handshake_gate *gate, uint32_t index, uint64_t now_ns)
{
    uint64_t until_s = now_ns / NS_PER_S + HANDSHAKE_EXPECTED_S;
    store_relaxed(&gate->expected[index % HANDSHAKE_EXPECTED], (uint64_t)index << 32 | until_s);
}

static bool expected(const struct handshake_gate *gate, const uint8_t *index_at, uint64_t now_ns)
{
    uint32_t index;
    memcpy(&index, index_at, sizeof(index));
    uint64_t entry = load_relaxed(&gate->expected[index % HANDSHAKE_EXPECTED]);
    return entry >> 32 == index && now_ns / NS_PER_S <= (uint32_t)entry;
}

/* A token: an interval.  A failed exchange is a token of somebody else, so the loop ends. */
static bool bucket_take(struct handshake_bucket *bucket, uint64_t now_ns, uint32_t per_s,
                        uint32_t burst)
{
    uint64_t interval_ns = NS_PER_S / per_s, full_ns = load_relaxed(&bucket->full_ns);
    for (;;) {
        uint64_t from_ns = full_ns > now_ns ? full_ns : now_ns;
        if (from_ns - now_ns > interval_ns * (burst - 1))
            return false;
        if (cas_acq_rel(&bucket->full_ns, &full_ns, from_ns + interval_ns))
            return true;
    }
}

/* Whether more than HANDSHAKE_LOAD_PER_S come.  All are counted, so that it stays so until a second
 * after a flood.  One that is not counted because two workers meet harms nobody. */
static bool under_load(struct handshake_bucket *load, uint64_t now_ns)
{
    uint64_t full_ns = load_relaxed(&load->full_ns);
    uint64_t ahead_ns = full_ns > now_ns ? full_ns - now_ns : 0;
    uint64_t next_ns = ahead_ns + NS_PER_S / HANDSHAKE_LOAD_PER_S;
    cas_acq_rel(&load->full_ns, &full_ns,
                now_ns + (next_ns < 2 * NS_PER_S ? next_ns : 2 * NS_PER_S));
    return next_ns > NS_PER_S;
}

/* The network that a source can choose addresses in: a /24 of IPv4, a /64 of IPv6.  What came
 * through a neighbour has no address, and shares that neighbour's buckets. */
static struct handshake_source *find_source(struct handshake_gate *gate,
                                            const struct mesh_endpoint *from)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    uint64_t network = 0, neighbour = (uint64_t)from->via << 32;
    if (memcmp(from->address, mapped, sizeof(mapped)) == 0)
        memcpy(&network, from->address + sizeof(mapped), 3);
    else
        memcpy(&network, from->address, 8);
    uint64_t hash = (network ^ neighbour ^ gate->seed) * 0x9e3779b97f4a7c15ull;
    hash = (hash ^ hash >> 32) * (gate->seed | 1);
    return &gate->sources[(hash >> 40) % HANDSHAKE_SOURCES];
}

static bool source_take(struct handshake_bucket *bucket, const struct breath *b)
{
    return bucket_take(bucket, b->now_ns, HANDSHAKE_SOURCE_PER_S, HANDSHAKE_SOURCE_BURST);
}

/* The last 32 bytes are mac1 over all before it, and mac2. */
static bool mac1_ok(const struct handshake_gate *gate, const uint8_t *bytes, uint32_t len_bytes)
{
    uint8_t mac[HANDSHAKE_MAC_BYTES];
    uint32_t covered = len_bytes - 2 * HANDSHAKE_MAC_BYTES;
    crypto_generichash(mac, sizeof(mac), bytes, covered, gate->mac1_key, sizeof(gate->mac1_key));
    return sodium_memcmp(mac, bytes + covered, sizeof(mac)) == 0;
}

/* Whether the source of an initiation is beyond doubt: so is a neighbour, by the hop tag. */
static bool proven(const struct handshake_gate *gate, const uint8_t *bytes,
                   const struct mesh_endpoint *from, uint64_t now_ns)
{
    return from->via != 0 ||
           cookie_mac2_ok(gate, bytes, HANDSHAKE_INITIATION_BYTES, from, now_ns);
}

/* Whether an initiation may be looked at; otherwise the reason.  Sends the cookie. */
static bool admit(struct lane *lane, const struct breath *b, const uint8_t *bytes,
                  const struct mesh_endpoint *from, enum drop *reason)
{
    struct handshake_gate *gate = lane->mesh->gate;
    struct handshake_source *source = find_source(gate, from);
    bool loaded = under_load(&gate->load, b->now_ns);
    *reason = DROP_RATE_LIMIT;
    if (proven(gate, bytes, from, b->now_ns)) {
        if (!source_take(&source->proven, b))
            return false;
    } else if (loaded || !source_take(&source->unproven, b)) {
        /* Fewer bytes than came, and few per network: nobody is flooded with our cookies. */
        uint8_t reply[HANDSHAKE_COOKIE_BYTES];
        if (!source_take(&source->asked, b))
            return false;
        *reason = DROP_COOKIE;
        cookie_reply(gate, bytes, from, b->now_ns, reply);
        train_send_one(lane->trains.fds[0], lane->trains.v6, from, reply, sizeof(reply));
        return false;
    }
    return bucket_take(&gate->all, b->now_ns, HANDSHAKE_ALL_PER_S, HANDSHAKE_ALL_BURST);
}

static bool check(struct lane *lane, const struct breath *b, const uint8_t *bytes,
                  uint32_t len_bytes, const struct mesh_endpoint *from, enum drop *reason)
{
    enum { RESPONSE_RECEIVER_AT = 8, COOKIE_RECEIVER_AT = 4 };
    struct handshake_gate *gate = lane->mesh->gate;
    uint8_t type = bytes[0];
    *reason = DROP_BAD_RECORD;
    if (len_bytes != handshake_bytes(type) || !sodium_is_zero(bytes + 1, 3))
        return false;
    if (type != RECORD_INITIATION) {
        uint32_t at = type == RECORD_RESPONSE ? RESPONSE_RECEIVER_AT : COOKIE_RECEIVER_AT;
        *reason = DROP_UNKNOWN_INDEX;
        if (!expected(gate, bytes + at, b->now_ns))
            return false;
    }
    /* A cookie reply has no first MAC: it is sealed under the one that we sent. */
    *reason = DROP_BAD_MAC1;
    if (type != RECORD_COOKIE && !mac1_ok(gate, bytes, len_bytes))
        return false;
    if (type == RECORD_INITIATION)
        return admit(lane, b, bytes, from, reason);
    *reason = DROP_RATE_LIMIT;
    return source_take(&find_source(gate, from)->answers, b);
}

void handshake_receive(struct lane *lane, struct breath *b, const uint8_t *bytes,
                       uint32_t len_bytes, const struct mesh_endpoint *from)
{
    struct port *port = &lane->mesh->port;
    enum drop reason;
    if (!check(lane, b, bytes, len_bytes, from, &reason)) {
        port_drop(port, b, reason, 1);
        return;
    }
    struct punt punt = {.kind = PUNT_HANDSHAKE, .socket = lane->number, .port = from->port,
                         .via = from->via};
    memcpy(punt.address, from->address, sizeof(punt.address));
    if (!punt_put(b->punts, &punt, bytes, len_bytes))
        port_drop(port, b, DROP_PUNT_FULL, 1);
}
