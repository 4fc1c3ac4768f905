/* open.c - records become authentic plaintext, in place.
 *
 * Untrusted, Threads: see open.h.
 */
#include "mesh/core/open.h"

static bool refuse(const struct lane *lane, const struct breath *b, enum drop reason)
{
    port_drop(&lane->mesh->port, b, reason, 1);
    return false;
}

static bool is_for_us(const struct mesh *m, const struct record_header *header)
{
    return memcmp(header->node, m->node_id, sizeof(header->node)) == 0;
}

static void describe(struct session *s, uint8_t *record, uint32_t len_bytes,
                     const struct mesh_endpoint *from, uint32_t lane, struct opened *out)
{
    out->session = s;
    out->lane = (uint16_t)lane;
    out->from = from;
    memcpy(&out->prefix, record + RECORD_HEADER_BYTES, sizeof(out->prefix));
    out->ip = record + RECORD_PACKET_AT;
    out->ip_bytes = len_bytes - RECORD_EMPTY_BYTES;
}

static bool unseal(const struct mesh *m, const struct session *s,
                   const struct record_header *header, uint8_t *record, uint32_t text_bytes)
{
    uint8_t nonce[RECORD_NONCE_BYTES], aad[RECORD_AAD_BYTES];
    uint8_t *text = record + RECORD_HEADER_BYTES;
    record_aad(record, aad);
    record_nonce(header->lane, header->counter, nonce);
    return s->cipher->open(m->library, &s->keys->receive, nonce, aad, text, text_bytes);
}

/* The first authentic record proves that the peer has the key: from now on we send with it. */
static void confirm(struct session *s, struct breath *b)
{
    uint32_t told = 0;
    if (!load_relaxed(&s->confirmed)) {
        session_promote(s);
        store_relaxed(&s->confirmed, 1);
    }
    if (!cas_acq_rel(&s->told, &told, 1)) /* another worker was first */
        return;
    struct punt punt = {.kind = PUNT_SESSION_CONFIRMED, .id = s->local_index};
    if (!punt_put(b->punts, &punt, NULL, 0))
        store_release(&s->told, 0); /* the next record tries again; pairs with the exchange */
}

/* The newest record came from elsewhere than the one before it, or somebody set the endpoint. */
static void roam(struct session *s, struct session_rx *rx, struct breath *b,
                 const struct mesh_endpoint *from)
{
    struct mesh_endpoint known;
    uint32_t version;
    if (!session_get_endpoint(s, &known, &version))
        return; /* being changed: the next record looks again */
    if (!endpoint_equal(&known, from)) {
        struct punt punt = {.kind = PUNT_ENDPOINT, .id = s->local_index, .port = from->port,
                             .via = from->via};
        memcpy(punt.address, from->address, sizeof(punt.address));
        if (!punt_put(b->punts, &punt, NULL, 0))
            return;
        /* A pinned one was chosen among several ways: Python decides. */
        if (!known.pinned) {
            if (!session_set_endpoint(s, from))
                return;
            version += 2;
        }
    }
    rx->from = *from;
    rx->from_version = version;
}

void open_note(struct session *s, struct session_rx *rx, struct breath *b, bool newest,
               const struct mesh_endpoint *from)
{
    store_relaxed(&rx->last_ns, b->now_ns);
    if (unlikely(!load_relaxed(&s->told)))
        confirm(s, b);
    if (newest && (unlikely(!endpoint_equal(from, &rx->from)) ||
                   unlikely(load_relaxed(&s->endpoint_version) != rx->from_version)))
        roam(s, rx, b, from);
}

/* Checks the tag of a record whose lane counts failures in rx. */
static bool unseal_counted(const struct lane *lane, const struct breath *b, const struct session *s,
                           struct session_rx *rx, const struct record_header *header,
                           uint8_t *record, uint32_t len_bytes)
{
    /* Each lane has its share of the limit, so that no lane need ask the others. */
    if (unlikely(load_relaxed(&rx->failed) >= SESSION_LIMIT_FAILED / MESH_LANES))
        return refuse(lane, b, DROP_AUTH);
    uint32_t text_bytes = len_bytes - RECORD_HEADER_BYTES - RECORD_TAG_BYTES;
    if (unlikely(!unseal(lane->mesh, s, header, record, text_bytes))) {
        counter_add(&rx->failed, 1);
        return refuse(lane, b, DROP_AUTH);
    }
    return true;
}

bool open_record(struct lane *lane, struct breath *b, uint8_t *record, uint32_t len_bytes,
                 const struct mesh_endpoint *from, struct opened *out)
{
    struct record_header header;
    if (unlikely(len_bytes < RECORD_EMPTY_BYTES))
        return refuse(lane, b, DROP_BAD_RECORD);
    memcpy(&header, record, sizeof(header));
    uint32_t number = header.lane & RECORD_LANE_BITS;
    if (unlikely(!lane_is_ours(lane, number) || !is_for_us(lane->mesh, &header)))
        return refuse(lane, b, DROP_BAD_RECORD);
    struct session *s = mesh_find_session(lane->mesh, header.index);
    if (unlikely(!s))
        return refuse(lane, b, DROP_UNKNOWN_INDEX);
    struct session_rx *rx = &s->rx[number];
    if (unlikely(!session_replay_ok(&rx->window, header.counter)))
        return refuse(lane, b, DROP_REPLAY);
    if (unlikely(!unseal_counted(lane, b, s, rx, &header, record, len_bytes)))
        return false;
    counter_add(&rx->records, 1);
    counter_add(&rx->bytes, len_bytes);
    bool control = prefix_is_control(record[RECORD_HEADER_BYTES]);
    if ((len_bytes > RECORD_EMPTY_BYTES) & !control)
        store_relaxed(&rx->last_packet_ns, b->now_ns);
    bool newest = session_replay_commit(&rx->window, header.counter);
    open_note(s, rx, b, newest & !control & !record_by_own_port(header.lane), from);
    describe(s, record, len_bytes, from, number, out);
    return true;
}

bool open_unordered(struct lane *lane, struct breath *b, uint8_t *record, uint32_t len_bytes,
                    const struct mesh_endpoint *from, struct opened *out)
{
    struct record_header header;
    ASSERT(len_bytes >= RECORD_EMPTY_BYTES);
    memcpy(&header, record, sizeof(header));
    if (header.type != RECORD_DATA || !is_for_us(lane->mesh, &header))
        return refuse(lane, b, DROP_BAD_RECORD);
    struct session *s = mesh_find_session(lane->mesh, header.index);
    if (!s)
        return refuse(lane, b, DROP_UNKNOWN_INDEX);
    if (!unseal_counted(lane, b, s, &s->rx[lane->number], &header, record, len_bytes))
        return false;
    describe(s, record, len_bytes, from, lane->number, out);
    return true;
}
