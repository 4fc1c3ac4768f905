/* call.h - tells a front-end something through a descriptor of its own, and never waits for it.
 *
 * The front-end shares the open file: it can fill an event counter and clear O_NONBLOCK between any
 * two of our system calls, and a write() would then sleep for as long as it likes.  An eventfd has
 * no write that is told not to wait (RWF_NOWAIT is for reads only), and cannot be opened anew.  But
 * the kernel itself adds to one without ever waiting, when an asynchronous request completes
 * (IOCB_FLAG_RESFD, Linux 2.6.22): so the call is a request to read nothing from an empty file of
 * ours, which completes at once.  To a UNIX socket send() takes its word for not waiting from us,
 * not from the file.  A pipe has no such call: whoever writes to it locks it, and may be made to
 * hold that lock by a page that never comes.
 *
 * Untrusted:  the file behind the descriptor.
 * Threads:    `who` says whose context a call uses: a worker's index, or CALL_CONTROL.  One thread
 *             at a time for each.
 * Source:     io_submit(2), eventfd(2), send(2).
 */
#ifndef VHOST_CALL_H
#define VHOST_CALL_H

#include "vhost/core/vhost_abi.h"

enum { CALL_CONTROL = MAX_WORKERS, CALL_NONE = -1 };

/* By the control thread, for each port before its first call: 0 or -errno; -EAGAIN: see sysctl
 * fs.aio-max-nr. */
int call_prepare(void);
/* For each port for which call_prepare() returned 0, behind its last call. */
void call_release(void);
/* The descriptor with its kind, as one word that can be stored at once; fd -1: CALL_NONE. */
int call_of(int fd);
/* A counter or socket that is full was told before; every other error is the front-end's own
 * loss. */
void call_make(int call, uint32_t who);

#endif
