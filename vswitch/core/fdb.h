/* fdb.h - the MAC table of a bridge.
 *
 * A bucket is one cache line of eight words, each a MAC and a port (48 + 16 bits), so an entry is
 * read and replaced whole, without a lock.  Times stand apart: a lookup does not touch them, and
 * learning does at most once a second per MAC.
 *
 * A port may hold at most a share of the table: a guest that makes up addresses fills its own share
 * and evicts nobody else's entries.  The hash is seeded, so that buckets cannot be aimed at.
 *
 * Untrusted:  the MAC addresses.
 * Threads:    lookup, learn, sweep, dump and flush: any thread, at the same time; words are swapped
 *             with compare-and-swap.  A lost race costs one learning, which the next packet
 *             repeats.
 */
#ifndef VSW_FDB_H
#define VSW_FDB_H

#include "vswitch/core/port.h"

enum { FDB_NOWHERE = 0xffff };

/* Of a mac_word(). */
static inline bool mac_is_multicast(uint64_t mac) { return mac & 1; }

/* The port id behind a MAC, or FDB_NOWHERE. */
uint16_t fdb_lookup(const struct fdb *fdb, uint64_t mac);
/* Remembers that mac is behind port; false when its share, or the bucket, is full. */
bool fdb_learn(struct fdb *fdb, uint64_t mac, uint16_t port, uint64_t now_ns);
/* Forgets what is too old in a part of the table; called every so often, it gets around in a
 * second. */
void fdb_sweep(struct fdb *fdb, uint64_t now_ns);

#endif
