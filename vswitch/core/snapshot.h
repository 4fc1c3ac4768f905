/* snapshot.h - one whole, immutable configuration of the switch, as workers read it.
 *
 * What changes by itself (MAC table, neighbours, ports with their rings and sessions) has a stable
 * address that the snapshot points to; a snapshot owns none of it.
 *
 * Untrusted:  nothing.
 * Threads:    built and freed by the control thread; once published, read by workers until they
 *             have adopted another one (worker_sync).
 */
#ifndef VSW_SNAPSHOT_H
#define VSW_SNAPSHOT_H

#include "vswitch/core/port.h"

enum { MAX_SUBNETS = 16, NO_BRIDGE = 0xff };

struct subnet {
    uint8_t address[16];
    uint32_t prefix;
};

struct bridge {
    struct fdb *fdb;
    uint8_t router_mac[6];
    uint64_t router_mac_word;      /* mac_word(router_mac) */
    uint32_t mtu_bytes;
    uint32_t subnets_count;
    struct subnet subnets[MAX_SUBNETS];
    uint32_t ports_count;
    uint16_t *ports;               /* ids, room for MAX_PORTS */
};

struct poll_list {
    struct rxq **rxqs;
    uint32_t count, room;
};

struct snapshot {
    uint32_t idle;                 /* enum worker_idle */
    uint32_t workers_count;
    uint32_t bridges_count;
    const struct lpm *routes;      /* NULL: no L3 at all */
    struct neighbours *neighbours;
    struct port *mesh;             /* the port of no bridge; NULL: none */
    struct port *ports[MAX_PORTS]; /* by id */
    uint8_t bridge_of[MAX_PORTS];
    struct bridge bridges[MAX_BRIDGES];
    struct poll_list polls[MAX_WORKERS];
};

#endif
