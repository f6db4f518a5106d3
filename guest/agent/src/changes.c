/*
 * What an overlay's upper directory changes in the file systems below it: each of its entries is
 * something added, something changed, or (a character device 0/0) something deleted.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "tar.h"

/* Links on the way count as something else: upper has a directory there. */
static bool exists_below(int lower_fd, const char *path) {
  struct open_how how = {.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
  int fd = (int)syscall(SYS_openat2, lower_fd, path, &how, sizeof how);
  /* The entry itself may be a link: O_NOFOLLOW with RESOLVE_NO_SYMLINKS refuses that as well. */
  if (fd < 0 && errno == ELOOP) {
    struct stat status;
    char parent[4096];
    const char *slash = strrchr(path, '/');
    if (!slash) return !fstatat(lower_fd, path, &status, AT_SYMLINK_NOFOLLOW);
    if ((size_t)(slash - path) >= sizeof parent) return false;
    memcpy(parent, path, (size_t)(slash - path));
    parent[slash - path] = 0;
    how.flags |= O_DIRECTORY;
    int directory = (int)syscall(SYS_openat2, lower_fd, parent, &how, sizeof how);
    if (directory < 0) return false;
    bool exists = !fstatat(directory, slash + 1, &status, AT_SYMLINK_NOFOLLOW);
    close(directory);
    return exists;
  }
  if (fd >= 0) close(fd);
  return fd >= 0;
}

void list_changes(int lower_fd) {
  char *roots[] = {(char *)".", NULL};
  FTS *walk = fts_open(roots, FTS_PHYSICAL | FTS_XDEV | FTS_NOCHDIR, NULL);
  if (!walk) tar_fail(errno, "walk", strerror(errno));
  FILE *out = fdopen(STDOUT_FILENO, "w");
  if (!out) tar_fail(errno, "open the stream", strerror(errno));
  FTSENT *entry;
  while ((errno = 0, entry = fts_read(walk))) {
    if (entry->fts_info == FTS_DP || entry->fts_level == 0) continue;
    if (entry->fts_info == FTS_DNR || entry->fts_info == FTS_ERR) tar_fail(entry->fts_errno, entry->fts_path, strerror(entry->fts_errno));
    if (entry->fts_info == FTS_NS) continue; /* it vanished meanwhile */
    const char *path = entry->fts_path + 2; /* without "./" */
    const struct stat *status = entry->fts_statp;
    bool deleted = S_ISCHR(status->st_mode) && status->st_rdev == makedev(0, 0);
    char kind = deleted ? 'D' : exists_below(lower_fd, path) ? 'C' : 'A';
    if (fprintf(out, "%c/%s", kind, path) < 0 || putc(0, out) == EOF) tar_fail(errno, "write the stream", strerror(errno));
  }
  if (errno) tar_fail(errno, "walk", strerror(errno));
  fts_close(walk);
  if (fclose(out)) tar_fail(errno, "write the stream", strerror(errno));
}
