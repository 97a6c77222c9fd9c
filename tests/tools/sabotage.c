/* Kills a process, fails its storage or sets its clock at a chosen step of its output (Linux, 64 bits).

   A step is one system call that changes a file or pipe in the watched directory, or closes one that can be written.
   It is seen whoever makes it: loaded by LD_PRELOAD, these functions stand before those of the C library. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { KILL_BEFORE, KILL_AMID, KILL_AFTER, FAIL_FOR_GOOD, FAIL_ONCE, SET_CLOCK };

static char watched[PATH_MAX];
static int before_it, what, failure, report_to;
static time_t ahead;

/* Disturb the step with number `at`; its name and file are written to `report`. `error` is what failing steps return,
   `seconds` are by how much the clock is wrong until then. */
void sabotage(const char *directory, int at, int how, int error, int report, long seconds)
{
    snprintf(watched, sizeof watched, "%s/", directory);
    before_it = at, what = how, failure = error, report_to = report, ahead = seconds;
}

static int is_path(const char *path)
{
    return *watched && (*path != '/' || !strncmp(path, watched, strlen(watched)) ||
                        (!strncmp(path, watched, strlen(watched) - 1) && !path[strlen(watched) - 1]));
}

/* Whether a descriptor leads into the directory; for `close`, only one that can be written counts. */
static int is_file(int file, char *path, int written)
{
    char link[64];
    if (!*watched || file == STDERR_FILENO || file == report_to || (written && !(fcntl(file, F_GETFL) & O_ACCMODE)))
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = 0;
    return length > 0 && *path == '/' && is_path(path);
}

static void die(void) { syscall(SYS_kill, getpid(), SIGKILL); }

/* Count a step; whether it is the chosen one (1), one after it (2), or one before (0). */
static int count(const char *name, const char *path)
{
    if (--before_it)
        return before_it < 0 ? 2 : 0;
    dprintf(report_to, "%s %s\n", name, strrchr(path, '/') ? strrchr(path, '/') + 1 : path);
    ahead = 0;
    if (what == KILL_BEFORE)
        die();
    return 1;
}

static int fails(int step) { return (step && what == FAIL_FOR_GOOD) || (step == 1 && what == FAIL_ONCE); }

static long end(int step, long result)
{
    if (step == 1 && what <= KILL_AFTER)
        die();
    if (!fails(step))
        return result;
    errno = failure;
    return -1;
}

#define STEP(type, name, parameters, ours, path, call) \
    type name parameters \
    { \
        char at[PATH_MAX]; \
        (void)at; \
        int step = (ours) ? count(#name, path) : 0; \
        return end(step, fails(step) ? -1 : (call)); \
    }

STEP(int, fsync, (int file), is_file(file, at, 0), at, syscall(SYS_fsync, file))
STEP(int, ftruncate64, (int file, off64_t size), is_file(file, at, 0), at, syscall(SYS_ftruncate, file, size))
STEP(off64_t, lseek64, (int file, off64_t to, int from), is_file(file, at, 1), at, syscall(SYS_lseek, file, to, from))
STEP(int, unlink, (const char *path), is_path(path), path, syscall(SYS_unlinkat, AT_FDCWD, path, 0))
STEP(int, rename, (const char *from, const char *to), is_path(to), to,
     syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0))

/* Closes the file even where it fails, as the system does. */
int close(int file)
{
    char path[PATH_MAX];
    int step = is_file(file, path, 1) ? count("close", path) : 0;
    return end(step, syscall(SYS_close, file));
}

/* A disk that is full, or a kill amid a step, leaves a part of the data. */
ssize_t write(int file, const void *data, size_t size)
{
    char path[PATH_MAX];
    int step = is_file(file, path, 0) ? count("write", path) : 0;
    if (step == 1 && size && (what == KILL_AMID || what == FAIL_FOR_GOOD)) {
        long written = syscall(SYS_write, file, data, 1 + size / 3);
        return what == KILL_AMID ? end(step, written) : written;
    }
    return end(step, fails(step) ? -1 : syscall(SYS_write, file, data, size));
}

int open64(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    int mode = flags & O_CREAT ? va_arg(rest, int) : 0;
    va_end(rest);
    int step = flags & (O_ACCMODE | O_CREAT) && is_path(path) ? count("open", path) : 0;
    return end(step, fails(step) ? -1 : syscall(SYS_openat, AT_FDCWD, path, flags, mode));
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = syscall(SYS_clock_gettime, clock, now);
    if (clock == CLOCK_REALTIME)
        now->tv_sec += ahead;
    return result;
}
