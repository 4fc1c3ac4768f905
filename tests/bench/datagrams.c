/* datagrams.c - UDP packets at a rate, from one socket to another, and how many arrive.
 *
 * The sender hands the kernel as many as are due with one call, and sleeps when none is; so it
 * takes the CPU that it needs and no more, and what it measures keeps the rest.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>

#include "tests/bench/ring.h"

enum { BATCH = 64, BYTES_MAX = 2048, NAP_NS = 20000, LAST_NS = 200 * 1000 * 1000 };

struct receiver {
    int fd;
    uint64_t received;         /* by the thread; read by the sender */
    uint64_t last_ns;          /* when the last one came */
    uint32_t stop;
};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void nap(void)
{
    struct timespec t = {.tv_nsec = NAP_NS};
    nanosleep(&t, NULL);
}

static void describe(struct mmsghdr *msgs, struct iovec *iovs, uint8_t *bytes, size_t len,
                     size_t step)
{
    for (uint32_t i = 0; i < BATCH; i++) {
        iovs[i] = (struct iovec){bytes + i * step, len};
        msgs[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &iovs[i], .msg_iovlen = 1}};
    }
}

static void *receive(void *argument)
{
    static __thread uint8_t bytes[BATCH * BYTES_MAX];
    struct receiver *r = argument;
    struct mmsghdr msgs[BATCH];
    struct iovec iovs[BATCH];
    describe(msgs, iovs, bytes, BYTES_MAX, BYTES_MAX);
    while (!__atomic_load_n(&r->stop, __ATOMIC_ACQUIRE)) {
        /* The socket has a time-out, after which stop is looked at. */
        int n = recvmmsg(r->fd, msgs, BATCH, MSG_WAITFORONE, NULL);
        if (n <= 0)
            continue;
        r->last_ns = now_ns();
        __atomic_fetch_add(&r->received, (uint64_t)n, __ATOMIC_RELAXED);
    }
    return NULL;
}

/* 0 or an error that no later call can mend. */
static int send_due(int fd, struct mmsghdr *msgs, uint64_t due, uint64_t *sent)
{
    uint32_t count = due < BATCH ? (uint32_t)due : BATCH;
    int n = sendmmsg(fd, msgs, count, 0);
    if (n > 0)
        *sent += (uint64_t)n;
    else if (errno != ENOBUFS && errno != EAGAIN && errno != EINTR)
        return errno;
    return 0;
}

/* Until all have arrived, or none has for LAST_NS. */
static void wait_for_last(struct receiver *r, uint64_t sent)
{
    uint64_t seen = 0, since = now_ns();
    for (;;) {
        uint64_t received = __atomic_load_n(&r->received, __ATOMIC_RELAXED);
        if (received >= sent || now_ns() - since > LAST_NS)
            return;
        if (received != seen) {
            seen = received;
            since = now_ns();
        }
        nap();
    }
}

int32_t send_datagrams(int32_t from_fd, int32_t to_fd, struct datagrams *d)
{
    uint8_t bytes[BYTES_MAX] = {0};
    struct receiver receiver = {.fd = to_fd};
    struct mmsghdr msgs[BATCH];
    struct iovec iovs[BATCH];
    pthread_t thread;
    int error = 0;
    if (d->bytes > BYTES_MAX)
        return -EINVAL;
    if (pthread_create(&thread, NULL, receive, &receiver) != 0)
        return -EAGAIN;
    if (d->to_cpu >= 0) {
        cpu_set_t cpus;
        CPU_ZERO(&cpus);
        CPU_SET((size_t)d->to_cpu, &cpus);
        pthread_setaffinity_np(thread, sizeof(cpus), &cpus);
    }
    prctl(PR_SET_TIMERSLACK, 1ul);
    describe(msgs, iovs, bytes, d->bytes, 0);
    d->sent = 0;
    uint64_t begun = now_ns(), passed = 0;
    while (error == 0 && (passed = now_ns() - begun) < d->duration_ns) {
        uint64_t due = (uint64_t)((double)passed * d->rate * 1e-9);
        if (due > d->sent)
            error = send_due(from_fd, msgs, due - d->sent, &d->sent);
        else
            nap();
    }
    d->elapsed_ns = now_ns() - begun;
    wait_for_last(&receiver, d->sent);
    __atomic_store_n(&receiver.stop, 1, __ATOMIC_RELEASE);
    pthread_join(thread, NULL);
    d->received = receiver.received;
    d->received_ns = receiver.last_ns > begun ? receiver.last_ns - begun : 0;
    return -error;
}
