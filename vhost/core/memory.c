/* memory.c - maps the guest's memory, finds addresses in it, survives its loss.
 *
 * A file that shrinks after it was mapped turns every access beyond its end into SIGBUS.  Only
 * the front-end can do that, and it must not take the other guests with it: the handler maps zero
 * pages over the whole region and raises the port's alarm; the worker goes on reading zeros and
 * finds the alarm at its next burst.
 *
 * Untrusted:  see memory.h.
 * Threads:    see memory.h.  The handler reads `slots` without a lock; the control thread fills a
 *             slot before it publishes its start, and clears the start before it unmaps.
 */
#define _GNU_SOURCE /* F_GET_SEALS */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "vhost/core/memory.h"

enum { MAX_SLOTS = 16384 };
#define PAGE_BYTES 4096ull
#define HUGETLBFS_MAGIC_NUMBER 0x958458f6 /* linux/magic.h */
#define LARGEST_REGION_BYTES (1ull << 46) /* half of what an x86-64 process can map */

struct slot {
    uintptr_t start; /* 0: free */
    uintptr_t end;
    struct mem_alarm *alarm;
};

static struct slot slots[MAX_SLOTS];
static struct sigaction former_action;
static pthread_once_t handler_once = PTHREAD_ONCE_INIT;

static void handler_install(void);
static int slot_take(uint8_t *map, uint64_t map_bytes, struct mem_alarm *alarm, uint32_t *slot);
static int file_check(int fd, uint64_t end, uint64_t *page_bytes);

int mem_region_map(struct port *p, int fd, uint64_t gpa, uint64_t size_bytes, uint64_t user,
                   uint64_t offset, struct mem_region **out)
{
    uint64_t end, page_bytes;
    if (size_bytes == 0 || size_bytes > LARGEST_REGION_BYTES || gpa + size_bytes < gpa ||
        user + size_bytes < user || __builtin_add_overflow(offset, size_bytes, &end) ||
        end > INT64_MAX)
        return -EINVAL;
    int rc = file_check(fd, end, &page_bytes);
    if (rc < 0)
        return rc;
    pthread_once(&handler_once, handler_install);
    struct mem_region *r = calloc(1, sizeof(*r));
    if (r == NULL)
        return -ENOMEM;
    uint64_t first = offset / page_bytes * page_bytes;
    r->map_bytes = (end - first + page_bytes - 1) / page_bytes * page_bytes;
    r->map = mmap(NULL, r->map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd,
                  (off_t)first);
    rc = r->map == MAP_FAILED ? -errno
                              : slot_take(r->map, r->map_bytes, vhost_port_alarm(p), &r->slot);
    if (rc < 0) {
        if (r->map != MAP_FAILED)
            munmap(r->map, r->map_bytes);
        free(r);
        return rc;
    }
    madvise(r->map, r->map_bytes, MADV_DONTDUMP); /* not ours to write to a disk */
    r->gpa = gpa;
    r->size_bytes = size_bytes;
    r->user = user;
    r->base = r->map + (offset - first);
    *out = r;
    return 0;
}

void mem_region_unmap(struct mem_region *r)
{
    store_release(&slots[r->slot].start, 0); /* pairs with find_slot */
    munmap(r->map, r->map_bytes);
    free(r);
}

struct mem_table *mem_table_new(void)
{
    struct mem_table *t = calloc(1, sizeof(*t));
    if (t == NULL)
        return NULL;
    t->list = calloc(1, sizeof(*t->list));
    if (t->list == NULL) {
        free(t);
        return NULL;
    }
    return t;
}

void mem_table_free(struct mem_table *t)
{
    mem_table_reap(t);
    free(t->list);
    free(t);
}

static bool ranges_meet(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes)
{
    return a < b + b_bytes && b < a + a_bytes;
}

static int list_add(struct mem_list *list, const struct mem_region *r)
{
    uint32_t at = 0;
    for (uint32_t i = 0; i < list->count; i++) {
        const struct mem_entry *other = &list->entries[i];
        if (ranges_meet(r->gpa, r->size_bytes, other->gpa, other->size_bytes) ||
            ranges_meet(r->user, r->size_bytes, other->user, other->size_bytes))
            return -EEXIST;
        if (other->gpa < r->gpa)
            at = i + 1;
    }
    memmove(&list->entries[at + 1], &list->entries[at],
            (list->count - at) * sizeof(list->entries[0]));
    list->entries[at] = (struct mem_entry){
        .gpa = r->gpa, .size_bytes = r->size_bytes, .user = r->user, .base = r->base};
    list->count++;
    return 0;
}

int mem_table_set(struct mem_table *t, struct mem_region *const *regions, uint32_t count)
{
    if (count > VHOST_MAX_REGIONS)
        return -ENOSPC;
    struct mem_list *list = calloc(1, sizeof(*list));
    if (list == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < count; i++) {
        int rc = list_add(list, regions[i]);
        if (rc < 0) {
            free(list);
            return rc;
        }
    }
    list->former = t->list;
    store_release(&t->list, list); /* pairs with mem_at */
    return 0;
}

void mem_table_reap(struct mem_table *t)
{
    while (t->list->former != NULL) {
        struct mem_list *former = t->list->former;
        t->list->former = former->former;
        free(former);
    }
}

const struct mem_entry *mem_find(const struct mem_list *list, uint64_t gpa)
{
    uint32_t low = 0, high = list->count; /* the first entry behind gpa is in [low, high] */
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (list->entries[middle].gpa <= gpa)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0 || gpa - list->entries[low - 1].gpa >= list->entries[low - 1].size_bytes)
        return NULL;
    return &list->entries[low - 1];
}

uint8_t *mem_user(const struct mem_table *t, uint64_t user, uint64_t len_bytes)
{
    const struct mem_list *list = t->list; /* the control thread's own */
    for (uint32_t i = 0; i < list->count; i++) {
        const struct mem_entry *r = &list->entries[i];
        uint64_t offset = user - r->user;
        if (offset < r->size_bytes)
            return len_bytes <= r->size_bytes - offset ? r->base + offset : NULL;
    }
    return NULL;
}

bool mem_user_gpa(const struct mem_table *t, uint64_t user, uint64_t *gpa)
{
    const struct mem_list *list = t->list; /* the control thread's own */
    for (uint32_t i = 0; i < list->count; i++) {
        const struct mem_entry *r = &list->entries[i];
        if (user - r->user < r->size_bytes) {
            *gpa = r->gpa + (user - r->user);
            return true;
        }
    }
    return false;
}

/* Only memory: memfd, tmpfs, hugetlbfs, which are the files that have seals.  A file of any other
 * kind may lie with a server of the front-end's own (FUSE, NFS), and then whoever touches it, or
 * only asks for its size, waits for as long as that server likes. */

static int file_check(int fd, uint64_t end, uint64_t *page_bytes)
{
    struct stat st;
    struct statfs fs;
    if (fcntl(fd, F_GET_SEALS) < 0)
        return -EBADF;
    if (fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0)
        return -errno;
    if (end > (uint64_t)st.st_size)
        return -EFBIG;
    /* Huge pages map at multiples of their own size only, offset and length alike. */
    bool huge = (uint32_t)fs.f_type == HUGETLBFS_MAGIC_NUMBER && fs.f_bsize > 0;
    *page_bytes = huge ? (uint64_t)fs.f_bsize : PAGE_BYTES;
    return 0;
}

static int slot_take(uint8_t *map, uint64_t map_bytes, struct mem_alarm *alarm, uint32_t *slot)
{
    for (uint32_t i = 0; i < MAX_SLOTS; i++) {
        if (load_relaxed(&slots[i].start) != 0)
            continue;
        store_relaxed(&slots[i].end, (uintptr_t)map + map_bytes);
        store_relaxed(&slots[i].alarm, alarm);
        store_release(&slots[i].start, (uintptr_t)map); /* pairs with find_slot */
        *slot = i;
        return 0;
    }
    return -EMFILE;
}

static struct slot *find_slot(uintptr_t address)
{
    for (uint32_t i = 0; i < MAX_SLOTS; i++) {
        uintptr_t start = load_acquire(&slots[i].start); /* pairs with slot_take */
        if (start != 0 && address >= start && address < load_relaxed(&slots[i].end))
            return &slots[i];
    }
    return NULL;
}

/* Async-signal-safe: mmap, write and sigaction are system calls, nothing is allocated or locked. */
static void on_sigbus(int number, siginfo_t *info, void *context)
{
    int saved = errno;
    struct slot *s = find_slot((uintptr_t)info->si_addr);
    if (s != NULL) {
        uintptr_t start = load_relaxed(&s->start);
        size_t len_bytes = load_relaxed(&s->end) - start;
        void *at = mmap((void *)start, len_bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
        if (at != MAP_FAILED) {
            uint64_t one = 1;
            struct mem_alarm *alarm = load_relaxed(&s->alarm);
            store_relaxed(&alarm->lost, 1);
            if (write(alarm->event_fd, &one, sizeof(one)) < 0)
                errno = saved; /* already readable */
            errno = saved;
            return;
        }
    }
    errno = saved;
    if (former_action.sa_flags & SA_SIGINFO) {
        former_action.sa_sigaction(number, info, context);
    } else if (former_action.sa_handler != SIG_DFL && former_action.sa_handler != SIG_IGN) {
        former_action.sa_handler(number);
    } else {
        signal(SIGBUS, SIG_DFL); /* the access is made again, and ends the process as it should */
    }
}

static void handler_install(void)
{
    struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    ASSERT(sigaction(SIGBUS, &action, &former_action) == 0);
}
