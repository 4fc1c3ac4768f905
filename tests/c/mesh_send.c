/* mesh_send.c - what a lane does when the kernel is full, or cannot cut trains. */
#define _GNU_SOURCE
#include <sys/syscall.h>

#include "tests/c/mesh_rig.h"

enum { TCP_ACK = 16 };

static int fail_with;            /* errno of sendmsg, 0: it works */
static uint32_t fail_after;      /* calls that still work */
static bool fail_trains_only;
static uint32_t calls, datagrams;

/* In place of the C library's. */
ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
    calls++;
    if (fail_with && fail_after == 0 && (!fail_trains_only || msg->msg_controllen)) {
        errno = fail_with;
        return -1;
    }
    if (fail_after)
        fail_after--;
    datagrams++;
    return syscall(SYS_sendmsg, fd, msg, flags);
}

static struct rig_node a, b;
static struct rig_frame frame;

static void begin(int error, uint32_t after, bool trains_only)
{
    rig_pair(&a, &b);
    fail_with = error;
    fail_after = after;
    fail_trains_only = trains_only;
    calls = datagrams = 0;
}

static void end(void)
{
    fail_with = 0;
    rig_node_free(&a);
    rig_node_free(&b);
}

static uint32_t receive_all(void)
{
    struct packet *out[BURST];
    uint32_t payload = 0;
    for (uint32_t n; (n = rig_receive(&b, out, 0)) != 0;) {
        for (uint32_t i = 0; i < n; i++)
            payload += out[i]->len_bytes - 66;
        b.rxq->done(b.rxq, &b.breath, n);
    }
    return payload;
}

static void test_no_trains(int error)
{
    begin(error, 0, true);
    rig_tcp(&frame, 4, 20000, 1000, TCP_ACK);
    CHECK(rig_send(&a, &frame) == 1);
    CHECK(datagrams == 20 && calls == 21 && receive_all() == 20000);
    CHECK(rig_send(&a, &frame) == 1 && receive_all() == 20000);
    /* EIO is the device's answer to every train, EINVAL this train's. */
    CHECK(calls == (error == EIO ? 41 : 42));
    a.breath.now_ns += 3600 * NS_PER_S;
    fail_with = 0;
    CHECK(rig_send(&a, &frame) == 1 && receive_all() == 20000 && rig_all_drops(&a) == 0);
    CHECK(datagrams == 41);
    end();
}

/* Full: the sealed train waits, nothing more is taken, and it goes out when there is room. */
static void test_waits(void)
{
    struct packet *out[BURST];
    begin(EAGAIN, 0, false);
    rig_tcp(&frame, 4, 20000, 1000, TCP_ACK);
    CHECK(rig_send(&a, &frame) == 1); /* sealed */
    CHECK(a.rxq->arm(a.rxq));         /* does not fall asleep on it */
    CHECK(rig_send(&a, &frame) == 0);
    struct packet *p = &frame.packet;
    struct port *port = mesh_port(a.mesh);
    CHECK(port->tx(port, &a.breath, &p, 1, 0) == 1 && rig_drops(&a, DROP_SEND) == 1);
    a.breath.now_ns += TX_WAIT_NS / 2;
    CHECK(rig_send(&a, &frame) == 0 && receive_all() == 0);
    fail_with = 0;
    CHECK(a.rxq->burst(a.rxq, &a.breath, out, BURST) == 0); /* no more tx needed */
    CHECK(receive_all() == 20000 && rig_drops(&a, DROP_SEND) == 1 && !a.rxq->arm(a.rxq));
    end();
}

static void test_gives_up(void)
{
    begin(EAGAIN, 0, false);
    rig_tcp(&frame, 4, 20000, 1000, TCP_ACK);
    CHECK(rig_send(&a, &frame) == 1 && rig_send(&a, &frame) == 0);
    a.breath.now_ns += TX_WAIT_NS;
    CHECK(rig_send(&a, &frame) == 1); /* the first was dropped; this one, at once */
    CHECK(rig_drops(&a, DROP_SEND) == 2);
    CHECK(rig_send(&a, &frame) == 1 && rig_drops(&a, DROP_SEND) == 3);
    fail_with = 0;
    CHECK(rig_send(&a, &frame) == 1 && receive_all() == 20000);
    fail_with = EAGAIN; /* it took something: waiting is worth it again */
    CHECK(rig_send(&a, &frame) == 1 && rig_send(&a, &frame) == 0);
    CHECK(rig_drops(&a, DROP_SEND) == 3);
    end();
}

/* A frame of two trains, the second of which meets a full kernel. */
static void test_half_sent(void)
{
    begin(EAGAIN, 1, false);
    rig_tcp(&frame, 4, 65000, 1348, TCP_ACK);
    CHECK(rig_send(&a, &frame) == 1 && rig_send(&a, &frame) == 0);
    fail_with = 0;
    CHECK(rig_send(&a, &frame) == 1 && receive_all() == 130000);
    CHECK(rig_all_drops(&a) == 0 && rig_all_drops(&b) == 0);
    end();
}

/* Singly, and full in the middle: resumed where it stopped, nothing twice. */
static void test_resumes(void)
{
    begin(EIO, 0, true);
    rig_tcp(&frame, 4, 20000, 1000, TCP_ACK);
    CHECK(rig_send(&a, &frame) == 1 && receive_all() == 20000);
    fail_with = EAGAIN, fail_trains_only = false, fail_after = 7, datagrams = 0;
    CHECK(rig_send(&a, &frame) == 1 && datagrams == 7);
    fail_with = 0;
    train_flush(&a.mesh->lanes[0]->trains, mesh_port(a.mesh), &a.breath);
    CHECK(datagrams == 20 && receive_all() == 20000);
    CHECK(rig_all_drops(&a) == 0 && rig_all_drops(&b) == 0);
    end();
}

static void test_refused(void)
{
    begin(ENETUNREACH, 0, false);
    rig_tcp(&frame, 4, 20000, 1000, TCP_ACK);
    CHECK(rig_send(&a, &frame) == 1 && rig_drops(&a, DROP_SEND) == 1);
    fail_with = 0;
    CHECK(rig_send(&a, &frame) == 1 && receive_all() == 20000);
    end();
}

int main(void)
{
    test_no_trains(EIO);
    test_no_trains(EINVAL);
    test_waits();
    test_gives_up();
    test_half_sent();
    test_resumes();
    test_refused();
    puts("ok");
    return 0;
}
