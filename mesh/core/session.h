/* session.h - the keys shared with one peer, and what changes with each record under them.
 *
 * A session is found by the index that the peer writes into its records; a peer points to the one
 * its packets are sealed with.  Several exist at once around a rekey: the next (receives only until
 * the peer proves to have it), the current, the previous.
 *
 * Untrusted:  nothing is taken from a record here before its tag matched, but its index, lane and
 *             counter, which only look things up.
 * Threads:    keys, indexes, peer: immutable once installed.  tx[lane]: the worker that owns our
 *             lane; the last one is the control thread's.  rx[lane]: the worker that the peer's
 *             lane is steered to (open.c refuses others).  confirmed, endpoint: any, see below.
 *             Unlinked by the control thread, freed after worker_sync().
 * Source:     replay window: RFC 6479.  Promotion, roaming: WireGuard's paper, 5.4.6 and 6.5.
 */
#ifndef MESH_SESSION_H
#define MESH_SESSION_H

#include "mesh/core/cipher.h"
#include "mesh/core/record.h"

enum {
    SESSION_WINDOW_RECORDS = 8192,
    SESSION_WINDOW_WORDS = SESSION_WINDOW_RECORDS / 64 + 1,
    SESSION_GRANT_RECORDS = 1 << 16, /* taken by a lane from the key's limit at once */
};
#define SESSION_LIMIT_RECORDS (1ull << 32) /* that a key may seal, over all lanes */
#define SESSION_BUSY_NS (3 * NS_PER_S) /* a lane that sent in the last of them is busy */
#define SESSION_LIMIT_FAILED (1ull << 36)  /* failed opens after which the key is dead */

struct session_tx {
    CACHE_ALIGNED uint64_t next;     /* counter */
    uint64_t granted;                /* records left of the last grant */
    uint64_t records;
    uint64_t bytes;
    uint64_t last_ns;
    uint64_t last_keepalive_ns;
    uint64_t relayed_records;        /* passed on for others */
    uint64_t relayed_bytes;
    uint32_t endpoint_version;       /* of to */
    struct mesh_endpoint to;
};

/* Counters seen, of one counter space: RFC 6479. */
struct session_window {
    uint64_t next;                   /* the highest counter seen, plus one */
    uint64_t seen[SESSION_WINDOW_WORDS];
};

struct session_rx {
    CACHE_ALIGNED uint64_t records;
    uint64_t bytes;
    uint64_t failed;
    uint64_t last_ns;
    uint64_t last_packet_ns;
    uint64_t punts_full_ns;          /* of answers to probes: see session_rate_ok */
    uint64_t traces_full_ns;         /* of traces answered */
    uint64_t traces_up_full_ns;      /* of answers to traces handed up */
    uint32_t from_version;           /* of the endpoint when from was compared with it */
    struct mesh_endpoint from;       /* source of the newest record */
    struct session_window window;
};

/* Of relay headers, on cache lines that no other lane writes. */
struct session_relay_tx {
    CACHE_ALIGNED uint64_t next;
};

struct session_relay_rx {
    CACHE_ALIGNED struct session_window window;
};

/* Both keys as the cipher wants them, and those of relay headers: in locked memory. */
struct session_keys {
    union cipher_key send;
    union cipher_key receive;
    uint8_t relay_send[MESH_RELAY_KEY_BYTES];
    uint8_t relay_receive[MESH_RELAY_KEY_BYTES];
};

struct session {
    uint32_t peer_id;
    uint32_t local_index;
    uint32_t remote_index;
    uint32_t generation;             /* order of installation */
    uint8_t node[RECORD_NODE_BYTES]; /* the peer's */
    const struct cipher *cipher;
    struct session_keys *keys;
    struct mesh_peer *peer;
    CACHE_ALIGNED uint64_t granted;  /* records granted to lanes so far; any */
    uint32_t confirmed;              /* any */
    uint32_t told;                   /* that it is confirmed; any */
    struct trylock endpoint_lock;    /* taken by who changes the endpoint */
    uint32_t endpoint_version;       /* odd while it changes */
    uint64_t endpoint[4];            /* struct mesh_endpoint */
    struct session_tx tx[MESH_LANES];
    struct session_rx rx[MESH_LANES];
    /* Of relay headers, which have counters of their own.  A header keeps the lane of the record
     * behind it, so several of our lanes may count in one: any thread. */
    struct session_relay_tx relay_tx[MESH_LANES];
    struct session_relay_rx relay_rx[MESH_LANES]; /* as rx */
    /* By lane: the probe by its own port that has no answer yet, with bit 32 set; 0: none.  The
     * control thread writes, the lane's worker takes. */
    uint64_t own_asked[MESH_LANES];
};

struct mesh_peer {
    uint32_t id;
    uint8_t node[RECORD_NODE_BYTES];
    uint32_t via;                    /* see mesh_peer_set_via; any */
    struct mesh_peer *next_of_node;  /* in the mesh's table; the control thread links */
    struct session *current;         /* what to seal with; swapped by pointer; NULL: none */
    uint64_t asked_ns;               /* when a session was last asked for; races harm nobody */
};

/* -ENOMEM.  -ENOTSUP: not with that cipher. */
int session_new(struct session **out, const struct session_config *config, struct mesh_peer *peer,
                uint32_t generation, const IMB_MGR *library);

/* The session that the peer's packets are sealed with: s, unless a later one is. */
void session_promote(struct session *s);

/* ---- sending: lane's owner */

/* A counter that this key has not used in this lane; false: the key is used up. */
bool session_take_counter(struct session *s, uint32_t lane, uint64_t *counter);
/* Where to send, never torn; the pointer holds until the lane's next call. */
const struct mesh_endpoint *session_endpoint(struct session *s, uint32_t lane);

/* ---- receiving: lane's owner */

/* Whether the counter may be new.  Asked before the record is opened, to spare the work. */
bool session_replay_ok(const struct session_window *w, uint64_t counter);
/* Marks it.  Only for authentic records; true when it is the newest of the lane. */
bool session_replay_commit(struct session_window *w, uint64_t counter);

/* A token bucket as one number, when it will be full again: whether one more may pass. */
static inline bool session_rate_ok(uint64_t *full_ns, uint64_t now_ns, uint32_t per_s,
                                   uint32_t burst)
{
    const uint64_t interval_ns = NS_PER_S / per_s;
    uint64_t from_ns = *full_ns > now_ns ? *full_ns : now_ns;
    if (from_ns - now_ns > interval_ns * (burst - 1))
        return false;
    *full_ns = from_ns + interval_ns;
    return true;
}

/* ---- any thread */

/* False, both: another thread is changing it. */
bool session_get_endpoint(const struct session *s, struct mesh_endpoint *out, uint32_t *version);
bool session_set_endpoint(struct session *s, const struct mesh_endpoint *to);
/* Waits for others.  -ESTALE: the endpoint is not at. */
int session_set_lanes(struct session *s, const struct mesh_endpoint *at, uint32_t lanes);
void session_read_stats(const struct session *s, struct session_stats *out);

/* What own_asked holds while the answer to a probe is waited for. */
static inline uint64_t own_asked(uint32_t id)
{
    return 1ull << 32 | id;
}

/* 1: by the lane's own port, 0: by the common one. */
static inline uint32_t endpoint_by_own(const struct mesh_endpoint *to, uint32_t lane)
{
    return to->own_lanes >> lane & 1;
}

/* What the header of a message sent there says of its lane. */
static inline uint16_t endpoint_lane_field(const struct mesh_endpoint *to, uint32_t lane)
{
    return (uint16_t)(lane | endpoint_by_own(to, lane) << RECORD_LANE_OWN_SHIFT);
}

static inline bool endpoint_equal(const struct mesh_endpoint *a, const struct mesh_endpoint *b)
{
    return memcmp(a->address, b->address, sizeof(a->address)) == 0 && a->port == b->port &&
           a->via == b->via;
}

#endif
