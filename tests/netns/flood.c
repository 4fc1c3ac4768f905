/* flood.c - initiations from strangers: random sources, each with a right first MAC.
 *
 *   flood ADDRESS PORT PUBLIC_KEY_HEX PER_SECOND SECONDS
 *
 * Prints how many it sent.  Needs a raw socket.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { INITIATION = 152, COVERED = 120, VARIANTS = 1024, BATCH = 64 };

struct packet {
    struct iphdr ip;
    struct udphdr udp;
    unsigned char message[INITIATION];
} __attribute__((packed));

static struct packet packets[VARIANTS];

static void make(struct packet *p, const unsigned char *key, in_addr_t to, int port)
{
    memset(p, 0, sizeof(*p));
    p->ip = (struct iphdr){.version = 4,
                           .ihl = 5,
                           .tot_len = htons(sizeof(*p)),
                           .ttl = 64,
                           .protocol = IPPROTO_UDP,
                           .daddr = to};
    p->udp.dest = htons((unsigned short)port);
    p->udp.len = htons(sizeof(p->udp) + INITIATION);
    randombytes_buf(p->message + 4, COVERED - 4);
    p->message[0] = 1;
    crypto_generichash(p->message + COVERED, 16, p->message, COVERED, key, 32);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    unsigned char text[8 + 32] = "vsw mac1", key[32];
    struct mmsghdr messages[BATCH];
    struct iovec iovs[BATCH];
    unsigned long sent = 0;
    int fd = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
    if (argc != 6 || fd < 0 || sodium_init() < 0 || strlen(argv[3]) != 64)
        return 2;
    sodium_hex2bin(text + 8, 32, argv[3], 64, NULL, NULL, NULL);
    crypto_generichash(key, sizeof(key), text, sizeof(text), NULL, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr = {inet_addr(argv[1])}};
    for (int i = 0; i < VARIANTS; i++)
        make(&packets[i], key, to.sin_addr.s_addr, atoi(argv[2]));
    double rate = atof(argv[4]), seconds = atof(argv[5]), began = now();
    while (now() - began < seconds) {
        if ((double)sent > rate * (now() - began)) {
            nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
            continue;
        }
        for (int i = 0; i < BATCH; i++) {
            struct packet *p = &packets[(sent + (unsigned long)i) % VARIANTS];
            p->ip.saddr = htonl(0x14000000 | randombytes_random() >> 8);
            p->udp.source = htons((unsigned short)(1024 + randombytes_uniform(60000)));
            iovs[i] = (struct iovec){p, sizeof(*p)};
            messages[i].msg_hdr = (struct msghdr){.msg_name = &to,
                                                  .msg_namelen = sizeof(to),
                                                  .msg_iov = &iovs[i],
                                                  .msg_iovlen = 1};
        }
        int n = sendmmsg(fd, messages, BATCH, 0);
        sent += n > 0 ? (unsigned long)n : 0;
    }
    printf("%lu\n", sent);
    return 0;
}
