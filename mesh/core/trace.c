/* trace.c - asks become answers where they lie; answers to ours are handed up.
 *
 * Untrusted, Threads: see trace.h.
 */
#include "mesh/core/trace.h"

#include "mesh/core/relay.h"

struct trace {
    uint8_t type;
    uint8_t end;
    uint8_t zero[6];
    uint64_t id;
    uint8_t origin[RECORD_NODE_BYTES];
    uint8_t public_key[MESH_PUBLIC_KEY_BYTES];
};

_Static_assert(sizeof(struct trace) == TRACE_BYTES, "it is copied as it is");

void trace_ask(const struct mesh *m, uint64_t id, uint8_t *message)
{
    struct trace trace = {.type = RECORD_TRACE, .end = TRACE_ASK, .id = id};
    memcpy(trace.origin, m->node_id, sizeof(trace.origin));
    memcpy(message, &trace, sizeof(trace));
}

bool trace_is_ask(const uint8_t *message)
{
    return message[0] == RECORD_TRACE && message[offsetof(struct trace, end)] == TRACE_ASK;
}

static void hand_up(struct lane *lane, struct breath *b, struct session *s, uint32_t number,
                    const struct trace *trace)
{
    struct trace_reply reply = {
        .received_ns = clock_now_ns(), .id = trace->id, .end = trace->end};
    const struct punt punt = {.kind = PUNT_TRACE_REPLY, .id = s->local_index};
    memcpy(reply.public_key, trace->public_key, sizeof(reply.public_key));
    if (!session_rate_ok(&s->rx[number].traces_up_full_ns, b->now_ns, TRACE_PER_S, TRACE_BURST))
        port_drop(&lane->mesh->port, b, DROP_RATE_LIMIT, 1);
    else if (!punt_put(b->punts, &punt, &reply, sizeof(reply)))
        port_drop(&lane->mesh->port, b, DROP_PUNT_FULL, 1);
}

void trace_receive(struct lane *lane, struct breath *b, struct session *s, uint32_t number,
                   uint8_t *bytes)
{
    struct trace trace;
    memcpy(&trace, bytes + MESH_RELAY_BYTES, sizeof(trace));
    if (trace.end == TRACE_ASK)
        trace_answer(lane, b, s, number, bytes, TRACE_REACHED);
    else if (trace.end < TRACE_ENDS)
        hand_up(lane, b, s, number, &trace);
    else
        port_drop(&lane->mesh->port, b, DROP_BAD_RECORD, 1);
}

void trace_answer(struct lane *lane, struct breath *b, struct session *s, uint32_t number,
                  uint8_t *bytes, enum trace_end end)
{
    const struct mesh *m = lane->mesh;
    struct trace trace;
    if (!session_rate_ok(&s->rx[number].traces_full_ns, b->now_ns, TRACE_PER_S, TRACE_BURST)) {
        port_drop(&m->port, b, DROP_RATE_LIMIT, 1);
        return;
    }
    memcpy(&trace, bytes + MESH_RELAY_BYTES, sizeof(trace));
    trace.end = (uint8_t)end;
    memset(trace.zero, 0, sizeof(trace.zero));
    memcpy(trace.public_key, m->public_key, sizeof(trace.public_key));
    memcpy(bytes + MESH_RELAY_BYTES, &trace, sizeof(trace));
    relay_return(lane, b, s, trace.origin, bytes, MESH_RELAY_BYTES + TRACE_BYTES);
}
