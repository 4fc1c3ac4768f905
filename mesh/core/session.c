/* session.c - life of a session: counters, replay windows, promotion, endpoint.
 *
 * Untrusted, Threads, Source: see session.h.
 */
#include "mesh/core/session.h"

static bool read_endpoint(const struct session *s, uint32_t version, struct mesh_endpoint *out);

int session_new(struct session **out, const struct session_config *config, struct mesh_peer *peer,
                uint32_t generation, const IMB_MGR *library)
{
    _Static_assert(sizeof(((struct session *)0)->endpoint) >= sizeof(struct mesh_endpoint), "fits");
    const struct cipher *cipher = cipher_find(library, config->cipher);
    if (!cipher)
        return -ENOTSUP;
    struct session *s = aligned_alloc(CACHE_LINE, sizeof(*s));
    if (!s)
        return -ENOMEM;
    memset(s, 0, sizeof(*s));
    /* lockmem is page aligned, more than the 64 bytes that the cipher wants. */
    s->keys = (struct session_keys *)(void *)lockmem_new(sizeof(*s->keys));
    if (!s->keys) {
        free(s);
        return -ENOMEM;
    }
    cipher->expand(library, config->send_key, &s->keys->send);
    cipher->expand(library, config->receive_key, &s->keys->receive);
    s->cipher = cipher;
    memcpy(s->keys->relay_send, config->relay_send_key, sizeof(s->keys->relay_send));
    memcpy(s->keys->relay_receive, config->relay_receive_key, sizeof(s->keys->relay_receive));
    s->peer_id = config->peer;
    s->local_index = config->local_index;
    s->remote_index = config->remote_index;
    s->generation = generation;
    s->peer = peer;
    memcpy(s->node, peer->node, sizeof(s->node));
    s->confirmed = s->told = config->initiator != 0;
    session_set_endpoint(s, &config->endpoint);
    for (int lane = 0; lane < MESH_LANES; lane++) {
        s->tx[lane].to = config->endpoint;
        s->tx[lane].endpoint_version = s->endpoint_version;
    }
    *out = s;
    return 0;
}

void mesh_session_free(struct session *s)
{
    if (!s)
        return;
    lockmem_free((uint8_t *)s->keys, sizeof(*s->keys));
    free(s);
}

void session_promote(struct session *s)
{
    /* An older session must not displace a newer one, whichever thread comes first. */
    struct session *current = load_acquire(&s->peer->current);
    while (!current || (int32_t)(s->generation - current->generation) > 0) {
        if (cas_acq_rel(&s->peer->current, &current, s)) /* pairs with load_acquire by who seals */
            return;
    }
}

bool session_take_counter(struct session *s, uint32_t lane, uint64_t *counter)
{
    struct session_tx *tx = &s->tx[lane];
    if (unlikely(tx->granted == 0)) {
        if (load_relaxed(&s->granted) >= SESSION_LIMIT_RECORDS)
            return false;
        if (add_relaxed(&s->granted, SESSION_GRANT_RECORDS) >= SESSION_LIMIT_RECORDS)
            return false;
        tx->granted = SESSION_GRANT_RECORDS;
    }
    tx->granted--;
    *counter = tx->next++;
    return true;
}

const struct mesh_endpoint *session_endpoint(struct session *s, uint32_t lane)
{
    struct session_tx *tx = &s->tx[lane];
    uint32_t version = load_acquire(&s->endpoint_version); /* pairs with session_set_endpoint */
    if (unlikely(version != tx->endpoint_version)) {
        struct mesh_endpoint fresh;
        /* While it changes, the old one is as good. */
        if (read_endpoint(s, version, &fresh)) {
            tx->to = fresh;
            tx->endpoint_version = version;
        }
    }
    return &tx->to;
}

bool session_replay_ok(const struct session_window *w, uint64_t counter)
{
    if (counter >= w->next)
        return counter != UINT64_MAX; /* its successor must exist */
    if (w->next - counter > SESSION_WINDOW_RECORDS)
        return false;
    return (w->seen[counter / 64 % SESSION_WINDOW_WORDS] >> (counter % 64) & 1) == 0;
}

bool session_replay_commit(struct session_window *w, uint64_t counter)
{
    bool newest = counter >= w->next;
    if (newest) {
        /* Words entered for the first time since the ring came round hold old bits. */
        uint64_t word = w->next == 0 ? 0 : (w->next - 1) / 64;
        uint64_t steps = counter / 64 - word;
        if (steps > SESSION_WINDOW_WORDS)
            steps = SESSION_WINDOW_WORDS;
        for (uint64_t i = 0; i < steps; i++)
            w->seen[(counter / 64 - i) % SESSION_WINDOW_WORDS] = 0;
        w->next = counter + 1;
    }
    w->seen[counter / 64 % SESSION_WINDOW_WORDS] |= 1ull << (counter % 64);
    return newest;
}

/* Under the lock. */
static void write_endpoint(struct session *s, const struct mesh_endpoint *to)
{
    uint64_t words[ARRAY_LEN(s->endpoint)] = {0};
    memcpy(words, to, sizeof(*to));
    uint32_t version = load_relaxed(&s->endpoint_version);
    store_relaxed(&s->endpoint_version, version + 1);
    fence_full(); /* a reader that sees a new word also sees the odd version */
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        store_relaxed(&s->endpoint[i], words[i]);
    store_release(&s->endpoint_version, version + 2); /* pairs with session_endpoint */
}

bool session_set_endpoint(struct session *s, const struct mesh_endpoint *to)
{
    if (!trylock_take(&s->endpoint_lock))
        return false;
    write_endpoint(s, to);
    trylock_give(&s->endpoint_lock);
    return true;
}

int session_set_lanes(struct session *s, const struct mesh_endpoint *at, uint32_t lanes)
{
    struct mesh_endpoint known;
    while (!trylock_take(&s->endpoint_lock)) /* a worker holds it for a few stores */
        cpu_relax();
    bool there = read_endpoint(s, load_relaxed(&s->endpoint_version), &known) &&
                 endpoint_equal(&known, at);
    known.own_lanes = lanes;
    if (there)
        write_endpoint(s, &known);
    trylock_give(&s->endpoint_lock);
    return there ? 0 : -ESTALE;
}

/* The endpoint of that version; false when it is being changed. */
static bool read_endpoint(const struct session *s, uint32_t version, struct mesh_endpoint *out)
{
    uint64_t words[ARRAY_LEN(s->endpoint)];
    if (version & 1)
        return false;
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        words[i] = load_acquire(&s->endpoint[i]); /* pairs with the fence of session_set_endpoint */
    if (load_relaxed(&s->endpoint_version) != version)
        return false;
    memcpy(out, words, sizeof(*out));
    return true;
}

bool session_get_endpoint(const struct session *s, struct mesh_endpoint *out, uint32_t *version)
{
    *version = load_acquire(&s->endpoint_version); /* pairs with session_set_endpoint */
    return read_endpoint(s, *version, out);
}

static void later(uint64_t *time_ns, const uint64_t *other_ns)
{
    uint64_t t = load_relaxed(other_ns);
    if (t > *time_ns)
        *time_ns = t;
}

void session_read_stats(const struct session *s, struct session_stats *out)
{
    uint64_t now_ns = clock_now_ns();
    memset(out, 0, sizeof(*out));
    for (int lane = 0; lane < MESH_LANES; lane++) {
        const struct session_tx *tx = &s->tx[lane];
        const struct session_rx *rx = &s->rx[lane];
        out->tx_records += load_relaxed(&tx->records);
        out->tx_bytes += load_relaxed(&tx->bytes);
        out->rx_records += load_relaxed(&rx->records);
        out->rx_bytes += load_relaxed(&rx->bytes);
        out->rx_failed += load_relaxed(&rx->failed);
        out->relayed_records += load_relaxed(&tx->relayed_records);
        out->relayed_bytes += load_relaxed(&tx->relayed_bytes);
        later(&out->last_tx_ns, &tx->last_ns);
        if (load_relaxed(&tx->last_ns) + SESSION_BUSY_NS > now_ns)
            out->busy_lanes |= 1u << lane;
        later(&out->last_keepalive_ns, &tx->last_keepalive_ns);
        later(&out->last_rx_ns, &rx->last_ns);
        later(&out->last_rx_packet_ns, &rx->last_packet_ns);
    }
    out->confirmed = load_relaxed(&s->confirmed);
    out->current = load_acquire(&s->peer->current) == s; /* pairs with session_promote */
    /* A change takes a few stores: the writer is a worker, or this very thread. */
    uint32_t version;
    while (!session_get_endpoint(s, &out->endpoint, &version))
        cpu_relax();
}
