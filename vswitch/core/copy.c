/* copy.c - copies of what another CPU has just written.
 *
 * A frame's payload lies in the cache of the CPU that its sender runs on.  Fetched line by line it
 * comes at the pace of one latency after another; asked for in advance it comes as fast as the
 * path between the caches is wide.  What to ask for depends on who built the CPU, and is chosen
 * once, at start:
 *
 *     Intel   early into the second cache, in time into the first, and the target as its owner
 *     others  measured on AMD (Zen 5): each source line once, a page ahead.  Between CPUs near to
 *             each other any request costs, and asking as for Intel costs a quarter; between CPUs
 *             far apart a plain loop takes a quarter longer than this
 *
 * Untrusted: nothing; who calls has checked both ranges.
 * Threads:   any; functions keep no state.
 */
#include "vswitch/core/packet.h"

/* Lines ahead.  On Intel twice as far crowds out what comes before. */
enum { LINES_FAR = 64, LINES_NEAR = 16 };

/* Compilers move 64 bytes in pieces of 16 even where they may use wider ones. */
typedef uint8_t half_line __attribute__((vector_size(CACHE_LINE / 2), aligned(1), may_alias));

typedef void copy_fn(uint8_t *to, const uint8_t *from, size_t len_bytes, size_t from_bytes);

static ALWAYS_INLINE void copy_line(uint8_t *to, const uint8_t *from)
{
    half_line low = *(const half_line *)from;
    half_line high = *(const half_line *)(from + CACHE_LINE / 2);
    *(half_line *)to = low;
    *(half_line *)(to + CACHE_LINE / 2) = high;
}

/* Compiled once for the vectors that every x86-64 has, and for wider ones, as Intel has it and as
 * others have.  Stores are to whole lines, wherever the bytes come from. */
static ALWAYS_INLINE void copy_lines(uint8_t *to, const uint8_t *from, size_t len_bytes,
                                     size_t from_bytes, bool intel)
{
    copy_line(to, from);
    size_t at = CACHE_LINE - ((uintptr_t)to & (CACHE_LINE - 1));
    UNROLLED
    for (; at + CACHE_LINE <= len_bytes; at += CACHE_LINE) {
        const uint8_t *far = from + at + LINES_FAR * CACHE_LINE;
        bool has_far = at + LINES_FAR * CACHE_LINE < from_bytes;
        if (!intel && has_far)
            __builtin_prefetch(far);
        if (intel && has_far)
            __builtin_prefetch(far, 0, 2);
        if (intel) {
            __builtin_prefetch(from + at + LINES_NEAR * CACHE_LINE);
            prefetch_to_write(to + at + LINES_NEAR * CACHE_LINE);
        }
        copy_line(to + at, from + at);
    }
    copy_line(to + len_bytes - CACHE_LINE, from + len_bytes - CACHE_LINE);
}

static void copy_any(uint8_t *to, const uint8_t *from, size_t len_bytes, size_t from_bytes)
{
    copy_lines(to, from, len_bytes, from_bytes, false);
}

__attribute__((target("avx2"))) static void copy_avx2(uint8_t *to, const uint8_t *from,
                                                      size_t len_bytes, size_t from_bytes)
{
    copy_lines(to, from, len_bytes, from_bytes, false);
}

__attribute__((target("avx2"))) static void copy_avx2_intel(uint8_t *to, const uint8_t *from,
                                                            size_t len_bytes, size_t from_bytes)
{
    copy_lines(to, from, len_bytes, from_bytes, true);
}

static copy_fn *chosen = copy_any;

__attribute__((constructor)) static void choose(void)
{
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2"))
        chosen = __builtin_cpu_is("intel") ? copy_avx2_intel : copy_avx2;
}

void copy_large(uint8_t *to, const uint8_t *from, size_t len_bytes, size_t from_bytes)
{
    chosen(to, from, len_bytes, from_bytes);
}
