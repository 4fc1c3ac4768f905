/* lockmem.c - memory for keys: locked, left out of core dumps, wiped before it is given back.
 *
 * Untrusted:  nothing.
 * Threads:    the control thread.
 */
#include "vswitch/core/port.h"

#include <sodium.h>
#include <sys/mman.h>
#include <unistd.h>

static size_t whole_pages(uint64_t len_bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (len_bytes + page - 1) / page * page;
}

uint8_t *lockmem_new(uint64_t len_bytes)
{
    size_t bytes = whole_pages(len_bytes);
    uint8_t *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    /* mlock fails beyond RLIMIT_MEMLOCK; a key that could be swapped out is refused. */
    if (mlock(p, bytes) != 0 || madvise(p, bytes, MADV_DONTDUMP) != 0) {
        munmap(p, bytes);
        return NULL;
    }
    return p;
}

void lockmem_free(uint8_t *p, uint64_t len_bytes)
{
    if (!p)
        return;
    sodium_memzero(p, len_bytes);
    munmap(p, whole_pages(len_bytes));
}
