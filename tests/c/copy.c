/* copy.c - every way to copy that this CPU can run, also those that it would not choose: any
 * alignment, lengths around whole lines, and no byte beside the target touched.
 */
#include "vswitch/core/copy.c"

#include <stdio.h>

enum { ROOM = COPY_LARGE_BYTES + 5 * CACHE_LINE, UNTOUCHED = 0xee };

static uint8_t source[ROOM], target[ROOM];

static bool copies(copy_fn *copy, size_t to, size_t from, size_t len_bytes)
{
    memset(target, UNTOUCHED, sizeof(target));
    copy(target + to, source + from, len_bytes, len_bytes);
    for (size_t i = 0; i < sizeof(target); i++)
        if (target[i] != (i >= to && i < to + len_bytes ? source[from + i - to] : UNTOUCHED))
            return false;
    return true;
}

static bool copies_all(copy_fn *copy)
{
    static const size_t skews[] = {0, 1, 12, 31, 32, 33, 63, 64};
    for (size_t to = 0; to <= CACHE_LINE; to++)
        for (size_t i = 0; i < ARRAY_LEN(skews); i++)
            for (size_t more = 0; more <= 2 * CACHE_LINE; more++)
                if (!copies(copy, to, skews[i], COPY_LARGE_BYTES + more))
                    return false;
    return true;
}

int main(void)
{
    for (size_t i = 0; i < sizeof(source); i++)
        source[i] = (uint8_t)(i * 7 + i / 251 + 1);
    printf("any: %d\n", copies_all(copy_any));
    if (__builtin_cpu_supports("avx2"))
        printf("avx2: %d\nintel: %d\n", copies_all(copy_avx2), copies_all(copy_avx2_intel));
    return 0;
}
