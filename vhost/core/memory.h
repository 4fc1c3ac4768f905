/* memory.h - the guest's memory as we map it, and the translation of its addresses.
 *
 * A table belongs to one port for its whole life.  What it lists is replaced as a whole, under
 * traffic: a list never changes once it is published, and the former one is freed, and what it
 * alone mapped unmapped, when every worker is past it.  Every translation checks address and
 * length: a buffer may end in another region than it starts in, so what comes back is the part that
 * lies in one piece.
 *
 * Untrusted:  fds, addresses, sizes and offsets come from the front-end, addresses and lengths of
 *             buffers from the guest.
 * Threads:    regions and tables: the control thread; translation: any, with a hint of its own.
 *             The SIGBUS handler runs in whichever thread touched lost memory.
 * Source:     vhost-user specification, "Memory region description"; CVE-2018-1059 for the lengths.
 */
#ifndef VHOST_MEMORY_H
#define VHOST_MEMORY_H

#include "vhost/core/vhost_abi.h"

struct mem_region {
    uint64_t gpa;         /* first guest-physical address */
    uint64_t size_bytes;
    uint64_t user;        /* the same byte's address in the front-end */
    uint8_t *base;        /* the same byte here */
    uint8_t *map;         /* the mapping, which starts and ends at page borders */
    uint64_t map_bytes;
    uint32_t slot;        /* in the SIGBUS handler's table */
};

/* What a translation needs of a region. */
struct mem_entry {
    uint64_t gpa;
    uint64_t size_bytes;  /* 0 behind the last one: nothing is found there */
    uint64_t user;
    uint8_t *base;
};

struct mem_list {
    struct mem_list *former; /* the one before, still in someone's hands */
    uint32_t count;
    struct mem_entry entries[VHOST_MAX_REGIONS]; /* ordered by gpa */
};

struct mem_table {
    struct mem_list *list;   /* any thread reads it, once per translation; never NULL */
};

/* What lost memory sets off; lives in the port. */
struct mem_alarm {
    uint32_t lost;
    int event_fd;
};

struct mem_alarm *vhost_port_alarm(struct port *p);

/* The entry that holds gpa, or NULL. */
const struct mem_entry *mem_find(const struct mem_list *list, uint64_t gpa);

/* Where len_bytes of front-end addresses lie in one piece, or NULL. */
uint8_t *mem_user(const struct mem_table *t, uint64_t user, uint64_t len_bytes);

/* The guest's address of a front-end's; false when it is in no region. */
bool mem_user_gpa(const struct mem_table *t, uint64_t user, uint64_t *gpa);

/* Where gpa lies; *part becomes how many of len_bytes follow in one piece.  NULL: nowhere.
 * hint: 0 at first; remembers the entry, and may be of another list: it is checked like any. */
static inline uint8_t *mem_at(const struct mem_table *t, uint32_t *hint, uint64_t gpa,
                              uint32_t len_bytes, uint32_t *part)
{
    const struct mem_list *list = load_acquire(&t->list); /* pairs with mem_table_set */
    const struct mem_entry *r = &list->entries[*hint];
    uint64_t offset = gpa - r->gpa;
    if (unlikely(offset >= r->size_bytes)) {
        r = mem_find(list, gpa);
        if (r == NULL)
            return NULL;
        *hint = (uint32_t)(r - list->entries);
        offset = gpa - r->gpa;
    }
    uint64_t rest = r->size_bytes - offset;
    *part = rest < len_bytes ? (uint32_t)rest : len_bytes;
    return r->base + offset;
}

#endif
