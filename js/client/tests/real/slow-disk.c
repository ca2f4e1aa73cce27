// A slow disk: loaded before a program (LD_PRELOAD), it lets every fsync and fdatasync wait for SLOW_DISK_MS
// milliseconds, for as long as there is a file SLOW_DISK_WHILE.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

static int wait_and_sync(const char *name, int file) {
    if (access(getenv("SLOW_DISK_WHILE"), F_OK) == 0) usleep((useconds_t)atoi(getenv("SLOW_DISK_MS")) * 1000);
    return ((int (*)(int))dlsym(RTLD_NEXT, name))(file);
}

int fsync(int file) { return wait_and_sync("fsync", file); }
int fdatasync(int file) { return wait_and_sync("fdatasync", file); }
