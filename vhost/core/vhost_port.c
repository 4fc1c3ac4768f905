/* vhost_port.c - makes and frees vhost ports, swaps the rings they transmit to.
 *
 * Untrusted:  nothing.
 * Threads:    the control thread.
 */
#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vhost/core/vhost_port.h"

struct port *vhost_port_new(uint16_t id)
{
    int rc = call_prepare();
    struct vhost_port *vp = calloc(1, sizeof(*vp));
    if (rc < 0 || vp == NULL) {
        if (rc == 0)
            call_release();
        free(vp);
        errno = rc < 0 ? -rc : ENOMEM;
        return NULL;
    }
    vp->max_pairs = vp->pairs = 1;
    vp->alarm.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (vp->alarm.event_fd < 0)
        goto no_event;
    if (announcer_init(&vp->announcer, &vp->port) < 0)
        goto no_announcer;
    if (port_init(&vp->port, id) < 0)
        goto no_port;
    vp->port.tx = vhost_port_tx;
    return &vp->port;

no_port:
    announcer_fini(&vp->announcer);
no_announcer:
    close(vp->alarm.event_fd);
no_event:
    call_release();
    free(vp);
    return NULL;
}

void vhost_port_free(struct port *p)
{
    struct vhost_port *vp = vhost_port_of(p);
    vhost_port_reap(p);
    free(vp->txset);
    close(vp->alarm.event_fd);
    announcer_fini(&vp->announcer);
    port_fini(p);
    call_release();
    free(vp);
}

int vhost_port_event_fd(const struct port *p) { return vhost_port_of(p)->alarm.event_fd; }

struct mem_alarm *vhost_port_alarm(struct port *p) { return &vhost_port_of(p)->alarm; }

uint32_t vhost_port_memory_lost(const struct port *p)
{
    return load_relaxed(&vhost_port_of(p)->alarm.lost);
}

void vhost_port_reset(struct port *p)
{
    store_relaxed(&vhost_port_of(p)->alarm.lost, 0);
    vhost_port_set_max_pairs(p, 1);
}

void vhost_port_set_max_pairs(struct port *p, uint32_t pairs)
{
    struct vhost_port *vp = vhost_port_of(p);
    store_relaxed(&vp->max_pairs, min_u32(pairs, VHOST_MAX_PAIRS));
    store_relaxed(&vp->pairs, vp->max_pairs);
}

uint32_t vhost_port_pairs(const struct port *p) { return load_relaxed(&vhost_port_of(p)->pairs); }

int vhost_port_set_tx(struct port *p, struct vhost_queue *const *queues, uint32_t count)
{
    struct vhost_port *vp = vhost_port_of(p);
    if (count > VHOST_MAX_PAIRS)
        return -EINVAL;
    struct vhost_txset *set = calloc(1, sizeof(*set));
    if (set == NULL)
        return -ENOMEM;
    set->former = vp->txset;
    set->count = count;
    for (uint32_t i = 0; i < count; i++)
        set->queues[i] = queues[i];
    store_release(&vp->txset, set); /* pairs with vhost_port_tx */
    return 0;
}

void vhost_port_hold(struct port *p, uint32_t held)
{
    store_relaxed(&vhost_port_of(p)->held, held);
}

void vhost_port_reap(struct port *p)
{
    struct vhost_txset *set = vhost_port_of(p)->txset;
    while (set != NULL && set->former != NULL) {
        struct vhost_txset *former = set->former;
        set->former = former->former;
        free(former);
    }
}
