/* The operations of a batch, by file. */
#pragma once

#include "batch.h"
#include "limits.h"

/* Fair to block for the time of a few system calls, no longer. */
enum op_state op_run(struct op_context *context, const Op *op, OpResult *result);

/* files.c */
enum op_state op_mkdir(struct op_context *context, const Mkdir *op, OpResult *result);
enum op_state op_rename(struct op_context *context, const Rename *op, OpResult *result);
enum op_state op_remove(struct op_context *context, const Remove *op, OpResult *result);
enum op_state op_chmod(struct op_context *context, const Chmod *op, OpResult *result);
enum op_state op_chown(struct op_context *context, const Chown *op, OpResult *result);
enum op_state op_symlink(struct op_context *context, const Symlink *op, OpResult *result);
enum op_state op_mknod(struct op_context *context, const Mknod *op, OpResult *result);
enum op_state op_set_xattr(struct op_context *context, const SetXattr *op, OpResult *result);
enum op_state op_get_xattr(struct op_context *context, const GetXattr *op, OpResult *result);
enum op_state op_stat(struct op_context *context, const Stat *op, OpResult *result);
enum op_state op_list(struct op_context *context, const List *op, OpResult *result);
enum op_state op_read(struct op_context *context, const Read *op, OpResult *result);
enum op_state op_write(struct op_context *context, const Write *op, OpResult *result);
/* -errno or 0; makes parents too. */
int make_directories(const char *path, mode_t mode);
/* 0, ENOENT (empty) or ENAMETOOLONG. */
int check_path(const char *path);

/* tree.c: in a job */
void remove_tree(struct op_context *context, const Op *op, OpResult *result);

/* mounts.c */
enum op_state op_mount(struct op_context *context, const Mount *op, OpResult *result);
enum op_state op_unmount(struct op_context *context, const Unmount *op, OpResult *result);
/* Whether the operation may block on a disk's journal, or for ever. */
bool mount_may_block(const Mount *op);
bool unmount_may_block(const Unmount *op);

/* device.c */
enum op_state op_wait_device(struct op_context *context, const WaitDevice *op, OpResult *result);

/* cgroup.c: the path of a file of a cgroup, which has to be below /sys/fs/cgroup. 0, EINVAL or ENAMETOOLONG. */
int cgroup_file(const char *cgroup, const char *file, char path[PATH_SIZE_MAX]);

/* process.c, spawn.c, exec_in.c */
enum op_state op_spawn(struct op_context *context, const Spawn *op, OpResult *result);
enum op_state op_exec_in(struct op_context *context, const ExecIn *op, OpResult *result);
enum op_state op_signal(struct op_context *context, const Signal *op, OpResult *result);
enum op_state op_resize(struct op_context *context, const Resize *op, OpResult *result);

/* archive.c */
enum op_state op_archive(struct op_context *context, const Archive *op, OpResult *result);

/* net.c, netlink.c, fuse.c, watch.c */
enum op_state op_connect(struct op_context *context, const Connect *op, OpResult *result);
enum op_state op_listen(struct op_context *context, const Listen *op, OpResult *result);
enum op_state op_netlink(struct op_context *context, const Netlink *op, OpResult *result);
enum op_state op_net_namespace(struct op_context *context, const NetNamespace *op, OpResult *result);
enum op_state op_fuse_relay(struct op_context *context, const FuseRelay *op, OpResult *result);
/* Path operations must not run on the loop then: they could wait for ourselves. */
bool fuse_relay_exists(void);
bool is_in_fuse_relay(const char *path);
enum op_state op_watch(struct op_context *context, const Watch *op, OpResult *result);

/* machine.c, stats.c */
enum op_state op_set_time(struct op_context *context, const SetTime *op, OpResult *result);
enum op_state op_reseed(struct op_context *context, const Reseed *op, OpResult *result);
void sync_all(struct op_context *context, const Op *op, OpResult *result);
enum op_state op_shutdown(struct op_context *context, const Shutdown *op, OpResult *result);
enum op_state op_stats(struct op_context *context, const Stats *op, OpResult *result);
