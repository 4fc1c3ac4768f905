/* abi.h - what the mesh's C shares with Python: plain structs, enums and prototypes.
 *
 * Read by the compiler (through mesh_abi.h, which has the guard) and by cffi.  All functions return
 * 0 or -errno unless they say otherwise.
 *
 * Threads: all functions are the control thread's; those marked "any time" may be called while
 * workers run.  What *_unlink returns may be freed only when every worker is past the call
 * (worker_sync).
 */

enum {
    MESH_LANES = 32,           /* a sender's: one per worker, and the control thread's */
    MESH_CONTROL_LANE = 31,
    MESH_PEERS = 65536,
    MESH_SESSIONS = 65536,     /* slots of the table; slot = low 16 bits of the local index */
    MESH_MTU_MIN_BYTES = 576,
    MESH_MTU_MAX_BYTES = 65400,
    MESH_OVERHEAD_BYTES = 48,  /* of a record around its IP packet */
    MESH_RELAY_BYTES = 32,     /* of the header that takes a record by way of another node */
    MESH_RELAY_KEY_BYTES = 16,
    MESH_RELAY_HOPS = 8,       /* nodes that may pass a message on */
    MESH_PUBLIC_KEY_BYTES = 32
};

/* Record ciphers, by their number in the handshake. */
enum mesh_cipher { CIPHER_AES256_GCM = 1, CIPHER_CHACHA20_POLY1305 = 2 };

/* Why a trace went no further than the node that answers it: see trace.h.  Of an ask: none yet. */
enum trace_end {
    TRACE_ASK,
    TRACE_REACHED,             /* the destination */
    TRACE_HOPS,                /* no hop was left */
    TRACE_NO_SESSION,          /* none with the next node */
    TRACE_UNKNOWN,             /* the destination is no peer of the node, or has no way there */
    TRACE_ENDS
};

struct mesh;
struct mesh_peer;
struct session;

/* Where a node is: an address, or behind another peer, which passes on what is meant for it. */
struct mesh_endpoint {
    uint8_t address[16];       /* IPv4 as ::ffff:a.b.c.d */
    uint16_t port;             /* host order */
    uint16_t pinned;           /* 1: of a session, stays when the peer sends from elsewhere */
    uint32_t via;              /* 0: at the address; else that peer's number plus one */
    uint32_t own_lanes;        /* of a session: a bit per lane that sends by a port of its own */
};

struct session_config {
    uint32_t peer;
    uint32_t local_index;      /* what the peer writes into its records */
    uint32_t remote_index;     /* what we write into ours */
    uint32_t cipher;           /* enum mesh_cipher */
    uint32_t initiator;        /* 1: sends at once; 0: receives only until a record authenticates */
    struct mesh_endpoint endpoint;
    uint8_t send_key[32];
    uint8_t receive_key[32];
    uint8_t relay_send_key[16];
    uint8_t relay_receive_key[16];
};

/* Sums over lanes. Bytes are those of records, without UDP and IP headers. Times are
 * CLOCK_MONOTONIC; 0: never. */
struct session_stats {
    uint64_t tx_records;
    uint64_t tx_bytes;
    uint64_t rx_records;
    uint64_t rx_bytes;
    uint64_t rx_failed;        /* records whose tag did not match */
    uint64_t relayed_records;  /* others', passed on to this peer; handshake messages too */
    uint64_t relayed_bytes;    /* with their relay headers */
    uint64_t last_tx_ns;       /* of records with a packet: keepalives do not count */
    uint64_t last_keepalive_ns;
    uint64_t last_rx_ns;       /* of any authentic record */
    uint64_t last_rx_packet_ns;/* of one with a packet */
    uint32_t confirmed;        /* 1: an authentic record came, or we are the initiator */
    uint32_t current;          /* 1: the one its peer's packets are sealed with */
    uint32_t busy_lanes;       /* a bit per lane that sent a packet in the last 3 s */
    struct mesh_endpoint endpoint;
};

/* A control record that came back: data of PUNT_PROBE_REPLY and PUNT_LANE_REPLY, whose id is the
 * session's. */
struct probe_reply {
    uint64_t received_ns;      /* CLOCK_MONOTONIC */
    uint32_t id;               /* the probe's */
    uint32_t ip_bytes;         /* that arrived, as large as an IP packet of so many */
};

/* The answer to a trace: data of PUNT_TRACE_REPLY, whose id is the session's of the neighbour that
 * gave it to us. */
struct trace_reply {
    uint64_t received_ns;      /* CLOCK_MONOTONIC */
    uint64_t id;               /* the ask's */
    uint32_t end;              /* enum trace_end */
    uint8_t public_key[32];    /* whose it says to be */
    uint32_t zero;
};

/* ---- mesh.c */

/* node_id: 8 bytes.  public_key: 32, our own; mac1_key, cookie_key: 32, derived from it.
 * mtu_bytes: the longest IP packet a record carries. */
int mesh_new(struct mesh **out, uint16_t port_id, const uint8_t *node_id,
             const uint8_t *public_key, const uint8_t *mac1_key, const uint8_t *cookie_key,
             uint32_t mtu_bytes);
/* No worker may know the mesh any more.  Frees everything that is still linked. */
void mesh_free(struct mesh *m);
struct port *mesh_port(struct mesh *m);
/* cipher: enum mesh_cipher.  0: there is none with that number, or the CPU lacks what it needs. */
int mesh_has_cipher(const struct mesh *m, uint32_t cipher);

/* lanes: of the mesh altogether, said before the first mesh_lane_add. */
int mesh_set_lanes(struct mesh *m, uint32_t lanes);
/* fd: a bound, non-blocking UDP socket with UDP_GRO on (and in a group steered by mesh_steer() when
 * there are several).  own_fd: another, of the same family, at a port of the lane's own; -1: it has
 * none.  Both stay the caller's, open until mesh_lane_remove().  worker: its index, < lanes. */
int mesh_lane_add(struct mesh *m, uint32_t worker, int fd, int own_fd);
/* No published snapshot may list the mesh's port or the lane's queue. */
void mesh_lane_remove(struct mesh *m, uint32_t worker);
struct rxq *mesh_lane_rxq(struct mesh *m, uint32_t worker);
/* Of the lane's own port, for the same worker; NULL: it has none. */
struct rxq *mesh_own_rxq(struct mesh *m, uint32_t worker);
/* fd: any socket of a SO_REUSEPORT group, bound in lane order: lane i's records go to socket i. */
int mesh_steer(int fd, uint32_t lanes);

/* Any time: an initiation with that index was sent; answers to others are dropped. */
void mesh_expect_answer(struct mesh *m, uint32_t local_index);

/* Any time.  node_id: 8 bytes. */
int mesh_peer_add(struct mesh *m, uint32_t peer, const uint8_t *node_id);
/* Any time, once the peer's sessions are unlinked.  NULL when there is none. */
struct mesh_peer *mesh_peer_unlink(struct mesh *m, uint32_t peer);
void mesh_peer_free(struct mesh_peer *peer);

/* Any time.  Copies the keys into locked memory; the caller wipes its own.
 * -EEXIST: the slot is taken. -ENOENT: no such peer. -ENOMEM: also beyond RLIMIT_MEMLOCK.
 * -ENOTSUP: see mesh_has_cipher. */
int mesh_session_install(struct mesh *m, const struct session_config *config);
/* Any time.  Nothing finds the session any more, but a worker that just did may still make it its
 * peer's current one: hence worker_sync, mesh_session_detach, worker_sync, mesh_session_free.
 * NULL when there is none. */
struct session *mesh_session_unlink(struct mesh *m, uint32_t local_index);
void mesh_session_detach(struct session *s);
/* Wipes the keys. */
void mesh_session_free(struct session *s);
/* Any time: the peer's packets are sealed with this session from now on. */
int mesh_session_promote(struct mesh *m, uint32_t local_index);
/* Any time. */
int mesh_session_set_endpoint(struct mesh *m, uint32_t local_index,
                              const struct mesh_endpoint *endpoint);
/* Any time: these lanes, a bit each, send by their own ports as long as the session's endpoint is
 * that one.  -ESTALE: it is another. */
int mesh_session_set_lanes(struct mesh *m, uint32_t local_index,
                           const struct mesh_endpoint *endpoint, uint32_t lanes);
int mesh_session_stats(const struct mesh *m, uint32_t local_index, struct session_stats *out);
/* Any time: where the peer is while there is no session that knows better; via: as in
 * struct mesh_endpoint. */
int mesh_peer_set_via(struct mesh *m, uint32_t peer, uint32_t via);
/* Any time: the largest IP packet for the peer, up to the mesh's mtu_bytes; larger ones are
 * answered with ICMP too-big, and large frames are cut to it. */
int mesh_peer_set_mtu(struct mesh *m, uint32_t peer, uint32_t mtu_bytes);

/* ---- sending.c */

/* Any time: one empty record under the peer's current session, by lane MESH_CONTROL_LANE.
 * -ENOENT: no such peer.  -ENOKEY: no session.  -EKEYEXPIRED: the key has sealed all it may. */
int mesh_send_keepalive(struct mesh *m, uint32_t peer);
/* Any time: a handshake message to a node, by way of a peer; node_id: 8 bytes.  -ENOENT: no such
 * peer.  -ENOKEY: no session with it, or with who is in between. */
int mesh_send_through(struct mesh *m, uint32_t peer, const uint8_t *node_id, const uint8_t *bytes,
                      uint32_t len_bytes);
/* Any time: asks the peer, by lane MESH_CONTROL_LANE and that way, to tell that a record with
 * ip_bytes of text arrived (at least 16); the answer is punted as PUNT_PROBE_REPLY.
 * -ENOENT: no such session.  -ENOKEY: no session with who is in between.  -EMSGSIZE: too long for
 * the device.
 * -EKEYEXPIRED: the key has sealed all it may. */
int mesh_send_probe(struct mesh *m, uint32_t local_index, const struct mesh_endpoint *to,
                    uint32_t id, uint32_t ip_bytes);
/* Any time: a trace to the peer, which may not be passed on more often than hops_left (at most
 * MESH_RELAY_HOPS); the answer is punted as PUNT_TRACE_REPLY.  -ENOENT: no such peer.  -ENOKEY: no
 * session with it, or with who is in between. */
int mesh_send_trace(struct mesh *m, uint32_t peer, uint32_t hops_left, uint64_t id);
/* Any time: a probe like that, by the own port of a lane, to an address; the answer, when it comes
 * back to that port, is punted as PUNT_LANE_REPLY.  One to a session and lane at a time: the answer
 * to an earlier one is dropped.  -EINVAL: also when the lane has no port of its own. */
int mesh_send_lane_probe(struct mesh *m, uint32_t local_index, uint32_t lane,
                         const struct mesh_endpoint *to, uint32_t id, uint32_t ip_bytes);
