#include "ops.h"

#include <errno.h>
#include <string.h>

#include "object.h"
#include "process.h"

static enum op_state op_release(struct op_context *context, const Release *op, OpResult *result) {
  struct object *object = object_find(msg_string(op->id));
  if (object && op->keep_group) process_keep_group(op->id);
  if (object) object_release(object);
  else if (!op->missing_ok) return op_fail(context, result, ENOENT, "no object %s", msg_string(op->id));
  return OP_DONE;
}

static enum op_state op_list_objects(struct op_context *context, OpResult *result) {
  struct buf list = {0};
  objects_encode(&list);
  result->which_result = OpResult_objects_tag;
  uint8_t *copy = arena_take(context->arena, list.size + 1);
  if (!copy) {
    buf_free(&list);
    return op_fail(context, result, EMSGSIZE, "list of objects");
  }
  if (list.size) memcpy(copy, list.data, list.size);
  result->result.objects.objects = (struct msg_raw){copy, list.size};
  buf_free(&list);
  return OP_DONE;
}

/* File operations: these look up a path and so may meet any file system. */
static enum op_state run_on_files(struct op_context *context, const Op *op, OpResult *result) {
  switch (op->which_op) {
    case Op_mount_tag: return op_mount(context, &op->op.mount, result);
    case Op_unmount_tag: return op_unmount(context, &op->op.unmount, result);
    case Op_mkdir_tag: return op_mkdir(context, &op->op.mkdir, result);
    case Op_rename_tag: return op_rename(context, &op->op.rename, result);
    case Op_remove_tag: return op_remove(context, &op->op.remove, result);
    case Op_chmod_tag: return op_chmod(context, &op->op.chmod, result);
    case Op_chown_tag: return op_chown(context, &op->op.chown, result);
    case Op_symlink_tag: return op_symlink(context, &op->op.symlink, result);
    case Op_mknod_tag: return op_mknod(context, &op->op.mknod, result);
    case Op_set_xattr_tag: return op_set_xattr(context, &op->op.set_xattr, result);
    case Op_get_xattr_tag: return op_get_xattr(context, &op->op.get_xattr, result);
    case Op_stat_tag: return op_stat(context, &op->op.stat, result);
    case Op_list_tag: return op_list(context, &op->op.list, result);
    case Op_read_tag: return op_read(context, &op->op.read, result);
    case Op_write_tag: return op_write(context, &op->op.write, result);
    default: return op_fail(context, result, ENOSYS, "unknown operation");
  }
}

static void file_job(struct op_context *context, const Op *op, OpResult *result) {
  run_on_files(context, op, result);
}

static bool is_file_op(const Op *op) { return op->which_op >= Op_mount_tag && op->which_op <= Op_get_xattr_tag; }

static bool may_block(const Op *op) {
  if (fuse_relay_exists()) return true;
  if (op->which_op == Op_mount_tag) return mount_may_block(&op->op.mount);
  if (op->which_op == Op_unmount_tag) return unmount_may_block(&op->op.unmount);
  return op->which_op == Op_write_tag && op->op.write.sync;
}

enum op_state op_run(struct op_context *context, const Op *op, OpResult *result) {
  if (op->which_op == Op_remove_tag && op->op.remove.recursive) return job_start(context, op, remove_tree);
  if (is_file_op(op)) return may_block(op) ? job_start(context, op, file_job) : run_on_files(context, op, result);
  switch (op->which_op) {
    case Op_wait_device_tag: return op_wait_device(context, &op->op.wait_device, result);
    case Op_spawn_tag: return op_spawn(context, &op->op.spawn, result);
    case Op_exec_in_tag: return op_exec_in(context, &op->op.exec_in, result);
    case Op_signal_tag: return op_signal(context, &op->op.signal, result);
    case Op_resize_tag: return op_resize(context, &op->op.resize, result);
    case Op_release_tag: return op_release(context, &op->op.release, result);
    case Op_list_objects_tag: return op_list_objects(context, result);
    case Op_archive_tag: return op_archive(context, &op->op.archive, result);
    case Op_connect_tag: return op_connect(context, &op->op.connect, result);
    case Op_listen_tag: return op_listen(context, &op->op.listen, result);
    case Op_watch_tag: return op_watch(context, &op->op.watch, result);
    case Op_fuse_relay_tag: return op_fuse_relay(context, &op->op.fuse_relay, result);
    case Op_netlink_tag: return op_netlink(context, &op->op.netlink, result);
    case Op_net_namespace_tag: return op_net_namespace(context, &op->op.net_namespace, result);
    case Op_set_time_tag: return op_set_time(context, &op->op.set_time, result);
    case Op_reseed_tag: return op_reseed(context, &op->op.reseed, result);
    case Op_stats_tag: return op_stats(context, &op->op.stats, result);
    case Op_sync_tag: return job_start(context, op, sync_all);
    case Op_shutdown_tag: return op_shutdown(context, &op->op.shutdown, result);
    default: return op_fail(context, result, ENOSYS, "unknown operation");
  }
}
