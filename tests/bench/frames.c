/* frames.c - the frames that are sent.
 *
 * Ethernet, IPv4, then UDP or TCP, then the frame's number, then filling.  A large frame has the
 * virtio-net header of a TCP segmentation offload with a partial checksum (virtio 1.2, 5.1.6.2).
 */
#include "tests/bench/ring.h"

enum {
    ETH_BYTES = 14,
    IP_BYTES = 20,
    UDP_BYTES = 8,
    TCP_BYTES = 32,            /* with the time stamps that all of them carry */
    NEEDS_CSUM = 1,
    GSO_TCPV4 = 1
};

static void put16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void put_mac(uint8_t *at, uint32_t number)
{
    at[0] = 2;
    at[1] = 0xbb;
    put16(at + 2, number >> 16);
    put16(at + 4, number);
}

static uint32_t header_bytes(const struct traffic *t)
{
    return ETH_BYTES + IP_BYTES + (t->gso_bytes ? TCP_BYTES : UDP_BYTES);
}

static uint32_t sum16(const uint8_t *at, uint32_t bytes)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < bytes; i += 2)
        sum += (uint32_t)at[i] << 8 | at[i + 1];
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

static void offload_header(const struct traffic *t, uint8_t *vnet)
{
    uint16_t words[5] = {(uint16_t)header_bytes(t), (uint16_t)t->gso_bytes, ETH_BYTES + IP_BYTES,
                         16, 0};
    memset(vnet, 0, VNET_BYTES);
    if (t->gso_bytes == 0)
        return;
    vnet[0] = NEEDS_CSUM;
    vnet[1] = GSO_TCPV4;
    memcpy(vnet + 2, words, sizeof(words));
}

void frame_begin(const struct traffic *t, uint8_t *buffer)
{
    uint8_t *eth = buffer + VNET_BYTES, *ip = eth + ETH_BYTES, *l4 = ip + IP_BYTES;
    uint32_t ip_bytes = t->frame_bytes - ETH_BYTES, l4_bytes = ip_bytes - IP_BYTES;
    memset(eth, 0, t->frame_bytes);
    put16(eth + 12, 0x0800);
    ip[0] = 0x45;
    put16(ip + 2, ip_bytes);
    ip[8] = 64;
    ip[9] = t->gso_bytes ? 6 : 17;
    memcpy(ip + 12, t->addresses, sizeof(t->addresses));
    put16(ip + 10, ~sum16(ip, IP_BYTES));
    put16(l4, 1000);
    put16(l4 + 2, 2000);
    if (t->gso_bytes) {
        uint8_t pseudo[12] = {[9] = 6};
        memcpy(pseudo, t->addresses, sizeof(t->addresses));
        put16(pseudo + 10, l4_bytes);
        l4[12] = TCP_BYTES / 4 << 4;
        l4[13] = 0x10; /* ACK */
        put16(l4 + 14, 512);
        put16(l4 + 16, sum16(pseudo, sizeof(pseudo)));
    } else {
        put16(l4 + 4, l4_bytes);
    }
}

void frame_write(struct traffic *t, uint8_t *buffer)
{
    uint8_t *eth = buffer + VNET_BYTES;
    uint32_t number = t->sequence++;
    uint32_t varied = t->macs ? (uint32_t)((uint64_t)number * 7919 % t->macs) : 0;
    offload_header(t, buffer);
    if (t->fresh) {
        uint64_t fill = number * 0x9e3779b97f4a7c15ull;
        uint8_t *at = eth + header_bytes(t), *end = eth + t->frame_bytes;
        for (; at + sizeof(fill) <= end; at += sizeof(fill))
            memcpy(at, &fill, sizeof(fill));
    }
    memcpy(eth, t->destination, 6);
    memcpy(eth + 6, t->source, 6);
    if (t->vary)
        put_mac(t->vary == 1 ? eth : eth + 6, varied);
    memcpy(eth + header_bytes(t), &number, sizeof(number));
}

uint32_t frame_sequence(const struct traffic *t, const uint8_t *buffer)
{
    uint32_t number;
    memcpy(&number, buffer + VNET_BYTES + header_bytes(t), sizeof(number));
    return number;
}
