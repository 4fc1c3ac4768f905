/* merge.c - frames from records, with headers put right for what was merged.
 *
 * Untrusted, Threads: see merge.h.
 * Source:     what a merged frame's headers must be: virtio 1.2, 5.1.6.2, as a sender makes them.
 */
#include "mesh/core/merge.h"

#include "mesh/core/probe.h"

enum {
    ETHERNET_BYTES = 14,
    TCP_FIN = 1,
    TCP_PSH = 8,
    MAX_IP_BYTES = 65535,
};

_Static_assert((int)ETHERNET_BYTES <= (int)RECORD_PACKET_AT, "made where the record's header was");

static bool start_packet(struct lane *lane, const struct opened *record);
static void start_run(struct lane *lane, struct packet *p, const struct opened *record);
static bool join_run(struct lane *lane, const struct opened *record);
static void fix_headers(const struct merge_run *run, struct packet *p);

void merge_record(struct lane *lane, struct breath *b, const struct opened *record)
{
    if (lane->run.packet) {
        if (join_run(lane, record))
            return;
        merge_finish(lane, b);
    }
    if (!start_packet(lane, record)) {
        /* Never an IP packet: its first byte is its kind. */
        if (prefix_is_control(record->prefix.flags)) {
            probe_receive(lane, b, record);
            return;
        }
        port_drop(&lane->mesh->port, b, DROP_BAD_RECORD, 1);
        return;
    }
    struct packet *p = &lane->packets[lane->count++];
    if (record->prefix.flags >> PREFIX_GSO_SHIFT & PREFIX_GSO_MASK)
        start_run(lane, p, record);
}

void merge_finish(struct lane *lane, struct breath *b)
{
    struct merge_run *run = &lane->run;
    struct packet *p = run->packet;
    run->packet = NULL;
    if (!p || run->records < 2)
        return;
    /* The first record may be shorter than head. */
    uint32_t head = p->head_len, seg = 1;
    for (; head < HEAD_BYTES && seg < p->segs_count; seg++) {
        uint32_t n = min_u32(HEAD_BYTES - head, (uint32_t)p->segs[seg].len_bytes);
        memcpy(p->head + head, p->segs[seg].base, n);
        head += n;
    }
    p->head_len = (uint16_t)head;
    p->gso_type = run->gso_type;
    p->gso_size = run->gso_size;
    p->flags = PKT_NEEDS_CSUM | (run->ecn ? PKT_GSO_ECN : 0);
    fix_headers(run, p);
    if (!pkt_offload_ok(p)) { /* the last of lane->packets, as only it can be an open run's */
        lane->count--;
        port_drop(&lane->mesh->port, b, DROP_BAD_RECORD, run->records);
    }
}

/* The length that the IP header says; 0 when it is not IP or longer than the record. */
static uint32_t ip_length(const struct opened *record)
{
    const uint8_t *ip = record->ip;
    uint32_t len = 0;
    if (record->ip_bytes >= 20 && ip[0] >> 4 == 4)
        len = get_be16(ip + 2);
    else if (record->ip_bytes >= 40 && ip[0] >> 4 == 6)
        len = get_be16(ip + 4) + 40u;
    return len <= record->ip_bytes ? len : 0;
}

/* Describes the record's packet as an Ethernet frame in the next place of lane->packets. */
static bool start_packet(struct lane *lane, const struct opened *record)
{
    struct packet *p = &lane->packets[lane->count];
    uint32_t ip_bytes = ip_length(record);
    if (ip_bytes == 0)
        return false;
    uint8_t *frame = record->ip - ETHERNET_BYTES;
    memset(frame, 0, ETHERNET_BYTES - 2);
    put_be16(frame + ETHERNET_BYTES - 2, record->ip[0] >> 4 == 4 ? 0x0800 : 0x86dd);

    memset(p, 0, offsetof(struct packet, head));
    p->segs = lane->segs[lane->count];
    p->segs[0] = (struct segment){frame, ETHERNET_BYTES + ip_bytes};
    p->segs_count = 1;
    p->len_bytes = ETHERNET_BYTES + ip_bytes;
    p->head_len = (uint16_t)min_u32(p->len_bytes, HEAD_BYTES);
    memcpy(p->head, frame, p->head_len);
    p->ingress = lane->mesh->port.id;
    p->peer = record->session->peer_id;
    p->flags = record->prefix.flags & (PKT_NEEDS_CSUM | PKT_CSUM_VALID);
    if (p->flags & PKT_NEEDS_CSUM) {
        p->csum_start = (uint16_t)(ETHERNET_BYTES + record->prefix.csum_start);
        p->csum_offset = record->prefix.csum_offset;
    }
    return pkt_offload_ok(p) && p->ip_version != 0;
}

/* Bytes of IP and L4 headers of a packet that a run may begin with, else 0. */
static uint32_t run_headers(const struct packet *p, uint8_t gso_type)
{
    bool is_tcp = gso_type == GSO_TCP4 || gso_type == GSO_TCP6;
    uint8_t version = gso_type == GSO_TCP4 || gso_type == GSO_UDP4 ? 4 : 6;
    uint32_t l4_bytes = 8;
    if (gso_type > GSO_UDP6 || p->ip_version != version || p->l4_offset == 0 ||
        p->l4_protocol != (is_tcp ? 6 : 17) || !(p->flags & PKT_NEEDS_CSUM) ||
        p->csum_start != p->l4_offset || p->csum_offset != (is_tcp ? 16 : 6))
        return 0;
    if (is_tcp) {
        if (p->l4_offset + 20u > p->head_len)
            return 0;
        l4_bytes = (p->head[p->l4_offset + 12] >> 4) * 4u;
    }
    uint32_t headers = p->l4_offset - ETHERNET_BYTES + l4_bytes;
    return l4_bytes >= 8 && ETHERNET_BYTES + headers < p->len_bytes &&
           ETHERNET_BYTES + headers <= p->head_len ? headers : 0;
}

static void start_run(struct lane *lane, struct packet *p, const struct opened *record)
{
    const struct record_prefix *prefix = &record->prefix;
    struct merge_run *run = &lane->run;
    uint8_t gso_type = prefix->flags >> PREFIX_GSO_SHIFT & PREFIX_GSO_MASK;
    uint32_t headers = run_headers(p, gso_type);
    uint32_t payload = p->len_bytes - ETHERNET_BYTES - headers;
    if (headers == 0 || prefix->gso_size == 0 || payload != prefix->gso_size ||
        (prefix->flags & PREFIX_LAST))
        return; /* complete as it is */
    uint16_t l4_offset = (uint16_t)(p->l4_offset - ETHERNET_BYTES);
    *run = (struct merge_run){.packet = p,
                              .session = record->session,
                              .id = prefix->run,
                              .next_position = (uint8_t)(prefix->position + 1),
                              .gso_type = gso_type,
                              .gso_size = prefix->gso_size,
                              .headers_bytes = (uint16_t)headers,
                              .l4_offset = l4_offset,
                              .last_payload_bytes = (uint16_t)payload,
                              .records = 1,
                              .ecn = (prefix->flags & PKT_GSO_ECN) != 0};
}

static bool is_tcp(const struct merge_run *run)
{
    return run->gso_type == GSO_TCP4 || run->gso_type == GSO_TCP6;
}

/* Same version, header lengths and flow labels of the run: the record's headers can be left out. */
static bool same_headers(const struct merge_run *run, const struct opened *record)
{
    const uint8_t *first = run->packet->head + ETHERNET_BYTES, *ip = record->ip;
    bool addresses = ip[0] >> 4 == 4 ? memcmp(first + 12, ip + 12, 8) == 0
                                     : memcmp(first + 8, ip + 8, 32) == 0;
    const uint8_t *l4 = ip + run->l4_offset;
    return first[0] == ip[0] && addresses && memcmp(first + run->l4_offset, l4, 4) == 0 &&
           (!is_tcp(run) || (first[run->l4_offset + 12] >> 4 == l4[12] >> 4));
}

/* Whether the record is the run's next; then its payload is the frame's next segment. */
static bool join_run(struct lane *lane, const struct opened *record)
{
    const struct record_prefix *prefix = &record->prefix;
    struct merge_run *run = &lane->run;
    struct packet *p = run->packet;
    uint32_t ip_bytes = ip_length(record);
    if (record->session != run->session || prefix->run != run->id ||
        prefix->position != run->next_position || prefix->gso_size != run->gso_size ||
        (prefix->flags >> PREFIX_GSO_SHIFT & PREFIX_GSO_MASK) != run->gso_type ||
        run->last_payload_bytes != run->gso_size || ip_bytes <= run->headers_bytes)
        return false;
    uint32_t payload = ip_bytes - run->headers_bytes;
    if (payload > run->gso_size || p->segs_count >= MAX_SEGMENTS ||
        p->len_bytes - ETHERNET_BYTES + payload > MAX_IP_BYTES || !same_headers(run, record))
        return false;
    p->segs[p->segs_count++] = (struct segment){record->ip + run->headers_bytes, payload};
    p->len_bytes += payload;
    run->last_payload_bytes = (uint16_t)payload;
    run->next_position++;
    run->records++;
    if (is_tcp(run))
        run->tcp_flags = record->ip[run->l4_offset + 13];
    return true;
}

/* Lengths, FIN and PSH of the last record, and the pseudo-header's sum in the checksum field. */
static void fix_headers(const struct merge_run *run, struct packet *p)
{
    uint8_t *ip = p->head + ETHERNET_BYTES;
    uint8_t *l4 = ip + run->l4_offset;
    uint32_t ip_bytes = p->len_bytes - ETHERNET_BYTES;
    uint32_t l4_bytes = ip_bytes - run->l4_offset;
    uint8_t tail[8] = {0};
    uint64_t sum;
    put_be32(tail, l4_bytes);
    tail[7] = p->l4_protocol;
    if (p->ip_version == 4) {
        put_be16(ip + 2, (uint16_t)ip_bytes);
        csum_ipv4_header(ip);
        sum = csum_add(csum_add(0, tail, sizeof(tail)), ip + 12, 8);
    } else {
        put_be16(ip + 4, (uint16_t)(ip_bytes - 40));
        sum = csum_add(csum_add(0, tail, sizeof(tail)), ip + 8, 32);
    }
    if (is_tcp(run))
        l4[13] |= run->tcp_flags & (TCP_FIN | TCP_PSH);
    else
        put_be16(l4 + 4, (uint16_t)l4_bytes);
    put_be16(p->head + p->csum_start + p->csum_offset, csum_fold(sum));
}
