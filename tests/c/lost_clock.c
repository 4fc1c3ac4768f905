/* lost_clock.c - the idle loop of User Mode Linux, with a timer that is set, has just fired, or is
 * not set and never will be.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <time.h>

enum { TURNS = 1000 };

static volatile sig_atomic_t alarms;

static void on_alarm(int number)
{
    (void)number;
    alarms++;
}

static int alarms_of(timer_t timer, int turns)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    alarms = 0;
    for (int i = 0; i < turns; i++) {
        struct itimerspec left;
        sigprocmask(SIG_BLOCK, &set, NULL);
        timer_gettime(timer, &left);
        sigprocmask(SIG_UNBLOCK, &set, NULL);
    }
    return alarms;
}

int main(void)
{
    const struct itimerspec far = {.it_value.tv_sec = 1000}, near = {.it_value.tv_nsec = 1};
    timer_t timer;
    signal(SIGALRM, on_alarm);
    timer_create(CLOCK_MONOTONIC, NULL, &timer);
    timer_settime(timer, 0, &far, NULL);
    printf("set: %d\n", alarms_of(timer, TURNS));
    timer_settime(timer, 0, &near, NULL);
    while (alarms == 0)
        ;
    printf("just fired: %d\n", alarms_of(timer, 3));
    printf("lost: %d\n", alarms_of(timer, TURNS) > 0);
    return 0;
}
