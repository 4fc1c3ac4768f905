/* checksum.c - the Internet checksum (RFC 1071), for receivers that want it done.
 *
 * Untrusted:  the bytes that are summed; a guest that changes them meanwhile gets a wrong sum.
 * Threads:    any.
 */
#include "vswitch/core/port.h"

uint64_t csum_add(uint64_t sum, const uint8_t *bytes, size_t len_bytes)
{
    while (len_bytes >= 32) {
        uint64_t words[4];
        memcpy(words, bytes, sizeof(words));
        for (int i = 0; i < 4; i++) {
            sum += words[i];
            sum += sum < words[i]; /* end-around carry */
        }
        bytes += 32;
        len_bytes -= 32;
    }
    while (len_bytes >= 4) {
        uint32_t word;
        memcpy(&word, bytes, sizeof(word));
        sum += word;
        sum += sum < word;
        bytes += 4;
        len_bytes -= 4;
    }
    if (len_bytes > 0) {
        uint32_t word = 0;
        memcpy(&word, bytes, len_bytes);
        sum += word;
        sum += sum < word;
    }
    return sum;
}

uint16_t csum_fold(uint64_t sum)
{
    sum = (sum >> 32) + (sum & 0xffffffff);
    sum = (sum >> 32) + (sum & 0xffffffff);
    sum = (sum >> 16) + (sum & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    return __builtin_bswap16((uint16_t)sum);
}

/* The sum of the frame from offset on; pieces may have odd lengths. */
static uint16_t csum_frame(const struct packet *p, uint32_t offset)
{
    struct pkt_cursor c;
    const uint8_t *piece;
    uint64_t sum = 0;
    bool odd = false;
    pkt_cursor_init(&c, p, offset);
    for (uint32_t n; (n = pkt_cursor_next(&c, UINT32_MAX, &piece)) != 0;) {
        uint16_t part = __builtin_bswap16(csum_fold(csum_add(0, piece, n)));
        /* A piece at an odd offset has its bytes in the other half of each word. */
        sum += odd ? __builtin_bswap16(part) : part;
        odd ^= n & 1;
    }
    return csum_fold(sum);
}

void csum_complete(struct packet *p)
{
    uint16_t sum = (uint16_t)~csum_frame(p, p->csum_start);
    /* RFC 768: a UDP checksum of zero means none, so zero is sent as all ones.  All ones is right
     * for TCP as well: both are zero in one's complement. */
    put_be16(p->head + p->csum_start + p->csum_offset, sum == 0 ? 0xffff : sum);
    p->flags &= (uint8_t)~PKT_NEEDS_CSUM;
}

void csum_ipv4_header(uint8_t *ip)
{
    put_be16(ip + 10, 0);
    put_be16(ip + 10, (uint16_t)~csum_fold(csum_add(0, ip, (ip[0] & 15) * 4u)));
}
