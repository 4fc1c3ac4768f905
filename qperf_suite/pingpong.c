/* pingpong.c - round trips of UDP datagrams, one at a time, as a distribution.
 *
 *     pingpong PORT                              answers everything that comes to a port
 *     pingpong PORT ADDRESS MILLISECONDS BYTES   asks, then prints one line of JSON
 *
 * qperf tells the mean only.  The first tenth of the time warms up and is dropped; a datagram
 * that has no answer after 100 ms is lost, and what comes for it later is ignored.
 *
 * Untrusted:  nothing; runs in guests, against itself.
 * Threads:    one.
 * Source:     own protocol: a datagram begins with the number of its round trip.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

#define SAMPLES_MAX (1u << 20)
#define BYTES_MAX 65507
#define LOST_AFTER_US 100000

static uint32_t samples_ns[SAMPLES_MAX];
static char datagram[BYTES_MAX];

static int fail(const char *what)
{
    fprintf(stderr, "pingpong: %s: %s\n", what, strerror(errno));
    return 1;
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int ascending(const void *one, const void *other)
{
    uint32_t a = *(const uint32_t *)one, b = *(const uint32_t *)other;
    return (a > b) - (a < b);
}

static int serve(int fd)
{
    struct sockaddr_in address;
    struct sockaddr *peer = (struct sockaddr *)&address;
    for (;;) {
        socklen_t length = sizeof(address);
        ssize_t got = recvfrom(fd, datagram, sizeof(datagram), 0, peer, &length);
        if (got >= 0)
            sendto(fd, datagram, (size_t)got, 0, peer, length);
        else if (errno != EINTR && errno != ECONNREFUSED)
            return fail("receive");
    }
}

/* Returns whether the answer came. */
static int round_trip(int fd, uint64_t number, size_t bytes)
{
    memcpy(datagram, &number, sizeof(number));
    if (send(fd, datagram, bytes, 0) < 0)
        return 0;
    for (;;) {
        uint64_t answered = 0;
        if (recv(fd, datagram, sizeof(datagram), 0) < 0)
            return 0;
        memcpy(&answered, datagram, sizeof(answered));
        if (answered == number)
            return 1;
    }
}

static void print(uint32_t count, uint64_t lost, size_t bytes)
{
    static const double percents[] = {50, 90, 99, 99.9};
    qsort(samples_ns, count, sizeof(*samples_ns), ascending);
    printf("{\"pingpong\": {\"bytes\": %zu, \"count\": %u, \"lost\": %llu", bytes, count,
           (unsigned long long)lost);
    if (count) {
        printf(", \"min_us\": %.3f", samples_ns[0] / 1e3);
        for (size_t i = 0; i < sizeof(percents) / sizeof(*percents); i++)
            printf(", \"p%g_us\": %.3f", percents[i],
                   samples_ns[(uint32_t)((count - 1) * percents[i] / 100)] / 1e3);
        printf(", \"max_us\": %.3f", samples_ns[count - 1] / 1e3);
    }
    printf("}}\n");
}

static int ask(int fd, uint64_t duration_ns, size_t bytes)
{
    struct timeval patience = {0, LOST_AFTER_US};
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)))
        return fail("SO_RCVTIMEO");
    uint64_t begun = now_ns(), number = 0, lost = 0;
    uint32_t count = 0;
    for (uint64_t before = begun; before - begun < duration_ns && count < SAMPLES_MAX;) {
        int answered = round_trip(fd, ++number, bytes);
        uint64_t after = now_ns();
        if (before - begun >= duration_ns / 10) {
            if (answered)
                samples_ns[count++] = (uint32_t)(after - before);
            else
                lost++;
        }
        before = after;
    }
    print(count, lost, bytes);
    return 0;
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0)
        return fail("socket");
    if (argc != 2 && argc != 5) {
        fprintf(stderr, "pingpong PORT [ADDRESS MILLISECONDS BYTES]\n");
        return 2;
    }
    address.sin_port = htons((uint16_t)atoi(argv[1]));
    if (argc == 2)
        return bind(fd, (struct sockaddr *)&address, sizeof(address)) ? fail("bind") : serve(fd);
    size_t bytes = (size_t)atol(argv[4]);
    if (inet_pton(AF_INET, argv[2], &address.sin_addr) != 1 || bytes < 8 || bytes > BYTES_MAX) {
        fprintf(stderr, "pingpong: needs an IPv4 address and 8 to %d bytes\n", BYTES_MAX);
        return 2;
    }
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)))
        return fail("connect");
    return ask(fd, (uint64_t)atol(argv[3]) * 1000000u, bytes);
}
