/* numa.c - where guest memory lies.
 *
 * Untrusted:  nothing; a region that shrank is an error of the call, not a fault.
 * Threads:    the control thread, while the region is mapped.
 * Source:     get_mempolicy(2).
 */
#include <errno.h>
#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vhost/core/memory.h"

int mem_region_node(const struct mem_region *r)
{
    int node = -1;
    /* By address: the kernel brings the page in, which a guest that boots does anyway. */
    long rc = syscall(SYS_get_mempolicy, &node, NULL, 0ul, r->base, MPOL_F_NODE | MPOL_F_ADDR);
    return rc < 0 ? -errno : node;
}
