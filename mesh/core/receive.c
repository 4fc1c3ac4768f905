/* receive.c - datagrams from a UDP socket.
 *
 * Untrusted, Threads, Source: see receive.h.
 */
#define _GNU_SOURCE
#include "mesh/core/receive.h"

#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>

#ifndef UDP_GRO
#define UDP_GRO 104 /* linux/udp.h, which libc's header may not repeat */
#endif

static void read_source(const struct sockaddr_storage *name, struct mesh_endpoint *from)
{
    memset(from, 0, sizeof(*from));
    if (name->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)name;
        memcpy(from->address, &in6->sin6_addr, sizeof(from->address));
        from->port = ntohs(in6->sin6_port);
    } else {
        const struct sockaddr_in *in = (const struct sockaddr_in *)name;
        from->address[10] = from->address[11] = 0xff;
        memcpy(from->address + 12, &in->sin_addr, sizeof(in->sin_addr));
        from->port = ntohs(in->sin_port);
    }
}

/* Bytes of each datagram in the message: what UDP_GRO says, or all. */
static uint32_t read_stride(struct msghdr *msg, uint32_t len_bytes)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO) {
            int stride;
            memcpy(&stride, CMSG_DATA(c), sizeof(stride));
            if (stride > 0 && (uint32_t)stride < len_bytes)
                return (uint32_t)stride;
        }
    }
    return len_bytes;
}

uint32_t receive_slots(int fd, uint8_t *area, uint32_t slot_bytes, struct receive_slot *slots)
{
    struct mmsghdr msgs[RECEIVE_SLOTS];
    struct iovec iovs[RECEIVE_SLOTS];
    struct sockaddr_storage names[RECEIVE_SLOTS];
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } controls[RECEIVE_SLOTS];
    for (uint32_t i = 0; i < RECEIVE_SLOTS; i++) {
        iovs[i] = (struct iovec){area + i * slot_bytes, slot_bytes};
        msgs[i].msg_hdr = (struct msghdr){.msg_name = &names[i],
                                          .msg_namelen = sizeof(names[i]),
                                          .msg_iov = &iovs[i],
                                          .msg_iovlen = 1,
                                          .msg_control = &controls[i],
                                          .msg_controllen = sizeof(controls[i])};
    }
    /* An error that an earlier datagram met (ICMP) is reported instead of data, once; the next
     * breath reads on. */
    int got = recvmmsg(fd, msgs, RECEIVE_SLOTS, MSG_DONTWAIT, NULL);
    uint32_t count = got > 0 ? (uint32_t)got : 0;
    for (uint32_t i = 0; i < count; i++) {
        slots[i].len_bytes = msgs[i].msg_len;
        slots[i].stride_bytes = read_stride(&msgs[i].msg_hdr, msgs[i].msg_len);
        read_source(&names[i], &slots[i].from);
    }
    return count;
}
