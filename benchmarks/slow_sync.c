/* A disk whose fsync takes long, for one process: preloaded into it.
 *
 * SLOW_SYNC_MS says how long each fsync and fdatasync takes before it is done. At its end the
 * process writes to the file SLOW_SYNC_COUNT how many there were: a run that none was slow in has
 * shown nothing. It looks at no other call, so that nothing else becomes slower.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static atomic_long times;

static void wait_first(void) {
    const char *text = getenv("SLOW_SYNC_MS");
    long ms = text ? atol(text) : 0;
    struct timespec span = {ms / 1000, ms % 1000 * 1000000L};
    atomic_fetch_add(&times, 1);
    nanosleep(&span, NULL);
}

#define SYNC(name) \
    int name(int fd) { \
        static int (*real)(int); \
        if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, #name); \
        wait_first(); \
        return real(fd); \
    }
SYNC(fsync)
SYNC(fdatasync)

__attribute__((destructor)) static void tell(void) {
    const char *name = getenv("SLOW_SYNC_COUNT");
    FILE *out = name ? fopen(name, "w") : NULL;
    if (out) {
        fprintf(out, "%ld\n", atomic_load(&times));
        fclose(out);
    }
}
