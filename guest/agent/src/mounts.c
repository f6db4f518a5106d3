/* Mount and Unmount. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "limits.h"
#include "ops.h"

/* <sys/mount.h> and <linux/mount.h> do not go together everywhere. */
int mount(const char *, const char *, const char *, unsigned long, const void *);
int umount2(const char *, int);
#define MNT_DETACH_FLAG 2
#define UMOUNT_NOFOLLOW_FLAG 8

bool mount_may_block(const Mount *op) {
  /* A journal to replay, or a server to wait for. */
  static const char *const slow[] = {"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "fuse", "virtiofs", "9p", "nfs"};
  const char *type = msg_string(op->type);
  if (op->flags & (MS_REMOUNT | MS_BIND | MS_MOVE | MS_PRIVATE | MS_SLAVE | MS_SHARED | MS_UNBINDABLE)) return false;
  for (size_t i = 0; i < ARRAY_SIZE(slow); i++)
    if (!strncmp(type, slow[i], strlen(slow[i]))) return true;
  return false;
}

bool unmount_may_block(const Unmount *op) {
  /* Memory file systems and read-only images have nothing to write back. */
  static const long quick[] = {0x01021994 /* tmpfs */, 0x73717368 /* squashfs */, 0x9fa0 /* proc */, 0x62656572 /* sysfs */,
                               0x63677270 /* cgroup2 */, 0x1cd1 /* devpts */, 0x19800202 /* mqueue */, 0xe0f5e1e2 /* erofs */};
  struct statfs status;
  if (statfs(msg_string(op->target), &status)) return false;
  for (size_t i = 0; i < ARRAY_SIZE(quick); i++)
    if ((long)status.f_type == quick[i]) return false;
  return true;
}

/* A value ends at 255 bytes; overlayfs takes its layers one by one (since Linux 6.5). */
static int add_layers(int fd, char *layers) {
  char *layer;
  while ((layer = strsep(&layers, ":")))
    if (syscall(SYS_fsconfig, fd, FSCONFIG_SET_STRING, "lowerdir+", layer, 0)) return -1;
  return 0;
}

/* One option of a comma-separated list, "key" or "key=value". */
static int set_option(int fd, char *option) {
  char *value = strchr(option, '=');
  if (value) *value++ = 0;
  if (value && strlen(value) > 255 && !strcmp(option, "lowerdir")) return add_layers(fd, value);
  unsigned command = value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG;
  return (int)syscall(SYS_fsconfig, fd, command, option, value, 0);
}

/* Options that are longer than mount()'s page. */
static int mount_with_fsconfig(const Mount *op, struct op_context *context) {
  char *data = arena_take(context->arena, strlen(op->data) + 1), *rest = data, *option;
  unsigned attributes = 0;
  static const struct { unsigned long flag; unsigned attribute; } map[] = {
      {MS_RDONLY, MOUNT_ATTR_RDONLY},   {MS_NOSUID, MOUNT_ATTR_NOSUID},   {MS_NODEV, MOUNT_ATTR_NODEV},
      {MS_NOEXEC, MOUNT_ATTR_NOEXEC},   {MS_NOATIME, MOUNT_ATTR_NOATIME}, {MS_NODIRATIME, MOUNT_ATTR_NODIRATIME},
      {MS_RELATIME, MOUNT_ATTR_RELATIME}, {MS_STRICTATIME, MOUNT_ATTR_STRICTATIME}, {MS_SILENT, 0}};
  uint64_t left = op->flags;
  for (size_t i = 0; i < ARRAY_SIZE(map); i++)
    if (op->flags & map[i].flag) {
      attributes |= map[i].attribute;
      left &= ~(uint64_t)map[i].flag;
    }
  if (!data) return ENOMEM;
  if (left) return EINVAL;
  strcpy(data, op->data);
  int fd = (int)syscall(SYS_fsopen, msg_string(op->type), FSOPEN_CLOEXEC);
  if (fd < 0) return errno;
  int failed = msg_is_set(op->source) && syscall(SYS_fsconfig, fd, FSCONFIG_SET_STRING, "source", op->source, 0);
  if (!failed && (op->flags & MS_RDONLY)) failed = (int)syscall(SYS_fsconfig, fd, FSCONFIG_SET_FLAG, "ro", NULL, 0);
  while (!failed && (option = strsep(&rest, ",")))
    if (*option) failed = set_option(fd, option);
  if (!failed) failed = (int)syscall(SYS_fsconfig, fd, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
  int tree = failed ? -1 : (int)syscall(SYS_fsmount, fd, FSMOUNT_CLOEXEC, attributes);
  if (tree >= 0) failed = (int)syscall(SYS_move_mount, tree, "", AT_FDCWD, op->target, MOVE_MOUNT_F_EMPTY_PATH);
  int error = tree < 0 || failed ? errno : 0;
  if (tree >= 0) close(tree);
  close(fd);
  return error;
}

enum op_state op_mount(struct op_context *context, const Mount *op, OpResult *result) {
  const char *target = msg_string(op->target), *type = msg_string(op->type), *data = msg_string(op->data);
  int error = check_path(target);
  if (!error && strlen(data) > MOUNT_DATA_MAX) error = E2BIG;
  if (!error && op->mkdir_target) error = -make_directories(target, 0755);
  if (!error && strlen(data) >= (size_t)sysconf(_SC_PAGESIZE)) error = mount_with_fsconfig(op, context);
  else if (!error && mount(msg_string(op->source), target, *type ? type : NULL, (unsigned long)op->flags, *data ? data : NULL))
    error = errno;
  if (!error) return OP_DONE;
  return op_fail(context, result, error, "mount %s %.200s on %.300s", *type ? type : "(bind or flags)",
                 msg_string(op->source), target);
}

enum op_state op_unmount(struct op_context *context, const Unmount *op, OpResult *result) {
  const char *target = msg_string(op->target);
  if (!umount2(target, UMOUNT_NOFOLLOW_FLAG | (op->detach ? MNT_DETACH_FLAG : 0))) return OP_DONE;
  return op_fail(context, result, errno, "unmount %.300s", target);
}
