/* abi.h - what the switch's C shares with Python: plain structs, enums and prototypes.
 *
 * Read by the compiler (through port.h, which has the guard) and by cffi, so nothing here but
 * declarations that both understand.  All functions return 0 or -errno unless they say otherwise.
 *
 * Threads: a function that takes a struct worker * marked "any" may be called while the worker
 * runs; all others only while it is stopped, or by the control thread on objects that no
 * published snapshot refers to.
 */

enum {
    MAX_WORKERS = 32,
    MAX_PORTS = 1024,          /* of one switch */
    MAX_BRIDGES = 64,
    BURST = 32,                /* packets taken from a queue at once */
    HEAD_BYTES = 160,          /* private copy of a frame's first bytes: L2 to L4 headers */
    MAX_SEGMENTS = 64,         /* of one packet; enough for 64 KiB in 46 records */
    MAX_FRAME_BYTES = 65562,   /* 65535 of IP, Ethernet, two VLAN tags, rounded up */
    PUNT_BYTES = 2048          /* largest thing handed up to Python */
};

/* Why a packet was not delivered.  The names are the users' (lower case, without DROP_). */
enum drop {
    DROP_SHORT,                /* shorter than its headers */
    DROP_OVERSIZE,             /* longer than MAX_FRAME_BYTES, or the receiver's buffers */
    DROP_SEGMENTS,             /* in more pieces than MAX_SEGMENTS */
    DROP_BAD_OFFLOAD,          /* offload fields contradict the frame */
    DROP_RING_FULL,            /* the destination took nothing for its waiting time */
    DROP_PORT_DOWN,            /* the destination has no started queue */
    DROP_FLOOD_LIMIT,          /* more flooding than the port's budget */
    DROP_SAME_PORT,            /* destination is behind the port it came from */
    DROP_NO_ROUTE,             /* nobody owns the destination address */
    DROP_NO_NEIGHBOUR,         /* the local owner does not answer ARP or ND */
    DROP_SOURCE,               /* source address is not the sender's */
    DROP_TOO_BIG,              /* does not fit the path; answered with ICMP too-big */
    DROP_NOT_IP,               /* not IP, sent to the router's MAC */
    DROP_NO_SESSION,           /* no keys with the peer yet */
    DROP_BAD_RECORD,           /* malformed record header or inner prefix */
    DROP_UNKNOWN_INDEX,        /* no session with that receiver index */
    DROP_AUTH,                 /* tag does not match */
    DROP_REPLAY,               /* counter seen before, or too old */
    DROP_COUNTER_LIMIT,        /* the key has sealed all the records it may */
    DROP_BAD_MAC1,             /* handshake message not meant for us */
    DROP_RATE_LIMIT,           /* more handshakes than we answer */
    DROP_COOKIE,               /* initiation without proof of its address, which was asked for */
    DROP_PUNT_FULL,            /* Python is behind */
    DROP_SEND,                 /* the kernel refused the datagram or frame */
    DROP_HOP_LIMIT,            /* passed on by as many nodes as may: a routing loop */
    DROP_DISABLED_QUEUE,       /* ring started but disabled: drained (vhost-user spec) */
    DROP_REASONS
};

/* One port as one worker sees it: written by that worker alone, read by anyone.
 * Bytes are those of Ethernet frames, without virtio-net headers and tags of records. */
struct counters {
    uint64_t rx_packets;
    uint64_t rx_bytes;
    uint64_t tx_packets;
    uint64_t tx_bytes;
    uint64_t rx_gso_packets;       /* frames larger than a packet on the wire, as they came */
    uint64_t tx_gso_packets;
    uint64_t notifications_sent;   /* calls (interrupts) to the guest */
    uint64_t notifications_spared; /* calls that the guest did not ask for */
    uint64_t wakeups;              /* kicks that woke a sleeping queue */
    uint64_t drops[32];            /* by enum drop; on the port that came first to the fault */
};

struct worker_counters {
    uint64_t breaths;
    uint64_t busy_breaths;         /* in which at least one packet moved */
    uint64_t packets;
    uint64_t sleeps;
    uint64_t wakes;                /* sleeps that an event ended, not the time */
    uint64_t naps;                 /* short sleeps by the clock: see patience.h */
    uint64_t cycles_busy;          /* TSC cycles in busy breaths */
    uint64_t cycles_idle;          /* TSC cycles in other breaths, sleep excluded */
    uint64_t cycles_clock;         /* the TSC when this was read */
};

/* A receive queue, whichever workers it had.  Written by the one that has it, read by anyone.
 * What a queue costs is measured in one breath of TIMED_EVERY: reading the clock around each burst
 * would cost as much as a packet. */
struct rxq_counters {
    uint64_t packets;              /* that moved: sent on, or dropped by a decision */
    uint64_t bursts;               /* looks that found something */
    uint64_t empty;                /* looks that did not */
    uint64_t wakes;                /* notifications that put it back on the poll list */
    uint64_t timed_packets;        /* moved in timed breaths */
    uint64_t timed_cycles;         /* TSC cycles of its bursts there, from taking to completion */
};

enum { TIMED_EVERY = 17 };         /* no multiple of anything else that repeats */

struct worker;
struct snapshot;
struct port;
struct rxq;
struct fdb;
struct lpm;
struct neighbours;

/* ---- worker.c */

enum worker_idle { IDLE_ADAPTIVE, IDLE_POLL };

struct worker *worker_new(uint32_t index);
void worker_free(struct worker *w);
/* Blocks in the calling thread, signals blocked, until worker_stop(). */
int worker_run(struct worker *w);
/* Any: makes worker_run() return soon. */
void worker_stop(struct worker *w);
/* One breath, for tests; returns the number of packets that moved. */
uint32_t worker_breathe(struct worker *w, uint64_t now_ns);
/* Any: the snapshot is adopted at the next breath; wakes a sleeper.  NULL: no snapshot. */
void worker_publish(struct worker *w, const struct snapshot *s);
/* Any: 0 once the worker, when it runs, is past all that was published or unlinked before the call;
 * -ETIMEDOUT otherwise.  A worker that does not run is past everything. */
int worker_sync(struct worker *w, uint64_t timeout_ns);
void worker_counters_read(const struct worker *w, struct worker_counters *out);
/* Any: becomes readable when the worker has punted something. */
int worker_punt_fd(const struct worker *w);

/* What C hands up. */
enum punt_kind {
    PUNT_HANDSHAKE,                /* data: a handshake datagram whose first MAC is right */
    PUNT_SESSION_CONFIRMED,        /* first authentic record under a new key; id: session */
    PUNT_ENDPOINT,                 /* authentic record from a new address; id: session */
    PUNT_NEED_SESSION,             /* packet for a peer without keys; id: peer */
    PUNT_PROBE_REPLY,              /* data: struct probe_reply; id: session */
    PUNT_TRACE_REPLY,              /* data: struct trace_reply; id: session */
    PUNT_LANE_REPLY,               /* as PUNT_PROBE_REPLY, to the own port of lane socket */
};

struct punt {
    uint32_t kind;
    uint32_t id;
    uint32_t socket;               /* which UDP socket it came in by */
    uint16_t len_bytes;
    uint16_t port;                 /* source UDP port, host order */
    uint8_t address[16];           /* source; IPv4 as ::ffff:a.b.c.d */
    uint32_t via;                  /* 0; or the peer that passed it on, its number plus one */
    uint8_t data[2048];
};

/* The control thread: 1 and the oldest punt, or 0. */
int worker_punt_next(struct worker *w, struct punt *out);

/* ---- snapshot.c: built by the control thread, immutable once published */

struct snapshot *snapshot_new(uint32_t workers);
void snapshot_free(struct snapshot *s);
/* Sets the idle behaviour of every worker that adopts it. */
void snapshot_set_idle(struct snapshot *s, uint32_t idle);
/* router_mac: 6 bytes, what the bridge answers ARP and ND with.  mtu_bytes: largest IP packet that
 * the mesh carries.  Returns the bridge's index. */
int snapshot_add_bridge(struct snapshot *s, struct fdb *fdb, const uint8_t *router_mac,
                        uint32_t mtu_bytes);
/* An address range whose ARP and ND the bridge answers for what lives elsewhere.
 * address: 16 bytes, IPv4 as ::ffff:a.b.c.d and prefix + 96. */
int snapshot_add_subnet(struct snapshot *s, uint32_t bridge, const uint8_t *address,
                        uint32_t prefix);
/* bridge < 0: the port of no bridge, the mesh; at most one.  Routes name the port by its id. */
int snapshot_add_port(struct snapshot *s, struct port *port, int bridge);
/* worker polls the queue; a queue has one worker. */
int snapshot_add_rxq(struct snapshot *s, uint32_t worker, struct rxq *rxq);
void snapshot_set_routes(struct snapshot *s, const struct lpm *routes, struct neighbours *n);

/* ---- fdb.c */

struct fdb *fdb_new(uint32_t entries, uint64_t seed);
void fdb_free(struct fdb *fdb);
void fdb_set_ageing(struct fdb *fdb, uint32_t seconds);

struct fdb_entry {
    uint8_t mac[6];
    uint16_t port;                 /* struct port's id */
    uint32_t age_s;
};

/* Any: up to max entries from *cursor on; advances *cursor; 0 at the end. */
uint32_t fdb_dump(const struct fdb *fdb, uint64_t now_ns, uint32_t *cursor, struct fdb_entry *out,
                  uint32_t max);
/* Any: forgets all MACs behind a port. */
void fdb_flush_port(struct fdb *fdb, uint16_t port);

/* ---- lpm.c: longest-prefix match over v4-mapped and v6 addresses; immutable once published */

/* A value is ROUTE_PORT + port id, or ROUTE_PEER + peer id. */
enum { ROUTE_PORT = 0, ROUTE_PEER = 65536 };

struct lpm *lpm_new(uint32_t routes);
void lpm_free(struct lpm *t);
int lpm_add(struct lpm *t, const uint8_t *address, uint32_t prefix, uint32_t value);
/* The value, or -1. */
int64_t lpm_lookup(const struct lpm *t, const uint8_t *address);

/* ---- neighbour.c: local address -> MAC, learned from ARP and ND */

struct neighbours *neighbours_new(uint32_t entries);
void neighbours_free(struct neighbours *n);

/* ---- port.c: what all ports share */

uint16_t port_id(const struct port *p);
void port_counters_read(const struct port *p, struct counters *out);   /* sum over workers */
void rxq_counters_read(const struct rxq *q, struct rxq_counters *out);

/* ---- tap.c */

/* fd: a tap with IFF_VNET_HDR (12-byte header) and IFF_NO_PI, non-blocking; the port takes it over.
 * id: the port's number, unique in the switch.  uso: the kernel takes UDP segmentation offload
 * (Linux 6.2 and later); otherwise such frames are cut for it. */
struct port *tap_port_new(uint16_t id, int fd, uint32_t uso);
void tap_port_free(struct port *p);
struct rxq *tap_port_rxq(struct port *p);

/* ---- lockmem.c: memory for keys: locked, not dumped, wiped on free */

uint8_t *lockmem_new(uint64_t len_bytes);
void lockmem_free(uint8_t *p, uint64_t len_bytes);
