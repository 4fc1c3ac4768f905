/* announce.h - frames that a port sends of its own: a guest that came by migration is here now.
 *
 * Untrusted:  the MAC address, which is the front-end's; it decides nothing here.
 * Threads:    frames are put in by the control thread and taken out by the worker that polls rxq.
 */
#ifndef VHOST_ANNOUNCE_H
#define VHOST_ANNOUNCE_H

#include "vhost/core/vhost_abi.h"

enum { ANNOUNCE_FRAMES = 16, ANNOUNCE_BYTES = 60 };

struct announcer {
    struct rxq rxq;
    uint32_t put;                  /* frames ever put in; the control thread's */
    uint32_t taken;                /* frames ever taken out; the worker's */
    uint8_t frames[ANNOUNCE_FRAMES][ANNOUNCE_BYTES];
};

int announcer_init(struct announcer *a, struct port *p);
void announcer_fini(struct announcer *a);

#endif
