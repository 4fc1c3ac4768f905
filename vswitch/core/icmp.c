/* icmp.c - too-big messages (RFC 1191, RFC 4443), so that senders find the path's MTU.
 *
 * Sent for IPv4 without DF as well: the switch does not fragment.
 *
 * Untrusted, Threads: see forward.h.
 */
#include "vswitch/core/forward.h"

enum { ETH_BYTES = 14, PROTO_ICMP = 1, PROTO_ICMP6 = 58, QUOTE_BYTES = 128 };

static bool take_token(struct forward *f)
{
    uint64_t now = f->breath.now_ns, elapsed = now - f->icmp_filled_ns;
    if (elapsed >= NS_PER_MS) {
        uint64_t tokens = f->icmp_tokens + elapsed / NS_PER_MS * (ICMP_PER_SECOND / 1000);
        f->icmp_tokens = tokens < ICMP_PER_SECOND / 10 ? tokens : ICMP_PER_SECOND / 10;
        f->icmp_filled_ns = now;
    }
    if (f->icmp_tokens == 0)
        return false;
    f->icmp_tokens--;
    return true;
}

/* An error about an ICMP error or a multicast must not be sent (RFC 1122, 3.2.2; RFC 4443, 2.4). */
static bool may_be_answered(const struct packet *p)
{
    if (mac_is_group(p->head + 6))
        return false;
    if (p->ip_version == 4 && p->l4_offset == 0) /* a later fragment: RFC 1122, 3.2.2 */
        return false;
    if (p->l4_protocol == PROTO_ICMP && p->ip_version == 4)
        return p->l4_offset != 0 && p->l4_offset < p->head_len &&
               (p->head[p->l4_offset] == 8 || p->head[p->l4_offset] == 0);
    if (p->l4_protocol == PROTO_ICMP6 && p->ip_version == 6)
        return p->l4_offset != 0 && p->l4_offset < p->head_len && p->head[p->l4_offset] >= 128;
    return true;
}

void icmp6_checksum(uint8_t *ip6)
{
    uint32_t bytes = get_be16(ip6 + 4);
    uint8_t tail[8] = {[7] = PROTO_ICMP6};
    put_be32(tail, bytes);
    put_be16(ip6 + 42, 0);
    uint64_t sum = csum_add(csum_add(0, tail, sizeof(tail)), ip6 + 8, 32);
    put_be16(ip6 + 42, (uint16_t)~csum_fold(csum_add(sum, ip6 + 40, bytes)));
}

static uint32_t put_ip4(uint8_t *ip, const uint8_t *quoted, uint32_t quote_bytes,
                        uint32_t mtu_bytes)
{
    uint8_t *icmp = ip + 20;
    memset(ip, 0, 28);
    ip[0] = 0x45;
    put_be16(ip + 2, (uint16_t)(28 + quote_bytes));
    ip[8] = 64;
    ip[9] = PROTO_ICMP;
    memcpy(ip + 12, quoted + 16, 4);
    memcpy(ip + 16, quoted + 12, 4);
    csum_ipv4_header(ip);
    icmp[0] = 3;
    icmp[1] = 4;
    put_be16(icmp + 6, (uint16_t)mtu_bytes);
    memcpy(icmp + 8, quoted, quote_bytes);
    put_be16(icmp + 2, (uint16_t)~csum_fold(csum_add(0, icmp, 8 + quote_bytes)));
    return 28 + quote_bytes;
}

static uint32_t put_ip6(uint8_t *ip, const uint8_t *quoted, uint32_t quote_bytes,
                        uint32_t mtu_bytes)
{
    uint8_t *icmp = ip + 40;
    memset(ip, 0, 48);
    ip[0] = 0x60;
    put_be16(ip + 4, (uint16_t)(8 + quote_bytes));
    ip[6] = PROTO_ICMP6;
    ip[7] = 64;
    memcpy(ip + 8, quoted + 24, 16);
    memcpy(ip + 24, quoted + 8, 16);
    icmp[0] = 2;
    put_be32(icmp + 4, mtu_bytes);
    memcpy(icmp + 8, quoted, quote_bytes);
    icmp6_checksum(ip);
    return 48 + quote_bytes;
}

void icmp_too_big(struct forward *f, const struct bridge *b, const struct packet *p,
                  uint32_t mtu_bytes)
{
    if (!may_be_answered(p) || !take_token(f))
        return;
    uint8_t *frame = f->answer_bytes;
    const uint8_t *quoted = p->head + p->l3_offset;
    uint32_t quote = min_u32(p->head_len - p->l3_offset, QUOTE_BYTES);
    memcpy(frame, p->head + 6, 6);
    memcpy(frame + 6, b->router_mac, 6);
    put_be16(frame + 12, p->ethertype);
    uint32_t bytes = p->ip_version == 4 ? put_ip4(frame + ETH_BYTES, quoted, quote, mtu_bytes)
                                        : put_ip6(frame + ETH_BYTES, quoted, quote, mtu_bytes);
    f->answer.flags = 0;
    forward_answer(f, f->ingress, ETH_BYTES + bytes);
}
