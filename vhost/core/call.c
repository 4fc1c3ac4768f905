/* call.c - adds one to a front-end's event counter, or sends to its socket, without ever waiting.
 *
 * The kernel puts a record of each finished request into a ring that it shares with us; nobody is
 * interested in them, so the ring is emptied by moving its head, as io_getevents() does.
 *
 * Untrusted:  see call.h.
 * Threads:    see call.h.
 */
#define _GNU_SOURCE /* memfd_create */
#include <linux/aio_abi.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vhost/core/call.h"

enum { REQUESTS = 8 };
#define AIO_RING_MAGIC 0xa10a10a1u

/* What a context's number points to; the kernel and libaio agree on it. */
struct aio_ring {
    uint32_t id;
    uint32_t nr;
    uint32_t head;                 /* ours */
    uint32_t tail;                 /* the kernel's */
    uint32_t magic;
};

static aio_context_t contexts[MAX_WORKERS + 1];
static int empty_fd;               /* open while there are users */
static uint32_t users;

int call_prepare(void)
{
    for (uint32_t i = 0; i < ARRAY_LEN(contexts); i++) {
        if (contexts[i] == 0 && syscall(SYS_io_setup, REQUESTS, &contexts[i]) < 0)
            return -errno;
        if (((const struct aio_ring *)contexts[i])->magic != AIO_RING_MAGIC)
            return -ENOSYS;
    }
    if (users == 0)
        empty_fd = memfd_create("call", MFD_CLOEXEC);
    if (empty_fd < 0)
        return -errno;
    users++;
    return 0;
}

void call_release(void)
{
    if (--users == 0)
        close(empty_fd);
}

int call_of(int fd)
{
    struct stat st;
    if (fd < 0)
        return CALL_NONE;
    return fd << 1 | (fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode));
}

static void add_one(int fd, aio_context_t context)
{
    struct iocb request = {.aio_fildes = (uint32_t)empty_fd,
                           .aio_lio_opcode = IOCB_CMD_PREAD,
                           .aio_flags = IOCB_FLAG_RESFD,
                           .aio_resfd = (uint32_t)fd};
    struct iocb *requests[] = {&request};
    struct aio_ring *ring = (struct aio_ring *)context;
    if (syscall(SYS_io_submit, context, 1l, requests) == 1)
        store_relaxed(&ring->head, load_relaxed(&ring->tail)); /* by us in the call above */
}

void call_make(int call, uint32_t who)
{
    uint64_t one = 1;
    if (call == CALL_NONE)
        return;
    if (!(call & 1))
        add_one(call >> 1, contexts[who]);
    else if (send(call >> 1, &one, sizeof(one), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        return;
}

void vhost_signal(int fd) { call_make(call_of(fd), CALL_CONTROL); }
