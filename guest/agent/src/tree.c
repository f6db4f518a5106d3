/*
 * Removes a tree, in a job. It walks with descriptors, so a rename under way cannot lead it outside,
 * follows no symbolic link, and stops at mount points: a directory on another file system, or the
 * root of a bind mount, fails with EBUSY when it is to be removed. What is nested deeper than
 * REMOVE_DEPTH_MAX is moved up to the top first, so a hostile tree costs neither stack nor descriptors.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "limits.h"
#include "ops.h"
#include "tar.h"

/* The mount the descriptor is on, which st_dev does not tell for bind mounts. */
static int mount_id(int fd, uint64_t *id) {
  struct statx status;
  if (statx(fd, "", AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, STATX_MNT_ID, &status)) return errno;
  *id = status.stx_mnt_id;
  return 0;
}

struct walk {
  uint64_t mount;
  int top; /* the directory that is removed, once it is open */
  unsigned moved;
};

static int remove_at(struct walk *walk, int parent, const char *name, unsigned depth);

static int empty_directory(struct walk *walk, int fd, unsigned depth) {
  DIR *directory = fdopendir(fd);
  int error = 0;
  if (!directory) {
    error = errno;
    close(fd);
    return error;
  }
  unsigned moved;
  do { /* again when something was moved here meanwhile */
    moved = walk->moved;
    rewinddir(directory);
    for (;;) {
      errno = 0;
      struct dirent *entry = readdir(directory);
      if (!entry) {
        error = errno;
        break;
      }
      if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
      error = remove_at(walk, dirfd(directory), entry->d_name, depth + 1);
      if (error) break;
    }
  } while (!error && !depth && walk->moved != moved);
  closedir(directory);
  return error;
}

static int move_up(struct walk *walk, int parent, const char *name) {
  char temporary[64];
  for (;;) {
    snprintf(temporary, sizeof temporary, ".removing-%u", walk->moved++);
    if (!renameat2(parent, name, walk->top, temporary, RENAME_NOREPLACE)) return 0;
    if (errno != EEXIST) return errno;
  }
}

static int remove_at(struct walk *walk, int parent, const char *name, unsigned depth) {
  if (!unlinkat(parent, name, 0) || errno == ENOENT) return 0;
  if (errno != EISDIR && errno != EPERM) return errno;
  if (!unlinkat(parent, name, AT_REMOVEDIR)) return 0;
  if (errno != ENOTEMPTY && errno != EEXIST) return errno == ENOTDIR ? EPERM : errno;
  if (depth > REMOVE_DEPTH_MAX) return move_up(walk, parent, name);
  int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return errno;
  uint64_t id;
  int error = mount_id(fd, &id);
  if (!error && id != walk->mount) error = EBUSY;
  if (error) {
    close(fd);
    return error;
  }
  if (!depth) walk->top = fd; /* open until empty_directory() returns */
  error = empty_directory(walk, fd, depth);
  if (error) return error;
  return unlinkat(parent, name, AT_REMOVEDIR) && errno != ENOENT ? errno : 0;
}

int remove_any(const char *path) {
  char copy[PATH_SIZE_MAX];
  struct walk walk = {.top = -1};
  strcpy(copy, path);
  size_t size = strlen(copy);
  while (size > 1 && copy[size - 1] == '/') copy[--size] = 0;
  char *slash = strrchr(copy, '/');
  const char *name = slash ? slash + 1 : copy, *parent = !slash ? "." : slash == copy ? "/" : copy;
  char *end = slash && slash != copy ? slash : NULL;
  if (end) *end = 0;
  int fd = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return errno;
  int error = mount_id(fd, &walk.mount);
  if (!error) error = *name && strcmp(name, ".") && strcmp(name, "..") ? remove_at(&walk, fd, name, 0) : EINVAL;
  close(fd);
  return error;
}

void remove_tree(struct op_context *context, const Op *op, OpResult *result) {
  const char *path = msg_string(op->op.remove.path);
  int error = check_path(path);
  struct stat status;
  if (!error && lstat(path, &status)) error = errno; /* the walk takes what is gone for removed */
  if (!error) error = remove_any(path);
  if (error == ENOENT && op->op.remove.missing_ok) return;
  if (error) op_fail(context, result, error, "remove %.300s and what is in it", path);
}
