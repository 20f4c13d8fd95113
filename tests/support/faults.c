/* A file system that fails or hangs, in the calls of one process: preloaded into it.
 *
 * FAULTS_OF_TESTS names a file of rules, a line each: "CALL ACTION PART". CALL is open, read, preadv,
 * stat, list or sync, or again, the end of a list, where an error makes it begin again; PART is a part
 * of the path. ACTION is `hang`, until the rule is gone; a number, the errno of the error; `slow:MS`,
 * so many milliseconds before it is done; `once:` and one of these, for the first call of a path only;
 * or `from:N:` and one of these, from the N-th call of the process on, counted from 1. What a rule did
 * is appended to the file's name with ".log", as "CALL PATH" on a line, before it is done.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static char seen[256][4200];
static int seen_times[256];
static int seen_count;
static pthread_mutex_t seen_lock = PTHREAD_MUTEX_INITIALIZER;

/* How many such calls there were, this one included; those of more than 256 kinds are all first. */
static int count(const char *call, const char *path) {
    char key[4200];
    snprintf(key, sizeof key, "%s %s", call, path);
    int i;
    pthread_mutex_lock(&seen_lock);
    for (i = 0; i < seen_count; i++)
        if (!strcmp(seen[i], key)) break;
    if (i == seen_count && i < 256) strcpy(seen[seen_count++], key);
    int times = i < 256 ? ++seen_times[i] : 1;
    pthread_mutex_unlock(&seen_lock);
    return times;
}

static void tell(const char *control, const char *call, const char *path) {
    char name[4200], line[4300];
    snprintf(name, sizeof name, "%s.log", control);
    int size = snprintf(line, sizeof line, "%s %s\n", call, path);
    int fd = syscall(SYS_openat, AT_FDCWD, name, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0) {
        if (syscall(SYS_write, fd, line, size) < 0) abort();
        syscall(SYS_close, fd);
    }
}

/* Returns what the first rule says: 0 nothing, HANG, SLOW and milliseconds, else an errno. */
#define HANG -1
#define SLOW 100000
static int rule_for(const char *control, const char *call, const char *path, int begins) {
    char rules[8192], *line, *rest;
    int fd = syscall(SYS_openat, AT_FDCWD, control, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    long size = syscall(SYS_read, fd, rules, sizeof rules - 1);
    syscall(SYS_close, fd);
    if (size <= 0) return 0;
    rules[size] = 0;
    for (line = strtok_r(rules, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char *fields, *name = strtok_r(line, " ", &fields);
        char *action = strtok_r(NULL, " ", &fields);
        if (!name || !action || strcmp(name, call) || !strstr(path, fields)) continue;
        if (!strncmp(action, "once:", 5)) {
            if (!begins || count(call, path) == 1) action += 5;
            else continue;
        }
        if (!strncmp(action, "from:", 5)) {
            int from = strtol(action + 5, &action, 10);
            if (begins && count(call, fields) < from) continue;
            action++;
        }
        if (!strncmp(action, "slow:", 5)) return SLOW + atoi(action + 5);
        return strcmp(action, "hang") ? atoi(action) : HANG;
    }
    return 0;
}

/* Returns 0, or sets errno and returns -1. */
static int judge(const char *call, const char *path) {
    const char *control = getenv("FAULTS_OF_TESTS");
    if (!control || !path) return 0;
    int rule = rule_for(control, call, path, 1);
    if (!rule) return 0;
    tell(control, call, path);
    if (rule >= SLOW) {
        struct timespec span = {(rule - SLOW) / 1000, (rule - SLOW) % 1000 * 1000000L};
        nanosleep(&span, NULL);
        return 0;
    }
    if (rule > 0) {
        errno = rule;
        return -1;
    }
    struct timespec pause = {0, 5000000};
    while (rule_for(control, call, path, 0) == HANG) nanosleep(&pause, NULL);
    return 0;
}

static int judge_fd(const char *call, int fd) {
    char link[64], path[4200];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return judge(call, path);
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(int, name, const char *, int, ...); \
        va_list more; va_start(more, flags); int mode = va_arg(more, int); va_end(more); \
        return judge("open", path) ? -1 : real(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define STAT(type, name) \
    int name(const char *path, type *to) { \
        REAL(int, name, const char *, type *); \
        return judge("stat", path) ? -1 : real(path, to); \
    }
STAT(struct stat, stat)
STAT(struct stat64, stat64)
STAT(struct stat, lstat)
STAT(struct stat64, lstat64)

#define STATAT(type, name) \
    int name(int at, const char *path, type *to, int flags) { \
        REAL(int, name, int, const char *, type *, int); \
        return judge("stat", path) ? -1 : real(at, path, to, flags); \
    }
STATAT(struct stat, fstatat)
STATAT(struct stat64, fstatat64)

ssize_t read(int fd, void *to, size_t size) {
    REAL(ssize_t, read, int, void *, size_t);
    return judge_fd("read", fd) ? -1 : real(fd, to, size);
}

#define PREADV(name) \
    ssize_t name(int fd, const struct iovec *to, int count, off_t offset) { \
        REAL(ssize_t, name, int, const struct iovec *, int, off_t); \
        return judge_fd("preadv", fd) ? -1 : real(fd, to, count, offset); \
    }
PREADV(preadv)
PREADV(preadv64)

#define PREADV2(name) \
    ssize_t name(int fd, const struct iovec *to, int count, off_t offset, int flags) { \
        REAL(ssize_t, name, int, const struct iovec *, int, off_t, int); \
        return judge_fd("preadv", fd) ? -1 : real(fd, to, count, offset, flags); \
    }
PREADV2(preadv2)
PREADV2(preadv64v2)

#define READDIR(type, name) \
    type *name(DIR *directory) { \
        REAL(type *, name, DIR *); \
        if (judge_fd("list", dirfd(directory))) return NULL; \
        type *entry = real(directory); \
        if (entry || !judge_fd("again", dirfd(directory))) return entry; \
        rewinddir(directory); \
        return real(directory); \
    }
READDIR(struct dirent, readdir)
READDIR(struct dirent64, readdir64)

#define SYNC(name) \
    int name(int fd) { \
        REAL(int, name, int); \
        return judge_fd("sync", fd) ? -1 : real(fd); \
    }
SYNC(fsync)
SYNC(fdatasync)
