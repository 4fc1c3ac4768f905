/* mesh_rig.h - two mesh ports joined by loopback sockets, frames to send, and a wire in between.
 *
 * Included by one main each; a check that fails prints where and ends the program.
 *
 * Threads: the main thread is control thread and both workers in turn.
 */
#ifndef TESTS_MESH_RIG_H
#define TESTS_MESH_RIG_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "mesh/core/mesh.h"
#include "vswitch/core/punt.h"

#ifndef UDP_GRO
#define UDP_GRO 104
#endif

#define CHECK(x)                                                          \
    do {                                                                  \
        if (!(x)) {                                                       \
            fprintf(stderr, "%s:%d: %s is false\n", __FILE__, __LINE__, #x); \
            exit(1);                                                      \
        }                                                                 \
    } while (0)

enum { RIG_PEER = 7, RIG_MTU = 1400, RIG_WAIT_MS = 2000, RIG_FRAME_BYTES = 66000 };

struct rig_node {
    struct mesh *mesh;
    struct rxq *rxq;
    int fd;
    struct mesh_endpoint at;
    struct breath breath;
    uint32_t index;              /* local index of its session */
};

struct rig_frame {
    struct packet packet;
    struct segment segs[MAX_SEGMENTS];
    uint8_t bytes[RIG_FRAME_BYTES];
};

static uint32_t rig_cipher = CIPHER_AES256_GCM;
static uint32_t rig_random_state = 12345;

static inline uint32_t rig_random(uint32_t below)
{
    rig_random_state = rig_random_state * 1664525u + 1013904223u;
    return (rig_random_state >> 8) % below;
}

static inline int rig_socket(struct mesh_endpoint *at, bool gro)
{
    int on = 1, size = 4 << 20, fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(in);
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&in, sizeof(in)) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&in, &len) == 0);
    if (gro)
        CHECK(setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof(on)) == 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
    memset(at, 0, sizeof(*at));
    at->address[10] = at->address[11] = 0xff;
    memcpy(at->address + 12, &in.sin_addr, 4);
    at->port = ntohs(in.sin_port);
    return fd;
}

/* Of a node's lanes, which share one port; number 0 chooses it. */
static inline int rig_group_socket(struct mesh_endpoint *at, uint32_t number)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int on = 1, fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    socklen_t len = sizeof(in);
    in.sin_port = number ? htons(at->port) : 0;
    CHECK(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) == 0);
    CHECK(setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof(on)) == 0);
    CHECK(bind(fd, (struct sockaddr *)&in, sizeof(in)) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&in, &len) == 0);
    memset(at, 0, sizeof(*at));
    at->address[10] = at->address[11] = 0xff;
    memcpy(at->address + 12, &in.sin_addr, 4);
    at->port = ntohs(in.sin_port);
    return fd;
}

static inline void rig_node_new(struct rig_node *n, uint8_t id)
{
    uint8_t node[8], mac1_key[32];
    memset(n, 0, sizeof(*n));
    memset(node, id, sizeof(node));
    memset(mac1_key, id, sizeof(mac1_key));
    CHECK(mesh_new(&n->mesh, id, node, mac1_key, mac1_key, mac1_key, RIG_MTU) == 0);
    n->fd = rig_socket(&n->at, true);
    CHECK(mesh_lane_add(n->mesh, 0, n->fd, -1) == 0);
    n->rxq = mesh_lane_rxq(n->mesh, 0);
    n->breath = (struct breath){.now_ns = clock_now_ns(), .punts = punt_ring_new()};
}

static inline void rig_node_free(struct rig_node *n)
{
    mesh_free(n->mesh);
    punt_ring_free(n->breath.punts);
    close(n->fd);
}

/* keys: seed of both, the same at both ends.  Each is RIG_PEER to the other. */
static inline void rig_install(struct rig_node *n, const struct rig_node *other, uint8_t keys,
                               bool initiator, uint32_t index, uint32_t other_index)
{
    uint8_t node[8];
    struct session_config c = {.peer = RIG_PEER,
                               .local_index = index,
                               .remote_index = other_index,
                               .cipher = rig_cipher,
                               .initiator = initiator,
                               .endpoint = other->at};
    memcpy(node, other->mesh->node_id, sizeof(node));
    mesh_peer_add(n->mesh, RIG_PEER, node);
    memset(c.send_key, initiator ? keys : keys + 100, sizeof(c.send_key));
    memset(c.receive_key, initiator ? keys + 100 : keys, sizeof(c.receive_key));
    CHECK(mesh_session_install(n->mesh, &c) == 0);
    n->index = index;
}

/* a initiates, b responds. */
static inline void rig_pair(struct rig_node *a, struct rig_node *b)
{
    rig_node_new(a, 1);
    rig_node_new(b, 2);
    rig_install(a, b, 10, true, 0x10001, 0x20002);
    rig_install(b, a, 10, false, 0x20002, 0x10001);
}

static inline uint64_t rig_drops(const struct rig_node *n, enum drop reason)
{
    struct counters c;
    port_counters_read(mesh_port(n->mesh), &c);
    return c.drops[reason];
}

static inline uint64_t rig_all_drops(const struct rig_node *n)
{
    struct counters c;
    uint64_t sum = 0;
    port_counters_read(mesh_port(n->mesh), &c);
    for (int reason = 0; reason < DROP_REASONS; reason++)
        sum += c.drops[reason];
    return sum;
}

static inline struct session *rig_session(const struct rig_node *n)
{
    return mesh_find_session(n->mesh, n->index);
}

static inline uint16_t rig_fold(uint32_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

/* RFC 1071 as it reads, to check the fast one against. */
static inline uint32_t rig_sum(uint32_t sum, const uint8_t *p, uint32_t len)
{
    for (uint32_t i = 0; i < len; i++)
        sum = rig_fold(sum + (i & 1 ? p[i] : (uint32_t)p[i] << 8));
    return sum;
}

static inline uint16_t rig_pseudo_sum(const uint8_t *ip, uint8_t protocol, uint32_t l4_bytes)
{
    uint32_t sum = ip[0] >> 4 == 4 ? rig_sum(0, ip + 12, 8) : rig_sum(0, ip + 8, 32);
    return rig_fold(sum + protocol + rig_fold(l4_bytes));
}

/* Cuts the frame's bytes into segments at random places. */
static inline void rig_split(struct rig_frame *f, uint32_t len, uint32_t pieces)
{
    struct packet *p = &f->packet;
    uint32_t at = 0;
    p->segs = f->segs;
    p->segs_count = 0;
    while (at < len) {
        uint32_t rest = len - at;
        uint32_t n = p->segs_count + 1u >= pieces ? rest : 1 + rig_random(rest);
        f->segs[p->segs_count++] = (struct segment){f->bytes + at, n};
        at += n;
    }
    p->len_bytes = len;
    p->head_len = (uint16_t)min_u32(len, HEAD_BYTES);
    memcpy(p->head, f->bytes, p->head_len);
}

/* A TCP packet with random payload; gso_size 0: an ordinary one.  Ethernet is not sent. */
static inline void rig_tcp(struct rig_frame *f, int version, uint32_t payload, uint16_t gso_size,
                           uint8_t tcp_flags)
{
    uint32_t l3 = 14, header = version == 4 ? 20 : 40, l4 = l3 + header, tcp = 32;
    uint32_t len = l4 + tcp + payload;
    uint8_t *ip = f->bytes + l3, *t = f->bytes + l4;
    memset(&f->packet, 0, sizeof(f->packet));
    memset(f->bytes, 0, l4 + tcp);
    put_be16(f->bytes + 12, version == 4 ? 0x0800 : 0x86dd);
    if (version == 4) {
        ip[0] = 0x45;
        put_be16(ip + 2, (uint16_t)(len - l3));
        put_be16(ip + 4, 0xfffe); /* wraps while it is counted up */
        ip[8] = 64, ip[9] = 6;
        memcpy(ip + 12, "\x0a\x05\x00\x01\x0a\x05\x00\x02", 8);
        csum_ipv4_header(ip);
    } else {
        ip[0] = 0x60;
        put_be16(ip + 4, (uint16_t)(tcp + payload));
        ip[6] = 6, ip[7] = 64;
        ip[8] = ip[24] = 0xfd, ip[23] = 1, ip[39] = 2;
    }
    put_be16(t, 40000), put_be16(t + 2, 5001), put_be32(t + 4, 0xfffff000), put_be32(t + 8, 77);
    t[12] = 0x80, t[13] = tcp_flags, t[14] = 0x10;
    memcpy(t + 20, "\x01\x01\x08\x0a\x00\x00\x00\x01\x00\x00\x00\x02", 12);
    put_be16(t + 16, rig_pseudo_sum(ip, 6, tcp + payload));
    for (uint32_t i = 0; i < payload; i++)
        t[tcp + i] = (uint8_t)rig_random(256);
    rig_split(f, len, 1 + rig_random(20));
    f->packet.peer = RIG_PEER;
    f->packet.flags = PKT_NEEDS_CSUM;
    f->packet.csum_start = (uint16_t)l4;
    f->packet.csum_offset = 16;
    f->packet.gso_type = gso_size == 0 ? GSO_NONE : version == 4 ? GSO_TCP4 : GSO_TCP6;
    f->packet.gso_size = gso_size;
    CHECK(pkt_offload_ok(&f->packet));
}

static inline uint32_t rig_send(struct rig_node *n, struct rig_frame *f)
{
    struct packet *p = &f->packet;
    struct port *port = mesh_port(n->mesh);
    return port->tx(port, &n->breath, &p, 1, TX_MAY_WAIT);
}

/* One burst, after waiting for something to come; 0 when nothing did in wait_ms. */
static inline uint32_t rig_receive(struct rig_node *n, struct packet **out, int wait_ms)
{
    struct pollfd fd = {.fd = n->fd, .events = POLLIN};
    uint32_t got = n->rxq->burst(n->rxq, &n->breath, out, BURST);
    if (got == 0 && poll(&fd, 1, wait_ms) > 0)
        got = n->rxq->burst(n->rxq, &n->breath, out, BURST);
    return got;
}

/* Expects just one packet and copies it to bytes; its length. */
static inline uint32_t rig_receive_one(struct rig_node *n, uint8_t *bytes)
{
    struct packet *out[BURST];
    CHECK(rig_receive(n, out, RIG_WAIT_MS) == 1);
    uint32_t len = out[0]->len_bytes;
    CHECK(out[0]->ingress == port_id(mesh_port(n->mesh)) && out[0]->peer == RIG_PEER);
    pkt_copy(out[0], 0, bytes, len);
    n->rxq->done(n->rxq, &n->breath, 1);
    return len;
}

/* Whatever is in the socket was handed over by now: loopback delivers within the send. */
static inline void rig_receive_none(struct rig_node *n)
{
    struct packet *out[BURST];
    CHECK(n->rxq->burst(n->rxq, &n->breath, out, BURST) == 0);
}

static inline bool rig_punt(struct rig_node *n, struct punt *out)
{
    return punt_next(n->breath.punts, out);
}

/* The next datagram at a plain socket; it must be there. */
static inline uint32_t rig_wire_take(int fd, uint8_t *bytes)
{
    struct pollfd pfd = {.fd = fd, .events = POLLIN};
    CHECK(poll(&pfd, 1, RIG_WAIT_MS) == 1);
    ssize_t len = recv(fd, bytes, RIG_FRAME_BYTES, 0);
    CHECK(len >= 0);
    return (uint32_t)len;
}

static inline void rig_wire_put(int fd, const struct rig_node *to, const uint8_t *bytes,
                                uint32_t len)
{
    CHECK(train_send_one(fd, false, &to->at, bytes, len) == 0);
}

#endif
