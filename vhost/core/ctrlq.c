/* ctrlq.c - serves a guest's control queue, for front-ends that hand it over.
 *
 * A command is readable bytes (class, command, data) and one writable byte for the answer.  The
 * driver spins until it has it, so the ring is polled and woken like any other; its burst
 * serves commands and yields no packets.
 *
 * We filter nothing by address or VLAN, so those commands succeed without effect: a device may
 * deliver more than was asked for (virtio 1.2, 5.1.6.5.1 and 5.1.6.5.3).
 *
 * Untrusted:  the command; its bytes are copied once.
 * Threads:    the worker that polls the queue.
 * Source:     virtio 1.2, section 5.1.6.5.
 */
#include "vhost/core/vhost_port.h"

enum { CLASS_RX = 0, CLASS_MAC = 1, CLASS_VLAN = 2, CLASS_ANNOUNCE = 3, CLASS_MQ = 4 };
enum { MAC_TABLE_SET = 0, MAC_ADDR_SET = 1, MQ_PAIRS_SET = 0, ANNOUNCE_ACK = 0 };
enum { LAST_RX_COMMAND = 5, LAST_VLAN_COMMAND = 1 };
enum { ANSWER_OK = 0, ANSWER_ERROR = 1 };
enum { COMMAND_BYTES = 8, MAX_COMMANDS = 32, COMMAND_SEGMENTS = 64 };

/* The first bytes of a command; none needs more to be decided. */
struct command {
    uint8_t bytes[COMMAND_BYTES];
    uint64_t len_bytes;            /* of the whole */
};

static void command_read(const struct segment *segs, uint32_t count, struct command *c)
{
    *c = (struct command){.len_bytes = 0};
    for (uint32_t i = 0; i < count; i++) {
        for (uint64_t k = 0; k < segs[i].len_bytes && c->len_bytes + k < COMMAND_BYTES; k++)
            c->bytes[c->len_bytes + k] = guest_load8(segs[i].base + k);
        c->len_bytes += segs[i].len_bytes;
    }
}

static uint8_t pairs_set(struct vhost_port *vp, const struct command *c)
{
    uint32_t pairs = (uint32_t)(c->bytes[2] | c->bytes[3] << 8);
    if (c->bytes[1] != MQ_PAIRS_SET || c->len_bytes != 4 || pairs == 0 ||
        pairs > load_relaxed(&vp->max_pairs))
        return ANSWER_ERROR;
    store_relaxed(&vp->pairs, pairs);
    return ANSWER_OK;
}

static uint8_t command_serve(struct vhost_port *vp, const struct command *c)
{
    uint8_t command = c->bytes[1];
    bool ok = false;
    if (c->len_bytes < 2)
        return ANSWER_ERROR;
    switch (c->bytes[0]) {
    case CLASS_RX:
        ok = command <= LAST_RX_COMMAND && c->len_bytes == 3;
        break;
    case CLASS_MAC:
        ok = command == MAC_ADDR_SET ? c->len_bytes == 8 : command == MAC_TABLE_SET;
        break;
    case CLASS_VLAN:
        ok = command <= LAST_VLAN_COMMAND && c->len_bytes == 4;
        break;
    case CLASS_ANNOUNCE:
        ok = command == ANNOUNCE_ACK && c->len_bytes == 2;
        break;
    case CLASS_MQ:
        return pairs_set(vp, c);
    default:
        break;
    }
    return ok ? ANSWER_OK : ANSWER_ERROR;
}

/* False when there is no command, or the ring broke. */
static bool serve_chain(struct vhost_queue *q)
{
    struct segment segs[COMMAND_SEGMENTS];
    uint64_t gpas[COMMAND_SEGMENTS];
    struct virtq *vq = &q->vq;
    struct virtq_buffers buffers;
    struct command command;
    vq->gpas = gpas;
    if (virtq_chain(vq, vq->kind, vq->next, VIRTQ_BOTH, segs, COMMAND_SEGMENTS, &buffers) !=
        VIRTQ_CHAIN)
        return false;
    if (buffers.too_many || buffers.segs == buffers.read_segs) {
        virtq_break(vq, VIRTQ_CONTROL_SHAPE);
        return false;
    }
    q->rx.walked += buffers.walked;
    command_read(segs, buffers.read_segs, &command);
    store_relaxed(segs[buffers.read_segs].base, command_serve(q->port, &command));
    if (vq->kind & VIRTQ_LOGGED)
        dirty_mark(vq->log, gpas[buffers.read_segs], 1);
    virtq_put_used(vq, vq->kind, buffers.elem, 1);
    return true;
}

uint32_t ctrlq_burst(struct rxq *rxq, struct breath *b, struct packet **out, uint32_t max)
{
    struct vhost_queue *q = CONTAINER_OF(rxq, struct vhost_queue, rxq);
    uint32_t served = 0;
    (void)out, (void)max;
    q->rx.walked = 0;
    while (served < MAX_COMMANDS && q->rx.walked < BURST_DESCS && virtq_usable(&q->vq) &&
           serve_chain(q))
        served++;
    if (served > 0)
        vhost_queue_publish(q, b);
    if (unlikely(virtq_broken(&q->vq)))
        vhost_queue_report(q);
    return 0;
}

void ctrlq_done(struct rxq *rxq, struct breath *b, uint32_t n)
{
    (void)rxq, (void)b;
    ASSERT(n == 0);
}
