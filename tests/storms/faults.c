/* Makes single calls on single files fail, in every process that is started with this preloaded.

   faults.py compiles it and is its other side: a table in a file that both have mapped, so that the
   causes come and go while the service runs. A rule names calls, a file by a part of its name (MARK),
   and where it lies by a part of its path (BELOW). The mark follows the file: what a marked file is
   renamed to is marked as well (an alias), and an open file has the path that the kernel tells.

   Beside that it moves the clock on the wall, the free bytes of every disk, and takes away
   renameat2's flags, as file systems without them do. */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define PUBLIC __attribute__((visibility("default")))
#define SLOTS 64
#define ALIASES 256
#define TEXT 64
#define PATH 8192
#define BLOCK 4096

enum { OPEN, READ_START, READ_MIDDLE, STAT, LIST, RENAME, LINK, UNLINK, FSYNC, CHOWN, UTIMENS,
       SETLEASE, COPY, DECODE };

struct slot {            /* faults.py packs it: keep both alike */
  _Atomic uint32_t on;
  uint32_t calls;        /* bits, by the numbers above */
  int32_t error;         /* 0 is a hang, once */
  uint32_t percent;      /* of the calls */
  _Atomic uint64_t hits;
  char mark[TEXT], below[TEXT];
};

struct alias {
  uint32_t slot;         /* its number and 1; 0 is none */
  char name[TEXT];
};

struct table {
  _Atomic int64_t clock_ns;     /* added to the clock on the wall */
  _Atomic uint64_t free_bytes;  /* of every disk; 0 is what there is */
  _Atomic uint32_t no_flags;    /* renameat2 answers EINVAL */
  _Atomic uint32_t hang_ms;
  _Atomic uint32_t renames;
  uint32_t padding;
  struct slot slots[SLOTS];
  struct alias aliases[ALIASES];  /* the latest, in a ring */
};

static struct table *table;
static int is_decoder;
static __thread unsigned int chance;

#define REAL(name) \
  static __typeof__(name) *real_##name; \
  if (!real_##name) real_##name = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("XRAY_FAULTS");
  char words[1024];
  if (!path) return;
  int fd = open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) return;
  void *mapped = mmap(NULL, sizeof *table, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if ((fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC)) >= 0) {
    ssize_t got = read(fd, words, sizeof words - 1);
    close(fd);
    for (ssize_t i = 0; i < got; i++) if (!words[i]) words[i] = ' ';
    words[got < 0 ? 0 : got] = 0;
    is_decoder = strstr(words, "decode_worker") != NULL;
  }
  if (mapped != MAP_FAILED) table = mapped;
}

static int wanted(uint32_t calls) {
  if (!table) return 0;
  for (int i = 0; i < SLOTS; i++)
    if (atomic_load(&table->slots[i].on) && (table->slots[i].calls & calls)) return 1;
  return 0;
}

static const char *of_fd(int fd, char *path) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t got = readlink(link, path, PATH - 1);
  path[got < 0 ? 0 : got] = 0;
  return path;
}

static const char *of_at(int folder, const char *name, char *path) {
  if (!name) return "";
  if (name[0] == '/' || folder == AT_FDCWD) {
    snprintf(path, PATH, "%s", name);
    return path;
  }
  of_fd(folder, path);
  size_t length = strlen(path);
  if (*name) snprintf(path + length, PATH - length, "/%s", name);
  return path;
}

static const char *last(const char *path) {
  const char *found = strrchr(path, '/');
  return found ? found + 1 : path;
}

static int is_marked(const struct slot *slot, const char *path) {
  const char *name = last(path);
  uint32_t number = slot - table->slots + 1;
  if (strstr(name, slot->mark)) return 1;
  for (int i = 0; i < ALIASES; i++)
    if (table->aliases[i].slot == number && strstr(name, table->aliases[i].name)) return 1;
  return 0;
}

static int is_met(const struct slot *slot, uint32_t calls, const char *path) {
  if (!atomic_load(&slot->on) || !(slot->calls & calls)) return 0;
  if ((slot->calls & (1 << DECODE)) && !is_decoder) return 0;
  return is_marked(slot, path) && (!slot->below[0] || strstr(path, slot->below));
}

static void hang(struct slot *slot) {
  struct timespec now, until, nap = {0, 250 * 1000 * 1000};
  REAL(clock_gettime);
  real_clock_gettime(CLOCK_MONOTONIC, &until);
  uint64_t end = until.tv_sec * 1000ull + until.tv_nsec / 1000000 + atomic_load(&table->hang_ms);
  do {
    nanosleep(&nap, NULL);
    real_clock_gettime(CLOCK_MONOTONIC, &now);
  } while (atomic_load(&slot->on) && now.tv_sec * 1000ull + now.tv_nsec / 1000000 < end);
  atomic_store(&slot->on, 0);
}

/* Whether a call on a path fails now; errno is set then. */
static int fails(uint32_t calls, const char *path) {
  for (int i = 0; i < SLOTS; i++) {
    struct slot *slot = &table->slots[i];
    if (!is_met(slot, calls, path)) continue;
    if (slot->percent < 100) {
      if (!chance) chance = (unsigned)getpid() ^ (unsigned)(uintptr_t)&chance ^ (unsigned)clock();
      if ((uint32_t)rand_r(&chance) % 100 >= slot->percent) continue;
    }
    atomic_fetch_add(&slot->hits, 1);
    if (!slot->error) {
      hang(slot);
      continue;
    }
    errno = slot->error;
    return 1;
  }
  return 0;
}

static int fails_at(uint32_t calls, int folder, const char *name) {
  char path[PATH];
  return wanted(calls) && fails(calls, of_at(folder, name, path));
}

static int fails_fd(uint32_t calls, int fd) {
  char path[PATH];
  return wanted(calls) && fails(calls, of_fd(fd, path));
}

static void follow(int folder, const char *from, const char *to) {
  char path[PATH];
  if (!table) return;
  of_at(folder, from, path);
  for (int i = 0; i < SLOTS; i++) {
    struct slot *slot = &table->slots[i];
    if (!slot->mark[0] || !is_marked(slot, path) || strstr(last(to), slot->mark)) continue;
    struct alias *alias = &table->aliases[atomic_fetch_add(&table->renames, 1) % ALIASES];
    alias->slot = 0;
    snprintf(alias->name, TEXT, "%s", last(to));
    alias->slot = i + 1;
  }
}

#define BIT(call) (1u << (call))

/* ---- open ---- */

#define OPENS(name) \
  PUBLIC int name(const char *path, int flags, ...) { \
    REAL(name); \
    va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
    if (fails_at(BIT(OPEN), AT_FDCWD, path)) return -1; \
    return real_##name(path, flags, mode); \
  }
OPENS(open)
OPENS(open64)

#define OPENS_AT(name) \
  PUBLIC int name(int folder, const char *path, int flags, ...) { \
    REAL(name); \
    va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
    if (fails_at(BIT(OPEN), folder, path)) return -1; \
    return real_##name(folder, path, flags, mode); \
  }
OPENS_AT(openat)
OPENS_AT(openat64)

/* ---- read: a bad block makes a read end before it, and fail at it ---- */

static ssize_t readable(int fd, size_t count, off64_t at) {
  char path[PATH];
  struct stat64 status;
  if (!wanted(BIT(READ_START) | BIT(READ_MIDDLE) | BIT(DECODE))) return count;
  of_fd(fd, path);
  if (at < 0 && (at = lseek64(fd, 0, SEEK_CUR)) < 0) return count;
  if (at < BLOCK && fails(BIT(READ_START) | BIT(DECODE), path)) return -1;
  if (!wanted(BIT(READ_MIDDLE)) || fstat64(fd, &status)) return count;
  off64_t bad = status.st_size / 2;
  if (at + (off64_t)count <= bad || at >= bad + BLOCK) return count;
  if (at >= bad) return fails(BIT(READ_MIDDLE), path) ? -1 : (ssize_t)count;
  for (int i = 0; i < SLOTS; i++)
    if (is_met(&table->slots[i], BIT(READ_MIDDLE), path)) return bad - at;
  return count;
}

PUBLIC ssize_t read(int fd, void *to, size_t count) {
  REAL(read);
  ssize_t most = readable(fd, count, -1);
  return most < 0 ? -1 : real_read(fd, to, most);
}

#define PREADS(name, offset) \
  PUBLIC ssize_t name(int fd, void *to, size_t count, offset at) { \
    REAL(name); \
    ssize_t most = readable(fd, count, at); \
    return most < 0 ? -1 : real_##name(fd, to, most, at); \
  }
PREADS(pread, off_t)
PREADS(pread64, off64_t)

PUBLIC ssize_t readv(int fd, const struct iovec *to, int count) {
  REAL(readv);
  size_t all = 0;
  for (int i = 0; i < count; i++) all += to[i].iov_len;
  ssize_t most = readable(fd, all, -1);
  if (most < 0) return -1;
  struct iovec first = {to[0].iov_base, (size_t)most < to[0].iov_len ? (size_t)most : to[0].iov_len};
  return (size_t)most < all ? real_readv(fd, &first, 1) : real_readv(fd, to, count);
}

/* ---- stat, listing ---- */

#define STATS(name, kind) \
  PUBLIC int name(const char *path, struct kind *status) { \
    REAL(name); \
    return fails_at(BIT(STAT), AT_FDCWD, path) ? -1 : real_##name(path, status); \
  }
STATS(stat, stat)
STATS(stat64, stat64)
STATS(lstat, stat)
STATS(lstat64, stat64)

#define STATS_AT(name, kind) \
  PUBLIC int name(int folder, const char *path, struct kind *status, int flags) { \
    REAL(name); \
    return fails_at(BIT(STAT), folder, path) ? -1 : real_##name(folder, path, status, flags); \
  }
STATS_AT(fstatat, stat)
STATS_AT(fstatat64, stat64)

PUBLIC DIR *opendir(const char *path) {
  REAL(opendir);
  return fails_at(BIT(LIST), AT_FDCWD, path) ? NULL : real_opendir(path);
}

PUBLIC DIR *fdopendir(int fd) {
  REAL(fdopendir);
  return fails_fd(BIT(LIST), fd) ? NULL : real_fdopendir(fd);
}

/* ---- rename, link, unlink ---- */

PUBLIC int renameat2(int from_in, const char *from, int to_in, const char *to, unsigned int flags) {
  REAL(renameat2);
  if (fails_at(BIT(RENAME), from_in, from)) return -1;
  if (flags && table && atomic_load(&table->no_flags)) { errno = EINVAL; return -1; }
  int result = real_renameat2(from_in, from, to_in, to, flags);
  if (!result) follow(from_in, from, to);
  return result;
}

PUBLIC int renameat(int from_in, const char *from, int to_in, const char *to) {
  REAL(renameat);
  if (fails_at(BIT(RENAME), from_in, from)) return -1;
  int result = real_renameat(from_in, from, to_in, to);
  if (!result) follow(from_in, from, to);
  return result;
}

PUBLIC int rename(const char *from, const char *to) { return renameat(AT_FDCWD, from, AT_FDCWD, to); }

PUBLIC int linkat(int from_in, const char *from, int to_in, const char *to, int flags) {
  REAL(linkat);
  if (fails_at(BIT(LINK), from_in, from)) return -1;
  int result = real_linkat(from_in, from, to_in, to, flags);
  if (!result) follow(from_in, from, to);
  return result;
}

PUBLIC int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

PUBLIC int unlink(const char *path) {
  REAL(unlink);
  return fails_at(BIT(UNLINK), AT_FDCWD, path) ? -1 : real_unlink(path);
}

PUBLIC int unlinkat(int folder, const char *path, int flags) {
  REAL(unlinkat);
  return fails_at(BIT(UNLINK), folder, path) ? -1 : real_unlinkat(folder, path, flags);
}

/* ---- what is done to an open file ---- */

PUBLIC int fsync(int fd) {
  REAL(fsync);
  return fails_fd(BIT(FSYNC), fd) ? -1 : real_fsync(fd);
}

PUBLIC int fdatasync(int fd) {
  REAL(fdatasync);
  return fails_fd(BIT(FSYNC), fd) ? -1 : real_fdatasync(fd);
}

PUBLIC int fchown(int fd, uid_t user, gid_t group) {
  REAL(fchown);
  return fails_fd(BIT(CHOWN), fd) ? -1 : real_fchown(fd, user, group);
}

PUBLIC int futimens(int fd, const struct timespec times[2]) {
  REAL(futimens);
  return fails_fd(BIT(UTIMENS), fd) ? -1 : real_futimens(fd, times);
}

PUBLIC int utimensat(int folder, const char *path, const struct timespec times[2], int flags) {
  REAL(utimensat);
  if (path ? fails_at(BIT(UTIMENS), folder, path) : fails_fd(BIT(UTIMENS), folder)) return -1;
  return real_utimensat(folder, path, times, flags);
}

#define FCNTLS(name) \
  PUBLIC int name(int fd, int command, ...) { \
    REAL(name); \
    va_list rest; va_start(rest, command); void *argument = va_arg(rest, void *); va_end(rest); \
    if (command == F_SETLEASE && fails_fd(BIT(SETLEASE), fd)) return -1; \
    return real_##name(fd, command, argument); \
  }
FCNTLS(fcntl)
FCNTLS(fcntl64)

/* ---- copy: writing what was read ---- */

PUBLIC ssize_t write(int fd, const void *from, size_t count) {
  REAL(write);
  return fails_fd(BIT(COPY), fd) ? -1 : real_write(fd, from, count);
}

#define PWRITES(name, offset) \
  PUBLIC ssize_t name(int fd, const void *from, size_t count, offset at) { \
    REAL(name); \
    return fails_fd(BIT(COPY), fd) ? -1 : real_##name(fd, from, count, at); \
  }
PWRITES(pwrite, off_t)
PWRITES(pwrite64, off64_t)

#define SENDS(name, offset) \
  PUBLIC ssize_t name(int to, int from, offset *at, size_t count) { \
    REAL(name); \
    return fails_fd(BIT(COPY), to) ? -1 : real_##name(to, from, at, count); \
  }
SENDS(sendfile, off_t)
SENDS(sendfile64, off64_t)

PUBLIC ssize_t copy_file_range(int from, off64_t *from_at, int to, off64_t *to_at, size_t count,
                               unsigned int flags) {
  REAL(copy_file_range);
  if (fails_fd(BIT(COPY), to)) return -1;
  return real_copy_file_range(from, from_at, to, to_at, count, flags);
}

/* ---- disks and clocks ---- */

#define ROOM(name, first, kind) \
  PUBLIC int name(first, struct kind *status) { \
    REAL(name); \
    int result = real_##name(at, status); \
    uint64_t bytes = table ? atomic_load(&table->free_bytes) : 0; \
    if (!result && bytes) status->f_bavail = status->f_bfree = bytes / status->f_frsize; \
    return result; \
  }
ROOM(statvfs, const char *at, statvfs)
ROOM(statvfs64, const char *at, statvfs64)
ROOM(fstatvfs, int at, statvfs)
ROOM(fstatvfs64, int at, statvfs64)

PUBLIC int clock_gettime(clockid_t clock, struct timespec *now) {
  REAL(clock_gettime);
  int result = real_clock_gettime(clock, now);
  int64_t ahead = table ? atomic_load(&table->clock_ns) : 0;
  if (!result && ahead && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    int64_t all = now->tv_sec * 1000000000ll + now->tv_nsec + ahead;
    now->tv_sec = all / 1000000000ll;
    now->tv_nsec = all % 1000000000ll;
  }
  return result;
}

PUBLIC int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  struct timespec time;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &time);
  now->tv_sec = time.tv_sec;
  now->tv_usec = time.tv_nsec / 1000;
  return 0;
}

PUBLIC time_t time(time_t *to) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (to) *to = now.tv_sec;
  return now.tv_sec;
}
