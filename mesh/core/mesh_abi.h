/* mesh_abi.h - the guarded way for C to read mesh/core/abi.h.
 *
 * Untrusted:  nothing.
 * Threads:    see abi.h.
 */
#ifndef MESH_ABI_H
#define MESH_ABI_H

#include "vswitch/core/port.h"
#include "mesh/core/abi.h"

_Static_assert((int)MAX_WORKERS <= (int)MESH_LANES, "each worker has a lane");

#endif
