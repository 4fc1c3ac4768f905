/* copy.c - copies of what another CPU has just written.
 *
 * A frame's payload lies in the cache of the CPU that its sender runs on.  Fetched line by line it
 * comes at the pace of one latency after another; asked for in advance it comes as fast as the
 * path between the caches is wide.  libc's memcpy leaves that to the hardware, which begins anew in
 * every page.
 *
 * Untrusted: nothing; who calls has checked both ranges.
 * Threads:   any; functions keep no state.
 */
#include "vswitch/core/packet.h"

/* Lines ahead, measured between two cores of an Intel server: into the second cache early, into
 * the first in time.  Twice as far crowds out what comes before. */
enum { LINES_FAR = 64, LINES_NEAR = 16 };

typedef void copy_fn(uint8_t *to, const uint8_t *from, size_t len_bytes, size_t from_bytes);

/* Compiled once for the vectors that every x86-64 has, and once for wider ones. */
static inline __attribute__((always_inline)) void copy_lines(uint8_t *to, const uint8_t *from,
                                                             size_t len_bytes, size_t from_bytes)
{
    size_t at = 0;
    for (; at + CACHE_LINE <= len_bytes; at += CACHE_LINE) {
        if (at + LINES_FAR * CACHE_LINE < from_bytes)
            __builtin_prefetch(from + at + LINES_FAR * CACHE_LINE, 0, 2);
        __builtin_prefetch(from + at + LINES_NEAR * CACHE_LINE);
        prefetch_to_write(to + at + LINES_NEAR * CACHE_LINE);
        memcpy(to + at, from + at, CACHE_LINE);
    }
    memcpy(to + at, from + at, len_bytes - at);
}

static void copy_any(uint8_t *to, const uint8_t *from, size_t len_bytes, size_t from_bytes)
{
    copy_lines(to, from, len_bytes, from_bytes);
}

__attribute__((target("avx2"))) static void copy_avx2(uint8_t *to, const uint8_t *from,
                                                      size_t len_bytes, size_t from_bytes)
{
    copy_lines(to, from, len_bytes, from_bytes);
}

static copy_fn *chosen = copy_any;

__attribute__((constructor)) static void choose(void)
{
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2"))
        chosen = copy_avx2;
}

void copy_large(uint8_t *to, const uint8_t *from, size_t len_bytes, size_t from_bytes)
{
    chosen(to, from, len_bytes, from_bytes);
}
