/* train.c - trains of records: built, sent, kept while the kernel is full.
 *
 * Untrusted, Threads, Source: see train.h.
 */
#include "mesh/core/train.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103 /* linux/udp.h, which libc's header may not repeat */
#endif

#define NO_GSO_NS (60 * NS_PER_S)

static bool send_trains(struct train_queue *q, const struct port *port, struct breath *b);
static void drop_all(struct train_queue *q, const struct port *port, const struct breath *b);
static int send_train(struct train_queue *q, struct train *t, uint64_t now_ns);

int train_init(struct train_queue *q, uint32_t lane, int fd, int own_fd, uint8_t *area)
{
    struct sockaddr_storage own;
    socklen_t len = sizeof(own);
    memset(q, 0, sizeof(*q));
    if (getsockname(fd, (struct sockaddr *)&own, &len) != 0)
        return -errno;
    if (own.ss_family != AF_INET && own.ss_family != AF_INET6)
        return -EAFNOSUPPORT;
    q->fds[0] = fd;
    q->fds[1] = own_fd < 0 ? fd : own_fd;
    q->lane = lane;
    q->v6 = own.ss_family == AF_INET6;
    q->area = area;
    return 0;
}

enum train_room train_make_room(struct train_queue *q, const struct port *port, struct breath *b,
                                uint32_t records, uint32_t bytes, uint32_t flags)
{
    ASSERT(records <= TRAIN_FRAME_RECORDS && bytes <= TRAIN_AREA_BYTES);
    /* Something that blocked stays in front: sending behind it would reorder. */
    bool fits = q->used_bytes + bytes <= TRAIN_AREA_BYTES &&
                q->count + TRAIN_FRAME_TRAINS <= TRAIN_QUEUE;
    if (fits && q->blocked_since_ns == 0)
        return TRAIN_ROOM;
    if (send_trains(q, port, b))
        return TRAIN_ROOM;
    return (flags & TX_MAY_WAIT) ? TRAIN_WAIT : TRAIN_FULL;
}

/* The last train, when a record of that session, length and destination can join it. */
static bool joins(const struct train *t, const struct session *s, const struct mesh_endpoint *to,
                  uint32_t len_bytes)
{
    return t && t->open && t->session == s && len_bytes <= t->record_bytes &&
           t->records < TRAIN_RECORDS && t->len_bytes + len_bytes <= TRAIN_BYTES &&
           t->to.own_lanes == to->own_lanes && endpoint_equal(&t->to, to);
}

static struct train *last_train(struct train_queue *q)
{
    return q->count ? &q->trains[(q->first + q->count - 1) % TRAIN_QUEUE] : NULL;
}

static struct train *new_train(struct train_queue *q, const struct session *s,
                               const struct mesh_endpoint *to, uint32_t offset, uint32_t len_bytes)
{
    struct train *t = &q->trains[(q->first + q->count++) % TRAIN_QUEUE];
    *t = (struct train){.to = *to,
                        .session = s,
                        .offset = offset,
                        .record_bytes = (uint16_t)len_bytes,
                        .open = true};
    return t;
}

static void lengthen(struct train *t, uint32_t len_bytes)
{
    if (len_bytes < t->record_bytes)
        t->open = false; /* only the last may be shorter */
    t->len_bytes += len_bytes;
    t->records++;
}

uint8_t *train_record(struct train_queue *q, const struct port *port, struct breath *b,
                      const struct session *s, const struct mesh_endpoint *to, uint32_t len_bytes)
{
    struct train *t = last_train(q);
    if (!joins(t, s, to, len_bytes)) {
        /* Sent while its bytes are warm; the area is used anew when the kernel took everything. */
        if (t && q->blocked_since_ns == 0)
            send_trains(q, port, b);
        ASSERT(q->count < TRAIN_QUEUE && q->used_bytes + len_bytes <= TRAIN_AREA_BYTES);
        t = new_train(q, s, to, q->used_bytes, len_bytes);
    }
    uint8_t *record = q->area + q->used_bytes;
    q->used_bytes += len_bytes;
    lengthen(t, len_bytes);
    return record;
}

bool train_pass_on(struct train_queue *q, const struct port *port, struct breath *b,
                   const struct session *s, const struct mesh_endpoint *to, uint32_t offset,
                   uint32_t len_bytes)
{
    struct train *t = last_train(q);
    if (!joins(t, s, to, len_bytes) || t->offset + t->len_bytes != offset) {
        if (t && q->blocked_since_ns == 0)
            send_trains(q, port, b);
        if (q->count == TRAIN_QUEUE)
            return false;
        t = new_train(q, s, to, offset, len_bytes);
    }
    lengthen(t, len_bytes);
    t->packets++;
    t->packet_bytes += len_bytes;
    return true;
}

void train_end_packet(struct train_queue *q, uint32_t frame_bytes, bool gso)
{
    struct train *t = last_train(q);
    t->packets++;
    t->gso_packets += gso;
    t->packet_bytes += frame_bytes;
}

void train_flush(struct train_queue *q, const struct port *port, struct breath *b)
{
    if (q->count)
        send_trains(q, port, b);
}

/* True when nothing waits any more: sent, or dropped because the kernel used up its wait. */
static bool send_trains(struct train_queue *q, const struct port *port, struct breath *b)
{
    while (q->count) {
        struct train *t = &q->trains[q->first];
        t->open = false;
        int rc = send_train(q, t, b->now_ns);
        if (rc == -EAGAIN) {
            if (q->blocked_since_ns == 0)
                q->blocked_since_ns = b->now_ns;
            if (!q->stuck && b->now_ns - q->blocked_since_ns < TX_WAIT_NS)
                return false;
            drop_all(q, port, b);
            break;
        }
        struct counters *c = port_counters(port, b);
        if (rc == 0) {
            q->stuck = false;
            counter_add(&c->tx_packets, t->packets);
            counter_add(&c->tx_bytes, t->packet_bytes);
            counter_add(&c->tx_gso_packets, t->gso_packets);
        } else {
            counter_add(&c->drops[DROP_SEND], t->packets);
        }
        q->blocked_since_ns = 0;
        q->first = (q->first + 1) % TRAIN_QUEUE;
        q->count--;
    }
    q->used_bytes = 0;
    return true;
}

static void drop_all(struct train_queue *q, const struct port *port, const struct breath *b)
{
    for (; q->count; q->count--) {
        port_drop(port, b, DROP_SEND, q->trains[q->first].packets);
        q->first = (q->first + 1) % TRAIN_QUEUE;
    }
    q->stuck = true;
    q->blocked_since_ns = 0;
}

/* Fills name for the socket's family; 0 when the address is not of it. */
static socklen_t socket_address(bool v6, const struct mesh_endpoint *to,
                                struct sockaddr_storage *name)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    if (v6) {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)name;
        *in6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(to->port)};
        memcpy(&in6->sin6_addr, to->address, sizeof(in6->sin6_addr));
        return sizeof(*in6);
    }
    if (memcmp(to->address, mapped, sizeof(mapped)) != 0)
        return 0;
    struct sockaddr_in *in = (struct sockaddr_in *)name;
    *in = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(to->port)};
    memcpy(&in->sin_addr, to->address + sizeof(mapped), sizeof(in->sin_addr));
    return sizeof(*in);
}

/* segment_bytes: of UDP_SEGMENT, 0: one datagram.  0 or -errno. */
static int send_bytes(int fd, bool v6, const struct mesh_endpoint *to, const uint8_t *bytes,
                      uint32_t len_bytes, uint16_t segment_bytes)
{
    struct sockaddr_storage name;
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(uint16_t))];
    } control;
    struct iovec iov = {(uint8_t *)(uintptr_t)bytes, len_bytes};
    struct msghdr msg = {.msg_name = &name, .msg_iov = &iov, .msg_iovlen = 1};
    msg.msg_namelen = socket_address(v6, to, &name);
    if (msg.msg_namelen == 0)
        return -EAFNOSUPPORT;
    if (segment_bytes) {
        memset(&control, 0, sizeof(control));
        msg.msg_control = &control;
        msg.msg_controllen = sizeof(control.bytes);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = IPPROTO_UDP;
        c->cmsg_type = UDP_SEGMENT;
        c->cmsg_len = CMSG_LEN(sizeof(segment_bytes));
        memcpy(CMSG_DATA(c), &segment_bytes, sizeof(segment_bytes));
    }
    return sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int train_send_one(int fd, bool v6, const struct mesh_endpoint *to, const uint8_t *bytes,
                   uint32_t len_bytes)
{
    return send_bytes(fd, v6, to, bytes, len_bytes, 0);
}

/* One datagram after the other; what was sent leaves the train, so that -EAGAIN can be resumed.
 * A datagram that the kernel refuses is lost, the others go on; the last error is returned. */
static int send_singly(struct train_queue *q, struct train *t)
{
    int result = 0, fd = q->fds[endpoint_by_own(&t->to, q->lane)];
    while (t->records) {
        uint32_t len = min_u32(t->record_bytes, t->len_bytes);
        int rc = send_bytes(fd, q->v6, &t->to, q->area + t->offset, len, 0);
        if (rc == -EAGAIN)
            return rc;
        if (rc != 0)
            result = rc;
        t->offset += len;
        t->len_bytes -= len;
        t->records--;
    }
    return result;
}

static int send_train(struct train_queue *q, struct train *t, uint64_t now_ns)
{
    if (t->records == 1 || now_ns < q->no_gso_until_ns)
        return send_singly(q, t);
    int fd = q->fds[endpoint_by_own(&t->to, q->lane)];
    int rc = send_bytes(fd, q->v6, &t->to, q->area + t->offset, t->len_bytes, t->record_bytes);
    /* EIO: the device has no checksum offload, so all trains by that route fail.  EINVAL: this
     * train's size does not fit the route (udp(7)). */
    if (rc == -EIO)
        q->no_gso_until_ns = now_ns + NO_GSO_NS;
    if (rc == -EIO || rc == -EINVAL)
        return send_singly(q, t);
    return rc;
}
