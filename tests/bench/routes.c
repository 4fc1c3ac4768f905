/* routes.c - what a lookup costs among many routes. */
#include "tests/bench/ring.h"
#include "vswitch/core/port.h"

static uint64_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return *state >> 32;
}

/* The i-th route's address, spread over 10.0.0.0/8 and onwards, as ::ffff:a.b.c.d. */
static void address_of(uint32_t i, uint8_t *address)
{
    uint32_t v4 = 0x0a000000u + i * 256u + 1;
    memset(address, 0, 16);
    address[10] = address[11] = 0xff;
    for (uint32_t byte = 0; byte < 4; byte++)
        address[12 + byte] = (uint8_t)(v4 >> (24 - 8 * byte));
}

uint64_t route_lookups(uint32_t routes, uint32_t lookups)
{
    static const uint32_t prefixes[] = {96 + 24, 96 + 28, 96 + 32};
    uint64_t state = 1, found = 0;
    uint8_t address[16];
    struct lpm *t = lpm_new(routes);
    if (!t)
        return 0;
    for (uint32_t i = 0; i < routes; i++) {
        address_of(i, address);
        if (lpm_add(t, address, prefixes[i % 3], ROUTE_PEER + i % 1000) != 0)
            break;
    }
    uint64_t begun = tsc();
    for (uint32_t i = 0; i < lookups; i++) {
        address_of((uint32_t)(next_random(&state) % routes), address);
        found += lpm_lookup(t, address) >= 0;
    }
    uint64_t cycles = tsc() - begun;
    lpm_free(t);
    return found == lookups ? cycles : 0;
}
