// Shows what a power cut would leave of a folder.
//
// Loaded before a program (LD_PRELOAD), it keeps a second folder beside the real one, and copies into it only what the program has synced: writes and
// truncations of a file are noted when they happen and carried over when the file is synced. Whatever was written and
// not synced is not in the second folder, as if the power had gone.
//
//   POWERCUT_REAL    the folder to watch, an absolute path
//   POWERCUT_SHADOW  the folder that receives what is durable; it must exist
//
// A file that was never synced does not exist in the shadow. A removal is carried over when the folder itself is synced; before
// that it need not have happened. Writes through a memory map are not seen; SQLite's only mapped file is rebuilt after a crash.

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { FILES_MAX = 64 };

struct range { off_t start, end; };

// What was done to one file and not synced.
struct file {
    char path[PATH_MAX];
    struct range *ranges;
    size_t count, capacity;
    int truncated;
    off_t smallest;
};

static struct file files[FILES_MAX];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_write)(int, const void *, size_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);

__attribute__((constructor)) static void find_real_functions(void) {
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_write = dlsym(RTLD_NEXT, "write");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
}

static void fail(const char *what) {
    perror(what);
    _exit(99);
}

// The path of a watched regular file, relative to the folder; NULL for anything else.
static const char *watched(int fd, char *path) {
    const char *folder = getenv("POWERCUT_REAL");
    struct stat about;
    if (!folder || fstat(fd, &about) != 0 || !S_ISREG(about.st_mode)) return NULL;
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return NULL;
    path[length] = 0;
    size_t prefix = strlen(folder);
    if (strncmp(path, folder, prefix) != 0 || path[prefix] != '/') return NULL;
    return path + prefix + 1;
}

static struct file *entry(const char *path) {
    for (int i = 0; i < FILES_MAX; i++) {
        if (files[i].path[0] == 0) strncpy(files[i].path, path, PATH_MAX - 1);
        if (strcmp(files[i].path, path) == 0) return &files[i];
    }
    fail("powercut: too many files");
    return NULL;
}

static void note(struct file *file, off_t start, off_t end) {
    if (file->count > 0 && file->ranges[file->count - 1].end == start) {
        file->ranges[file->count - 1].end = end;
        return;
    }
    if (file->count == file->capacity) {
        file->capacity = file->capacity ? 2 * file->capacity : 64;
        file->ranges = realloc(file->ranges, file->capacity * sizeof *file->ranges);
        if (!file->ranges) fail("powercut: memory");
    }
    file->ranges[file->count++] = (struct range){start, end};
}

static int shadow_of(const char *path) {
    const char *folder = getenv("POWERCUT_SHADOW");
    char shadow[2 * PATH_MAX];
    snprintf(shadow, sizeof shadow, "%s/%s", folder ? folder : "", path);
    int fd = open(shadow, O_CREAT | O_WRONLY, 0600);
    if (fd < 0) fail("powercut: shadow");
    return fd;
}

static void copy(const char *path, int to, struct range range) {
    static char buffer[1 << 16];
    char real[2 * PATH_MAX];
    snprintf(real, sizeof real, "%s/%s", getenv("POWERCUT_REAL"), path);
    // The program's descriptor may be for writing only.
    int from = open(real, O_RDONLY);
    if (from < 0) fail("powercut: real");
    while (range.start < range.end) {
        size_t wanted = range.end - range.start;
        ssize_t got = pread(from, buffer, wanted < sizeof buffer ? wanted : sizeof buffer, range.start);
        if (got <= 0) break;
        if (real_pwrite(to, buffer, got, range.start) != got) fail("powercut: write");
        range.start += got;
    }
    close(from);
}

// Carries over what was done to a file since its last sync.
static void carry_over(int fd) {
    char path[PATH_MAX];
    const char *name = watched(fd, path);
    struct stat about;
    if (!name || fstat(fd, &about) != 0) return;
    struct file *file = entry(name);
    int shadow = shadow_of(name);
    if (file->truncated && real_ftruncate(shadow, file->smallest) != 0) fail("powercut: truncate");
    for (size_t i = 0; i < file->count; i++) copy(name, shadow, file->ranges[i]);
    if (real_ftruncate(shadow, about.st_size) != 0) fail("powercut: size");
    close(shadow);
    file->count = 0;
    file->truncated = 0;
}

// The folder itself was synced: what is gone from it is gone.
static void carry_over_removals(int fd) {
    const char *folder = getenv("POWERCUT_REAL"), *shadow = getenv("POWERCUT_SHADOW");
    struct stat synced, about;
    if (!folder || !shadow || fstat(fd, &synced) != 0 || stat(folder, &about) != 0) return;
    if (synced.st_dev != about.st_dev || synced.st_ino != about.st_ino) return;
    DIR *entries = opendir(shadow);
    if (!entries) fail("powercut: shadow");
    for (struct dirent *item; (item = readdir(entries));) {
        char real[2 * PATH_MAX];
        snprintf(real, sizeof real, "%s/%s", folder, item->d_name);
        if (access(real, F_OK) != 0) unlinkat(dirfd(entries), item->d_name, 0);
    }
    closedir(entries);
}

static ssize_t written(int fd, off_t at, ssize_t count) {
    char path[PATH_MAX];
    const char *name = count > 0 ? watched(fd, path) : NULL;
    if (name) note(entry(name), at, at + count);
    return count;
}

static ssize_t locked_pwrite(int fd, const void *buffer, size_t count, off_t at) {
    pthread_mutex_lock(&lock);
    ssize_t result = written(fd, at, real_pwrite(fd, buffer, count, at));
    pthread_mutex_unlock(&lock);
    return result;
}

static int locked_ftruncate(int fd, off_t length) {
    char path[PATH_MAX];
    pthread_mutex_lock(&lock);
    int result = real_ftruncate(fd, length);
    const char *name = result == 0 ? watched(fd, path) : NULL;
    if (name) {
        struct file *file = entry(name);
        file->smallest = file->truncated && file->smallest < length ? file->smallest : length;
        file->truncated = 1;
    }
    pthread_mutex_unlock(&lock);
    return result;
}

static int locked_sync(int fd, int (*sync)(int)) {
    pthread_mutex_lock(&lock);
    int result = sync(fd);
    if (result == 0) {
        carry_over(fd);
        carry_over_removals(fd);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

ssize_t pwrite(int fd, const void *buffer, size_t count, off_t at) { return locked_pwrite(fd, buffer, count, at); }
ssize_t pwrite64(int fd, const void *buffer, size_t count, off_t at) { return locked_pwrite(fd, buffer, count, at); }
int ftruncate(int fd, off_t length) { return locked_ftruncate(fd, length); }
int ftruncate64(int fd, off_t length) { return locked_ftruncate(fd, length); }
int fsync(int fd) { return locked_sync(fd, real_fsync); }
int fdatasync(int fd) { return locked_sync(fd, real_fdatasync); }

ssize_t write(int fd, const void *buffer, size_t count) {
    // Sockets, pipes and the terminal are not looked at.
    struct stat about;
    if (fstat(fd, &about) != 0 || !S_ISREG(about.st_mode)) return real_write(fd, buffer, count);
    pthread_mutex_lock(&lock);
    off_t at = lseek(fd, 0, SEEK_CUR);
    ssize_t result = written(fd, at, real_write(fd, buffer, count));
    pthread_mutex_unlock(&lock);
    return result;
}
