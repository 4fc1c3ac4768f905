/* uml_preload.c - four defects of User Mode Linux 6.1, mended between it and libc.
 *
 * 1. Lost wake-ups, which stall any request and answer over a network until the next timer.
 *    Its idle loop disables interrupts, decides to sleep, and calls sigsuspend(): a SIGIO in
 *    between is noted as pending, and slept on.  And a tap device sends SIGIO just before its
 *    data is there for epoll, so that a quick handler on another CPU finds nothing and nobody
 *    calls it again.  Here sigsuspend() does not sleep when a signal came since the last sleep,
 *    and sleeps on the guest's epoll descriptor as well as on signals.
 *
 * 2. Large CPU state.  It restores NT_X86_XSTATE from 2696 bytes; Linux wants the whole state,
 *    which is larger where there is AMX, and answers EFAULT.  Here that register set does not
 *    exist, so that it uses PTRACE_SETFPREGS, which also copies less.
 *
 * 3. Orphans. When its kernel is killed, the processes in it run on, by themselves, for ever.
 *    Here they die with who traces them.
 *
 * 4. A lost clock.  A SIGALRM that is noted while a timer's handler runs softirqs is forgotten when
 *    these enable interrupts (unblock_signals() clears it and does not enter the handler again).
 *    Nobody sets the timer any more: the guest has no time, and its idle loop, which takes a timer
 *    that is not set for one that just fired, spins.  Here it gets another SIGALRM then.
 *
 * Threads:    the guest's kernel is one thread; its helper threads block SIGIO and never sleep.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/ptrace.h>
#include <time.h>
#include <unistd.h>

/* Turns of the idle loop that find no timer set.  One that just fired is seen so once or twice. */
enum { CLOCK_LOST_TURNS = 100 };

typedef void (*action_handler)(int, siginfo_t *, void *);

static int (*real_sigaction)(int, const struct sigaction *, struct sigaction *);
static int (*real_epoll_create)(int);
static int (*real_timer_gettime)(timer_t, struct itimerspec *);
static long (*real_ptrace)(enum __ptrace_request, pid_t, void *, void *);
static volatile sig_atomic_t arrived;
static action_handler guest_handler;
static int interrupt_fd = -1;

/* Early, because the guest's kernel calls us on small stacks. */
__attribute__((constructor)) static void find_real(void)
{
    *(void **)&real_sigaction = dlsym(RTLD_NEXT, "sigaction");
    *(void **)&real_epoll_create = dlsym(RTLD_NEXT, "epoll_create");
    *(void **)&real_timer_gettime = dlsym(RTLD_NEXT, "timer_gettime");
    *(void **)&real_ptrace = dlsym(RTLD_NEXT, "ptrace");
}

static void note_arrival(int number, siginfo_t *info, void *context)
{
    arrived = 1;
    guest_handler(number, info, context);
}

int sigaction(int number, const struct sigaction *action, struct sigaction *previous)
{
    if (number != SIGIO)
        return real_sigaction(number, action, previous);
    action_handler before = guest_handler;
    struct sigaction noted;
    if (action != NULL) {
        noted = *action;
        if (action->sa_flags & SA_SIGINFO) {
            guest_handler = action->sa_sigaction;
            noted.sa_sigaction = note_arrival;
        }
    }
    int result = real_sigaction(number, action != NULL ? &noted : NULL, previous);
    if (previous != NULL && previous->sa_sigaction == note_arrival)
        previous->sa_sigaction = before;
    return result;
}

/* The first one is the guest's interrupt controller. */
int epoll_create(int size)
{
    int fd = real_epoll_create(size);
    if (interrupt_fd < 0)
        interrupt_fd = fd;
    return fd;
}

int sigsuspend(const sigset_t *mask)
{
    sigset_t interrupts, before;
    sigemptyset(&interrupts);
    sigaddset(&interrupts, SIGIO);
    sigprocmask(SIG_BLOCK, &interrupts, &before);
    if (!arrived) {
        struct pollfd sources = {.fd = interrupt_fd, .events = POLLIN};
        if (ppoll(&sources, 1, NULL, mask) > 0 && !arrived)
            kill(getpid(), SIGIO);
    }
    arrived = 0;
    sigprocmask(SIG_SETMASK, &before, NULL);
    errno = EINTR;
    return -1;
}

/* The idle loop alone asks, with SIGALRM blocked. */
int timer_gettime(timer_t timer, struct itimerspec *left)
{
    static int turns;
    int result = real_timer_gettime(timer, left);
    if (result < 0)
        return result;
    turns = left->it_value.tv_sec == 0 && left->it_value.tv_nsec == 0 ? turns + 1 : 0;
    if (turns == CLOCK_LOST_TURNS) {
        turns = 0;
        kill(getpid(), SIGALRM);
    }
    return result;
}

long ptrace(enum __ptrace_request request, ...)
{
    va_list rest;
    va_start(rest, request);
    pid_t pid = va_arg(rest, pid_t);
    void *address = va_arg(rest, void *);
    void *data = va_arg(rest, void *);
    va_end(rest);
    if (request == PTRACE_GETREGSET && (size_t)address == NT_X86_XSTATE) {
        errno = EINVAL;
        return -1;
    }
    if (request == PTRACE_SETOPTIONS)
        data = (void *)((size_t)data | PTRACE_O_EXITKILL);
    return real_ptrace(request, pid, address, data);
}
