/* vhost_abi.h - the guard around abi.h, and what C adds to it.
 *
 * Untrusted: nothing here.
 * Threads:   as abi.h says of each function.
 */
#ifndef VHOST_ABI_H
#define VHOST_ABI_H

#include "vswitch/core/port.h"
#include "vhost/core/abi.h"

_Static_assert(VHOST_MAX_RINGS == 2 * VHOST_MAX_PAIRS + 1, "pairs and the control queue");
_Static_assert(sizeof(struct vhost_ring) == 96, "no padding that Python would have to know");
_Static_assert(sizeof(((struct vhost_queue_status *)0)->drops) >= DROP_REASONS * sizeof(uint64_t),
               "room for every reason");

#endif
