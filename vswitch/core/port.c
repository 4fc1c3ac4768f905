/* port.c - what all port types share: identity and counters.
 *
 * Untrusted:  nothing.
 * Threads:    init and fini: the control thread.  Each worker writes its own counters.
 */
#include "vswitch/core/port.h"

int port_init(struct port *p, uint16_t id)
{
    size_t bytes = MAX_WORKERS * PORT_COUNTERS_STRIDE;
    memset(p, 0, sizeof(*p));
    p->counters = aligned_alloc(CACHE_LINE, bytes);
    if (!p->counters)
        return -ENOMEM;
    memset(p->counters, 0, bytes);
    p->id = id;
    return 0;
}

void port_fini(struct port *p)
{
    free(p->counters);
    p->counters = NULL;
}

uint16_t port_id(const struct port *p)
{
    return p->id;
}

void port_counters_read(const struct port *p, struct counters *out)
{
    uint64_t *sum = (uint64_t *)out;
    memset(out, 0, sizeof(*out));
    for (uint32_t worker = 0; worker < MAX_WORKERS; worker++) {
        struct breath who = {.worker = worker};
        const uint64_t *one = (const uint64_t *)port_counters(p, &who);
        for (size_t i = 0; i < sizeof(*out) / sizeof(*sum); i++)
            sum[i] += load_relaxed(&one[i]);
    }
}

void rxq_counters_read(const struct rxq *q, struct rxq_counters *out)
{
    const uint64_t *from = (const uint64_t *)&q->counters;
    uint64_t *to = (uint64_t *)out;
    for (size_t i = 0; i < sizeof(*out) / sizeof(*to); i++)
        to[i] = load_relaxed(&from[i]);
}
