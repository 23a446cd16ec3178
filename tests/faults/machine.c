/* A machine whose disk fails and whose clock jumps, for the processes that preload this. What it does
   stands in the file FAULTS_MACHINE and takes effect at once:

   byte 0         for files whose name has FAULTS_DISK in it; 'f': there is no space left; 'r': the
                  file system is read-only; 's': a sync takes 0.2 s; '-': as ever
   bytes 8 to 15  seconds that are added to the wall clock (a signed number in the machine's order)

   The monotonic clock stays right. libfaketime cannot do that: with it, `time.sleep` of Python 3.11
   fails with EINVAL. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static volatile const char *control;
static const char *name;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FAULTS_MACHINE");
    name = getenv("FAULTS_DISK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *map = mmap(NULL, 16, PROT_READ, MAP_SHARED, file, 0);
    if (map != MAP_FAILED) control = map;
    close(file);
}

static char fault(int file) {
    if (!control || !name || *control == '-') return '-';
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return '-';
    path[length] = 0;
    return strstr(path, name) ? *control : '-';
}

static int refused(int file) {
    char what = fault(file);
    if (what == 'f') errno = ENOSPC;
    else if (what == 'r') errno = EROFS;
    else return 0;
    return 1;
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t at) {
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "pwrite64");
    return refused(file) ? -1 : real(file, bytes, count, at);
}

ssize_t pwrite(int file, const void *bytes, size_t count, off_t at) {
    return pwrite64(file, bytes, count, at);
}

ssize_t write(int file, const void *bytes, size_t count) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "write");
    return refused(file) ? -1 : real(file, bytes, count);
}

int fdatasync(int file) {
    static int (*real)(int);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "fdatasync");
    if (fault(file) == 's') usleep(200000);
    return refused(file) ? -1 : real(file);
}

int fsync(int file) {
    static int (*real)(int);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "fsync");
    if (fault(file) == 's') usleep(200000);
    return refused(file) ? -1 : real(file);
}

static int64_t ahead(void) { return control ? *(volatile const int64_t *)(control + 8) : 0; }

int clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, time);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) time->tv_sec += ahead();
    return failed;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    static int (*real)(struct timeval *, void *);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "gettimeofday");
    int failed = real(time, zone);
    if (!failed) time->tv_sec += ahead();
    return failed;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
