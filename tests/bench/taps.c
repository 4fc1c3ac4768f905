/* taps.c - the same round trips between two taps, and the bare wake that sleeping costs.
 *
 * Behind the first tap somebody polls; behind the second a thread sleeps until there is something,
 * as a virtual machine's monitor does, and sends probes back.
 *
 * Threads: the caller is the first guest; the second has a thread of its own, pinned to a CPU.
 */
#define _GNU_SOURCE /* CPU_SET */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/bench/ring.h"

enum { BATCH = 32, PROBE = 0x40000000, FRAME_ROOM = 2048, SLEEP_MS = 20 };

struct echo {
    struct traffic answer;
    int32_t fd;
    int32_t cpu;
    uint32_t stop;
    uint64_t received;
};

static void pin(int32_t cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

static void *echo_probes(void *arg)
{
    struct echo *e = arg;
    uint8_t in[FRAME_ROOM], out[FRAME_ROOM];
    struct pollfd ready = {.fd = e->fd, .events = POLLIN};
    uint32_t bytes = e->answer.frame_bytes + VNET_BYTES;
    pin(e->cpu);
    memset(out, 0, sizeof(out));
    frame_begin(&e->answer, out);
    while (!__atomic_load_n(&e->stop, __ATOMIC_ACQUIRE)) {
        if (poll(&ready, 1, SLEEP_MS) <= 0)
            continue;
        while (read(e->fd, in, sizeof(in)) == (ssize_t)bytes) {
            uint32_t number = frame_sequence(&e->answer, in);
            if (number < PROBE) {
                __atomic_fetch_add(&e->received, 1, __ATOMIC_RELAXED);
                continue;
            }
            e->answer.sequence = number;
            frame_write(&e->answer, out);
            if (write(e->fd, out, bytes) < 0)
                break;
        }
    }
    return NULL;
}

/* One turn of the first guest: sends what is due, looks for the answer. */
static void tap_turn(int32_t fd, struct traffic *load, struct traffic *probe, uint8_t *buffer,
                     struct pings *p, uint64_t next[2], uint64_t *stamp)
{
    uint8_t in[FRAME_ROOM];
    uint64_t now = tsc();
    uint32_t bytes = load->frame_bytes + VNET_BYTES;
    for (uint32_t i = 0; p->load_gap_cycles && next[0] <= now && i < BATCH; i++) {
        next[0] += p->load_gap_cycles;
        frame_write(load, buffer);
        if (write(fd, buffer, bytes) == (ssize_t)bytes)
            p->load_sent++;
        else
            p->load_refused++;
    }
    if (*stamp && now - *stamp > p->patience_cycles) {
        p->lost++;
        *stamp = 0;
    }
    if (*stamp == 0 && now >= next[1]) {
        frame_write(probe, buffer);
        *stamp = tsc();
        if (write(fd, buffer, bytes) != (ssize_t)bytes)
            *stamp = 0;
    }
    while (read(fd, in, sizeof(in)) > 0) {
        if (*stamp == 0 || frame_sequence(probe, in) != probe->sequence - 1)
            continue;
        now = tsc();
        if (p->answered < p->room)
            p->cycles[p->answered++] = now - *stamp;
        *stamp = 0;
        p->random = p->random * 6364136223846793005ull + 1442695040888963407ull;
        next[1] = now + p->gap_cycles / 2 + (p->random >> 33) % (p->gap_cycles + 1);
    }
}

int32_t run_tap_pings(int32_t first_fd, int32_t second_fd, int32_t second_cpu,
                      const struct traffic *t, struct pings *p)
{
    struct traffic load = *t, probe = *t;
    struct echo e = {.answer = *t, .fd = second_fd, .cpu = second_cpu};
    uint8_t buffer[FRAME_ROOM];
    pthread_t thread;
    memcpy(e.answer.source, t->destination, 6);
    memcpy(e.answer.destination, t->source, 6);
    load.sequence = 0;
    probe.sequence = PROBE;
    memset(buffer, 0, sizeof(buffer));
    frame_begin(&load, buffer);
    int rc = pthread_create(&thread, NULL, echo_probes, &e);
    if (rc != 0)
        return -rc;
    uint64_t begun = tsc(), now = begun, next[2] = {begun, begun}, stamp = 0;
    for (; now - begun < p->duration_cycles; now = tsc())
        tap_turn(first_fd, &load, &probe, buffer, p, next, &stamp);
    p->elapsed_cycles = now - begun;
    __atomic_store_n(&e.stop, 1, __ATOMIC_RELEASE);
    pthread_join(thread, NULL);
    p->load_received = e.received;
    return 0;
}

/* ---- the bare wake */

struct sleeper {
    int32_t event_fd;
    int32_t cpu;
    uint32_t count;
    uint32_t awake;            /* how often it woke */
    uint64_t woken;            /* TSC of the last time */
};

static void *sleep_and_wake(void *arg)
{
    struct sleeper *s = arg;
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    int epoll_fd = epoll_create1(0);
    pin(s->cpu);
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, s->event_fd, &event);
    for (uint32_t i = 0; i < s->count; i++) {
        while (epoll_wait(epoll_fd, &event, 1, -1) < 1)
            continue;
        s->woken = tsc();
        __atomic_store_n(&s->awake, i + 1, __ATOMIC_RELEASE);
    }
    close(epoll_fd);
    return NULL;
}

int32_t wake_times(int32_t cpu, uint64_t gap_cycles, uint32_t count, uint64_t *cycles)
{
    struct sleeper s = {.event_fd = eventfd(0, EFD_NONBLOCK), .cpu = cpu, .count = count};
    pthread_t thread;
    int rc = pthread_create(&thread, NULL, sleep_and_wake, &s);
    if (rc != 0)
        return -rc;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t one = 1, from = tsc();
        while (tsc() - from < gap_cycles)
            _mm_pause();
        uint64_t begun = tsc();
        if (write(s.event_fd, &one, sizeof(one)) < 0)
            rc = errno;
        while (__atomic_load_n(&s.awake, __ATOMIC_ACQUIRE) != i + 1)
            _mm_pause();
        cycles[i] = s.woken - begun;
    }
    pthread_join(thread, NULL);
    close(s.event_fd);
    return -rc;
}
