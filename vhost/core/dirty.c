/* dirty.c - maps and fills the log of written pages.
 *
 * Untrusted:  see dirty.h.
 * Threads:    see dirty.h.
 */
#include "vhost/core/dirty.h"

int dirty_log_new(struct port *p, int fd, uint64_t size_bytes, uint64_t offset,
                  struct dirty_log **out)
{
    struct mem_region *r;
    /* Checks all sums, and that the file is as long as it should be; when it shrinks later, the
     * port's memory is lost as if it were a region's. */
    int rc = mem_region_map(p, fd, 0, size_bytes, 0, offset, &r);
    if (rc < 0)
        return rc;
    struct dirty_log *log = calloc(1, sizeof(*log));
    if (log == NULL) {
        mem_region_unmap(r);
        return -ENOMEM;
    }
    log->region = r;
    log->bits = r->base;
    log->pages = size_bytes * 8; /* a region's size is far below what would overflow */
    *out = log;
    return 0;
}

void dirty_log_free(struct dirty_log *log)
{
    mem_region_unmap(log->region);
    free(log);
}

uint64_t dirty_log_beyond(const struct dirty_log *log) { return load_relaxed(&log->beyond); }

void dirty_mark(struct dirty_log *log, uint64_t gpa, uint64_t len_bytes)
{
    uint64_t page = gpa / DIRTY_PAGE_BYTES, last = (gpa + len_bytes - 1) / DIRTY_PAGE_BYTES;
    if (unlikely(last >= log->pages || last < page)) {
        add_relaxed(&log->beyond, 1);
        if (page >= log->pages)
            return;
        last = log->pages - 1;
    }
    for (; page <= last; page++) /* pairs with the front-end's exchange of the byte */
        or_release(&log->bits[page / 8], (uint8_t)(1u << page % 8));
}
