/* own_port.c - the UDP port of a lane's own.
 *
 * Untrusted, Threads: see own_port.h.
 */
#include "mesh/core/own_port.h"

#include <sys/socket.h>

#include "mesh/core/probe.h"

/* Room for an answer; what is longer is none. */
enum { OWN_PORT_BYTES = RECORD_EMPTY_BYTES + sizeof(struct probe) };

static uint32_t own_burst(struct rxq *q, struct breath *b, struct packet **out, uint32_t max)
{
    struct lane *lane = CONTAINER_OF(q, struct lane, own_rxq);
    uint8_t area[RECEIVE_SLOTS][OWN_PORT_BYTES + 1];
    struct receive_slot slots[RECEIVE_SLOTS];
    uint32_t count = receive_slots(q->fd, area[0], sizeof(area[0]), slots);
    (void)out;
    (void)max;
    for (uint32_t i = 0; i < count; i++) {
        struct opened record;
        if (slots[i].len_bytes != OWN_PORT_BYTES)
            port_drop(q->port, b, DROP_BAD_RECORD, 1);
        else if (open_unordered(lane, b, area[i], OWN_PORT_BYTES, &slots[i].from, &record))
            probe_lane_answer(lane, b, &record);
    }
    return 0;
}

static void own_done(struct rxq *q, struct breath *b, uint32_t n)
{
    (void)q;
    (void)b;
    ASSERT(n == 0);
}

static bool own_arm(struct rxq *q)
{
    char byte;
    return recv(q->fd, &byte, sizeof(byte), MSG_PEEK | MSG_DONTWAIT) >= 0;
}

static void own_disarm(struct rxq *q)
{
    (void)q;
}

void own_port_init(struct lane *lane, int fd)
{
    lane->own_rxq = (struct rxq){.burst = own_burst,
                                 .done = own_done,
                                 .arm = own_arm,
                                 .disarm = own_disarm,
                                 .port = &lane->mesh->port,
                                 .fd = fd};
}
