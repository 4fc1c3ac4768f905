/* handshake.c - length, first MAC, rate; then Python.
 *
 * Untrusted, Threads, Source: see handshake.h.
 */
#include "mesh/core/handshake.h"

#include <sodium.h>

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

int handshake_limits_init(struct handshake_limits *limits)
{
    memset(limits, 0, sizeof(*limits));
    if (sodium_init() < 0)
        return -EIO;
    randombytes_buf(&limits->seed, sizeof(limits->seed));
    return 0;
}

/* A token bucket counted in time: a token is worth interval_ns, and burst of them fit. */
static bool bucket_take(struct handshake_bucket *bucket, uint64_t now_ns, uint64_t interval_ns,
                        uint32_t burst)
{
    uint64_t full_ns = interval_ns * burst;
    uint64_t since_ns = now_ns - bucket->filled_ns;
    bool full = bucket->filled_ns == 0 || since_ns >= full_ns;
    uint64_t credit_ns = full ? full_ns : bucket->credit_ns + since_ns;
    if (credit_ns > full_ns)
        credit_ns = full_ns;
    bucket->filled_ns = now_ns;
    bucket->credit_ns = credit_ns;
    if (credit_ns < interval_ns)
        return false;
    bucket->credit_ns = credit_ns - interval_ns;
    return true;
}

/* The network that a source can choose addresses in: a /24 of IPv4, a /64 of IPv6.  What came
 * through a neighbour has no address, and shares that neighbour's bucket. */
static struct handshake_bucket *source_bucket(struct handshake_limits *limits,
                                              const struct mesh_endpoint *from)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    uint64_t network = 0, neighbour = (uint64_t)from->via << 32;
    if (memcmp(from->address, mapped, sizeof(mapped)) == 0)
        memcpy(&network, from->address + sizeof(mapped), 3);
    else
        memcpy(&network, from->address, 8);
    uint64_t hash = (network ^ neighbour ^ limits->seed) * 0x9e3779b97f4a7c15ull;
    hash = (hash ^ hash >> 32) * (limits->seed | 1);
    return &limits->sources[(hash >> 40) % HANDSHAKE_SOURCES];
}

static bool within_limits(struct lane *lane, const struct breath *b, bool initiation,
                          const struct mesh_endpoint *from)
{
    struct handshake_limits *limits = &lane->limits;
    uint64_t all_ns = NS_PER_S * lane->mesh->lanes_count / HANDSHAKE_ALL_PER_S;
    if (!bucket_take(source_bucket(limits, from), b->now_ns, NS_PER_S / HANDSHAKE_SOURCE_PER_S,
                     HANDSHAKE_SOURCE_BURST))
        return false;
    return !initiation || bucket_take(&limits->all, b->now_ns, all_ns, HANDSHAKE_ALL_BURST);
}

/* The last 32 bytes are mac1 over all before it, and mac2, which Python checks. */
static bool mac1_ok(const struct mesh *m, const uint8_t *bytes, uint32_t len_bytes)
{
    uint8_t mac[HANDSHAKE_MAC_BYTES];
    uint32_t covered = len_bytes - 2 * HANDSHAKE_MAC_BYTES;
    crypto_generichash(mac, sizeof(mac), bytes, covered, m->mac1_key, sizeof(m->mac1_key));
    return sodium_memcmp(mac, bytes + covered, sizeof(mac)) == 0;
}

void handshake_receive(struct lane *lane, struct breath *b, const uint8_t *bytes,
                       uint32_t len_bytes, const struct mesh_endpoint *from)
{
    struct port *port = &lane->mesh->port;
    uint8_t type = bytes[0];
    if (len_bytes != handshake_bytes(type)) {
        port_drop(port, b, DROP_BAD_RECORD, 1);
        return;
    }
    /* A cookie reply has no first MAC: it is sealed under the one that we sent. */
    if (type != RECORD_COOKIE && !mac1_ok(lane->mesh, bytes, len_bytes)) {
        port_drop(port, b, DROP_BAD_MAC1, 1);
        return;
    }
    if (!within_limits(lane, b, type == RECORD_INITIATION, from)) {
        port_drop(port, b, DROP_RATE_LIMIT, 1);
        return;
    }
    struct punt punt = {.kind = PUNT_HANDSHAKE, .socket = lane->number, .port = from->port,
                         .via = from->via};
    memcpy(punt.address, from->address, sizeof(punt.address));
    if (!punt_put(b->punts, &punt, bytes, len_bytes))
        port_drop(port, b, DROP_PUNT_FULL, 1);
}
