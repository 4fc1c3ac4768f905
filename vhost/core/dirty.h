/* dirty.h - the log of guest pages that we wrote, which a live migration reads.
 *
 * One bit for each page of guest-physical memory, in a file that the front-end gave.  It is set
 * after the page was written, by an instruction that orders the two: whoever clears the bit and
 * copies the page afterwards has what was written, or sees the bit again.
 *
 * Untrusted:  the file, its size and offset; the addresses that are marked.  Nothing is written
 *             outside of the log: what it has no bit for is counted.
 * Threads:    made and freed by the control thread while no ring uses it; marking: any.
 * Source:     vhost-user specification, "Migration"; CVE-2020-10722 for the sums.
 */
#ifndef VHOST_DIRTY_H
#define VHOST_DIRTY_H

#include "vhost/core/memory.h"

enum { DIRTY_PAGE_BYTES = 4096 };

struct dirty_log {
    struct mem_region *region;
    uint8_t *bits;
    uint64_t pages;
    uint64_t beyond;       /* marks of pages that have no bit */
};

/* len_bytes, not 0, from gpa on were written. */
void dirty_mark(struct dirty_log *log, uint64_t gpa, uint64_t len_bytes);

#endif
