/* A wall clock that a test moves: put before the C library (LD_PRELOAD).
 *
 * The file named by TAILWATER_TEST_CLOCK holds two numbers of 64 bits: nanoseconds that are added
 * to the wall clock, and, if it is not 0, the time at which it stands still. Other clocks are left
 * alone. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *moved;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("TAILWATER_TEST_CLOCK");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *page = mmap(NULL, 16, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (page != MAP_FAILED)
        moved = page;
}

int clock_gettime(clockid_t clock, struct timespec *out) {
    int failed = (int)syscall(SYS_clock_gettime, clock, out);
    if (failed || clock != CLOCK_REALTIME || !moved)
        return failed;
    int64_t now = moved[1] ? moved[1] : out->tv_sec * 1000000000LL + out->tv_nsec + moved[0];
    out->tv_sec = now / 1000000000LL;
    out->tv_nsec = now % 1000000000LL;
    return 0;
}
