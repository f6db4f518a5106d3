/* Operations on files that are a few system calls. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "limits.h"
#include "ops.h"

int check_path(const char *path) {
  if (!*path) return ENOENT;
  return strlen(path) >= PATH_SIZE_MAX ? ENAMETOOLONG : 0;
}

/* The sentence for a path: long ones are cut. */
static enum op_state fail(struct op_context *context, OpResult *result, int error, const char *what, const char *path) {
  return op_fail(context, result, error, "%s %.300s%s", what, path, strlen(path) > 300 ? "…" : "");
}

int make_directories(const char *path, mode_t mode) {
  char copy[PATH_SIZE_MAX];
  struct stat status;
  int error = check_path(path);
  if (error) return -error;
  strcpy(copy, path);
  for (char *at = copy + 1;; at++) {
    char end = *at;
    if (end && end != '/') continue;
    *at = 0;
    if (mkdir(copy, end ? 0755 : mode) && errno != EEXIST) {
      error = errno;
      /* A read-only or foreign parent that exists is no obstacle. */
      if (!end || stat(copy, &status) || !S_ISDIR(status.st_mode)) return -error;
    }
    if (!end) break;
    *at = end;
  }
  if (stat(copy, &status)) return -errno;
  return S_ISDIR(status.st_mode) ? 0 : -ENOTDIR;
}

enum op_state op_mkdir(struct op_context *context, const Mkdir *op, OpResult *result) {
  const char *path = msg_string(op->path);
  mode_t mode = op->mode & 07777;
  int error = check_path(path);
  struct stat before;
  bool existed = !error && op->parents && !stat(path, &before);
  if (!error && op->parents) error = make_directories(path, mode);
  else if (!error && mkdir(path, mode)) error = errno;
  /* mkdir() leaves out set-id and sticky bits, and the umask's. */
  if (!error && !existed && (mode & 07022) && chmod(path, mode)) error = errno;
  return error ? fail(context, result, error, "mkdir", path) : OP_DONE;
}

enum op_state op_rename(struct op_context *context, const Rename *op, OpResult *result) {
  const char *from = msg_string(op->from), *to = msg_string(op->to);
  if (!rename(from, to)) return OP_DONE;
  return op_fail(context, result, errno, "rename %.300s to %.300s", from, to);
}

enum op_state op_remove(struct op_context *context, const Remove *op, OpResult *result) {
  const char *path = msg_string(op->path);
  if (!unlink(path)) return OP_DONE;
  int error = errno;
  if (error == EISDIR || error == EPERM) {
    if (!rmdir(path)) return OP_DONE;
    if (errno != ENOTDIR) error = errno;
  }
  if (op->missing_ok && error == ENOENT) return OP_DONE;
  return fail(context, result, error, "remove", path);
}

enum op_state op_chmod(struct op_context *context, const Chmod *op, OpResult *result) {
  const char *path = msg_string(op->path);
  return chmod(path, op->mode & 07777) ? fail(context, result, errno, "chmod", path) : OP_DONE;
}

enum op_state op_chown(struct op_context *context, const Chown *op, OpResult *result) {
  const char *path = msg_string(op->path);
  int flags = op->no_follow ? AT_SYMLINK_NOFOLLOW : 0;
  return fchownat(AT_FDCWD, path, op->uid, op->gid, flags) ? fail(context, result, errno, "chown", path) : OP_DONE;
}

enum op_state op_symlink(struct op_context *context, const Symlink *op, OpResult *result) {
  const char *path = msg_string(op->path);
  return symlink(msg_string(op->target), path) ? fail(context, result, errno, "symlink", path) : OP_DONE;
}

enum op_state op_mknod(struct op_context *context, const Mknod *op, OpResult *result) {
  const char *path = msg_string(op->path);
  if (mknod(path, op->mode, makedev(op->major, op->minor)) || chmod(path, op->mode & 07777))
    return fail(context, result, errno, "mknod", path);
  return OP_DONE;
}

enum op_state op_set_xattr(struct op_context *context, const SetXattr *op, OpResult *result) {
  const char *path = msg_string(op->path), *name = msg_string(op->name);
  int failed = op->remove ? lremovexattr(path, name) : lsetxattr(path, name, op->value.data, op->value.size, 0);
  return failed ? op_fail(context, result, errno, "xattr %.255s of %.300s", name, path) : OP_DONE;
}

enum op_state op_get_xattr(struct op_context *context, const GetXattr *op, OpResult *result) {
  const char *path = msg_string(op->path), *name = msg_string(op->name);
  uint8_t *value = arena_take(context->arena, XATTR_VALUE_MAX);
  ssize_t size = value ? lgetxattr(path, name, value, XATTR_VALUE_MAX) : (errno = EMSGSIZE, -1);
  if (size < 0) return op_fail(context, result, errno, "xattr %.255s of %.300s", name, path);
  result->which_result = OpResult_data_tag;
  result->result.data = (DataResult){.data = {value, (size_t)size}, .eof = true};
  return OP_DONE;
}

/* open(), below `root` when there is one: no link and no ".." of a hostile tree leads out of it. */
static int open_below(const char *root, const char *path, int flags) {
  if (!msg_is_set(root)) return open(path, flags);
  int directory = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return -1;
  struct open_how how = {.flags = (uint64_t)flags, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
  int fd = (int)syscall(SYS_openat2, directory, path, &how, sizeof how);
  int error = errno;
  close(directory);
  errno = error;
  return fd;
}

enum op_state op_stat(struct op_context *context, const Stat *op, OpResult *result) {
  const char *path = msg_string(op->path);
  struct stat status;
  int fd = open_below(op->root, path, O_PATH | O_CLOEXEC | (op->follow ? 0 : O_NOFOLLOW));
  if (fd < 0) return fail(context, result, errno, "stat", path);
  if (fstat(fd, &status)) {
    int error = errno;
    close(fd);
    return fail(context, result, error, "stat", path);
  }
  result->which_result = OpResult_stat_tag;
  StatResult *out = &result->result.stat;
  *out = (StatResult){.mode = status.st_mode,
                      .uid = status.st_uid,
                      .gid = status.st_gid,
                      .size = (uint64_t)status.st_size,
                      .mtime_ns = (int64_t)status.st_mtim.tv_sec * 1000000000 + status.st_mtim.tv_nsec,
                      .ino = status.st_ino,
                      .nlink = (uint32_t)status.st_nlink,
                      .rdev_major = major(status.st_rdev),
                      .rdev_minor = minor(status.st_rdev)};
  if (S_ISLNK(status.st_mode)) {
    char *target = arena_take(context->arena, PATH_SIZE_MAX);
    ssize_t size = target ? readlinkat(fd, "", target, PATH_SIZE_MAX - 1) : (errno = EMSGSIZE, -1);
    if (size < 0) {
      int error = errno;
      close(fd);
      *result = (OpResult){0};
      return fail(context, result, error, "readlink", path);
    }
    target[size] = 0;
    utf8_sanitize(target);
    out->link_target = target;
  }
  close(fd);
  return OP_DONE;
}

enum op_state op_list(struct op_context *context, const List *op, OpResult *result) {
  const char *path = msg_string(op->path);
  int fd = open_below(op->root, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK);
  DIR *directory = fd < 0 ? NULL : fdopendir(fd);
  if (!directory) {
    int failure = errno;
    close_fd(&fd);
    return fail(context, result, failure, "list", path);
  }
  struct buf entries = {0};
  uint32_t count = 0;
  int error = 0;
  for (;;) {
    errno = 0;
    struct dirent *entry = readdir(directory);
    if (!entry) {
      error = errno;
      break;
    }
    if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
    if (++count > LIST_MAX || entries.size > BATCH_RESPONSE_MAX) {
      error = E2BIG;
      break;
    }
    utf8_sanitize(entry->d_name);
    ListEntry encoded = {.name = entry->d_name, .type = entry->d_type};
    msg_encode_field(&entries, ListResult_entries_tag, &ListEntry_msg, &encoded);
  }
  closedir(directory);
  uint8_t *copy = error ? NULL : arena_take(context->arena, entries.size + 1);
  if (!error && !copy) error = E2BIG;
  if (copy && entries.size) memcpy(copy, entries.data, entries.size);
  result->which_result = OpResult_list_tag;
  result->result.list.entries = (struct msg_raw){copy, entries.size};
  buf_free(&entries);
  if (!error) return OP_DONE;
  *result = (OpResult){0};
  return fail(context, result, error, "list", path);
}

enum op_state op_read(struct op_context *context, const Read *op, OpResult *result) {
  const char *path = msg_string(op->path);
  size_t limit = op->limit ? op->limit : READ_MAX, size = 0;
  struct stat status;
  if (limit > READ_MAX) return fail(context, result, EINVAL, "read of more than 1 MiB of", path);
  /* Non-blocking: a FIFO, which nobody may ever open, is not a file to read. */
  int fd = open_below(op->root, path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  if (fd < 0) return fail(context, result, errno, "open", path);
  bool sized = !fstat(fd, &status) && S_ISREG(status.st_mode) && (uint64_t)status.st_size > op->offset;
  /* Files of /proc and /sys say 0 or a page: those get the whole limit. */
  size_t capacity = sized && status.st_blocks ? MIN(limit, (size_t)status.st_size - op->offset + 1) : limit;
  uint8_t *data = arena_take(context->arena, capacity + 1);
  bool eof = false;
  int error = data ? 0 : EMSGSIZE;
  while (!error && !eof && size < capacity) {
    ssize_t count = pread(fd, data + size, capacity - size, (off_t)(op->offset + size));
    if (count < 0 && errno == ESPIPE) count = read(fd, data + size, capacity - size);
    if (count > 0) size += (size_t)count;
    else if (count == 0) eof = true;
    else if (errno != EINTR) error = errno;
  }
  close(fd);
  if (error) return fail(context, result, error, "read", path);
  result->which_result = OpResult_data_tag;
  result->result.data = (DataResult){.data = {data, size}, .eof = eof};
  return OP_DONE;
}

static int write_at(int fd, const Write *op) {
  const uint8_t *data = op->data.data;
  for (size_t done = 0; done < op->data.size;) {
    ssize_t count = op->has_offset ? pwrite(fd, data + done, op->data.size - done, (off_t)(op->offset + done))
                                   : write(fd, data + done, op->data.size - done);
    if (count >= 0) done += (size_t)count;
    else if (errno != EINTR) return errno;
  }
  return op->sync && fsync(fd) ? errno : 0;
}

enum op_state op_write(struct op_context *context, const Write *op, OpResult *result) {
  const char *path = msg_string(op->path);
  mode_t mode = op->mode ? op->mode & 07777 : 0644;
  if (op->data.size > WRITE_MAX) return fail(context, result, EMSGSIZE, "write of more than 1 MiB to", path);
  if (op->append && op->has_offset) return fail(context, result, EINVAL, "write with append and an offset to", path);
  int flags = O_WRONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | (op->append ? O_APPEND : 0) | (op->truncate ? O_TRUNC : 0);
  bool made = false;
  int fd = -1;
  if (op->create) { /* whether we made it: then its mode is what was asked for */
    fd = open(path, flags | O_CREAT | O_EXCL, mode);
    made = fd >= 0;
  }
  if (fd < 0 && (!op->create || errno == EEXIST)) fd = open(path, flags | (op->create ? O_CREAT : 0), mode);
  if (fd < 0) return fail(context, result, errno, "open", path);
  int error = made && fchmod(fd, mode) ? errno : 0;
  if (!error) error = write_at(fd, op);
  if (close(fd) && !error) error = errno;
  return error ? fail(context, result, error, "write", path) : OP_DONE;
}
