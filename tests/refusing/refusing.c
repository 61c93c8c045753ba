/* A disk in trouble, for LD_PRELOAD: while the file $REFUSE_FLAG holds the number of an error, whatever would make or
 * change a file below $REFUSE_BELOW fails with it. Reading, and stores into what is mapped already, go on. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int error_now(void) {
    const char *flag = getenv("REFUSE_FLAG");
    char text[16] = "";
    int fd = flag ? (int)syscall(SYS_openat, AT_FDCWD, flag, O_RDONLY | O_CLOEXEC, 0) : -1;
    if (fd < 0) return 0;
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    return length > 0 ? atoi(text) : 0;
}

static int is_below(const char *path) {
    const char *below = getenv("REFUSE_BELOW");
    return below && strncmp(path, below, strlen(below)) == 0;
}

static int refused_fd(int fd) {
    char link[64], path[PATH_MAX] = "";
    int error = error_now();
    if (!error) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    return length > 0 && is_below(path) ? error : 0;
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

static int refused_open(int directory, const char *path, int flags) {
    if (!(flags & O_CREAT)) return 0;
    if (path[0] == '/') return is_below(path) ? error_now() : 0;
    return directory == AT_FDCWD ? 0 : refused_fd(directory);
}

#define OPENAT(name) \
    int name(int directory, const char *path, int flags, ...) { \
        REAL(name); \
        va_list rest; va_start(rest, flags); int mode = (flags & O_CREAT) ? va_arg(rest, int) : 0; va_end(rest); \
        int error = refused_open(directory, path, flags); \
        if (error) { errno = error; return -1; } \
        return real(directory, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int fd, const void *data, size_t size) {
    REAL(write);
    int error = refused_fd(fd);
    if (error) { errno = error; return -1; }
    return real(fd, data, size);
}

#define PWRITE(name, offset_type) \
    ssize_t name(int fd, const void *data, size_t size, offset_type offset) { \
        REAL(name); \
        int error = refused_fd(fd); \
        if (error) { errno = error; return -1; } \
        return real(fd, data, size, offset); \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define FALLOCATE(name, offset_type) \
    int name(int fd, offset_type offset, offset_type size) { \
        REAL(name); \
        int error = refused_fd(fd); \
        return error ? error : real(fd, offset, size); \
    }
FALLOCATE(posix_fallocate, off_t)
FALLOCATE(posix_fallocate64, off64_t)
