/* base.h - what every C file stands on: assertions, memory order, time.
 *
 * Untrusted: nothing here; guest_load*() is how others read what is.
 * Threads:   any; functions keep no state.
 * Source:    the definitions of acquire and release are those of C11, 5.1.2.4 and 7.17.3.
 */
#ifndef VSW_BASE_H
#define VSW_BASE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if defined(__x86_64__)
#include <x86intrin.h>
#else
#error "x86-64 only: the memory order and the cycle counter of other CPUs are not done yet"
#endif

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define CACHE_LINE 64
#define CACHE_ALIGNED _Alignas(CACHE_LINE)
/* For bodies that are instantiated with constant parameters. */
#define ALWAYS_INLINE inline __attribute__((always_inline))
/* Before a loop of few, constant rounds. */
#define UNROLLED _Pragma("GCC unroll 8")
#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* For our own mistakes only, and kept in release builds.  Foreign bytes never reach it. */
#define ASSERT(x) (likely(x) ? (void)0 : __builtin_trap())

#define NS_PER_US 1000ull
#define NS_PER_MS 1000000ull
#define NS_PER_S 1000000000ull

/* ---- memory order: the only place where it is spelled out
 *
 * release: no read or write before it in program order is seen after it by a thread that acquires
 *          the value it stored.
 * acquire: no read or write after it in program order happens before it.
 * relaxed: whole, that is never torn, and nothing more.
 * Each use names its partner in a comment.
 */
#define load_relaxed(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define store_relaxed(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define cas_acq_rel(p, expected, v) \
    __atomic_compare_exchange_n((p), (expected), (v), false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)
#define add_relaxed(p, v) __atomic_fetch_add((p), (v), __ATOMIC_RELAXED)
#define add_release(p, v) __atomic_fetch_add((p), (v), __ATOMIC_RELEASE)
#define sub_acq_rel(p, v) __atomic_fetch_sub((p), (v), __ATOMIC_ACQ_REL)
#define or_release(p, v) __atomic_fetch_or((p), (v), __ATOMIC_RELEASE)

/* Orders a store before a later load, which release and acquire do not: publish, then look whether
 * the other side wants to be told (virtio 1.2, 2.7.13.4.1). */
static inline void fence_full(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

/* One read of memory that another party may change at any time: never repeated by the compiler, so
 * the value that was checked is the value that is used. */
#define guest_load8(p) __atomic_load_n((const uint8_t *)(p), __ATOMIC_RELAXED)
#define guest_load16(p) __atomic_load_n((const uint16_t *)(p), __ATOMIC_RELAXED)
#define guest_load32(p) __atomic_load_n((const uint32_t *)(p), __ATOMIC_RELAXED)
#define guest_load64(p) __atomic_load_n((const uint64_t *)(p), __ATOMIC_RELAXED)

/* Counters have one writer and any number of readers. */
static inline void counter_add(uint64_t *counter, uint64_t n)
{
    store_relaxed(counter, load_relaxed(counter) + n);
}

/* A lock that is only ever tried: nobody waits, whoever fails does something else first. */
struct trylock {
    uint32_t taken;
};

static inline bool trylock_take(struct trylock *lock)
{
    uint32_t expected = 0;
    return load_relaxed(&lock->taken) == 0 && cas_acq_rel(&lock->taken, &expected, 1);
}

static inline void trylock_give(struct trylock *lock)
{
    store_release(&lock->taken, 0); /* pairs with trylock_take */
}

/* ---- time */

static inline uint64_t cycles_now(void) { return __rdtsc(); }
static inline void cpu_relax(void) { _mm_pause(); }

static inline uint64_t clock_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/* ---- bytes in network order, at any alignment */

static inline uint16_t get_be16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof(v));
    return __builtin_bswap16(v);
}

static inline uint32_t get_be32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof(v));
    return __builtin_bswap32(v);
}

static inline void put_be16(uint8_t *p, uint16_t v)
{
    v = __builtin_bswap16(v);
    memcpy(p, &v, sizeof(v));
}

static inline void put_be32(uint8_t *p, uint32_t v)
{
    v = __builtin_bswap32(v);
    memcpy(p, &v, sizeof(v));
}

/* Asks for a line as its only owner.  For __builtin_prefetch(p, 1) the compiler would have to be
 * told that the CPU can do so; the instruction does nothing on x86-64 CPUs that cannot. */
static inline void prefetch_to_write(const void *p)
{
    __asm__ volatile("prefetchw %0" : : "m"(*(const char *)p));
}

static inline uint32_t min_u32(uint32_t a, uint32_t b) { return a < b ? a : b; }

#endif
