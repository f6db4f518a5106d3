/* Archive: the agent's side. A forked child does the work; see tar.c. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "child.h"
#include "launch.h"
#include "limits.h"
#include "object.h"
#include "ops.h"
#include "tar.h"

struct archive_job {
  struct object object;
  struct child child;
  int report; /* what went wrong */
};

static void archive_release(struct object *object) {
  struct archive_job *job = container_of(object, struct archive_job, object);
  if (job->child.pid) kill(job->child.pid, SIGKILL); /* watched, so not reaped, so still this one */
  child_forget(&job->child);
  close_fd(&job->report);
  free(job);
}

static const struct object_type archive_type = {.kind = ObjectInfo_Kind_KIND_ARCHIVE, .release = archive_release};

static void archive_exited(struct child *child, int status) {
  struct archive_job *job = container_of(child, struct archive_job, child);
  struct outcome outcome = {0};
  struct report report;
  int none;
  if (WIFSIGNALED(status)) {
    outcome.code = EIO;
    snprintf(outcome.error, sizeof outcome.error, "the archive process died of signal %d", WTERMSIG(status));
  } else if (report_receive(job->report, &report, &none) > 0) {
    outcome.code = report.value;
    snprintf(outcome.error, sizeof outcome.error, "%s", report.what);
  } else if (WEXITSTATUS(status)) {
    outcome.code = EIO;
    snprintf(outcome.error, sizeof outcome.error, "the archive process failed");
  }
  object_end(&job->object, &outcome);
}

static _Noreturn void archive_child(const struct tar_task *task, const int stdio[3], int report) {
  child_reset_signals();
  int fds[4];
  for (int i = 0; i < 4; i++) fds[i] = fcntl(i < 3 ? stdio[i] : report, F_DUPFD_CLOEXEC, 10);
  for (int i = 0; i < 4; i++)
    if (fds[i] < 0 || dup2(fds[i], i) < 0) _exit(1);
  close_range(4, ~0u, 0);
  tar_run(task, 3);
}

/* Pipes for the channels and /dev/null for the rest. -errno or 0. */
static int open_stdio(bool output, int ours[3], int theirs[3]) {
  for (int i = 0; i < 3; i++) {
    int ends[2], error;
    if (i == 2 || (i == 1) == output) {
      if ((error = pipe_cloexec(ends))) return error;
      ours[i] = ends[i == 0];
      theirs[i] = ends[i != 0];
      fcntl(ours[i], F_SETFL, O_NONBLOCK);
      fcntl(ours[i], F_SETPIPE_SZ, PIPE_SIZE);
    } else {
      theirs[i] = open("/dev/null", O_RDWR | O_CLOEXEC);
      if (theirs[i] < 0) return -errno;
    }
  }
  return 0;
}

enum op_state op_archive(struct op_context *context, const Archive *op, OpResult *result) {
  const char *id = msg_string(op->id);
  struct tar_task task = {.pack = op->mode == Archive_Mode_MODE_PACK,
                          .changes = op->mode == Archive_Mode_MODE_CHANGES,
                          .layer = op->layer,
                          .lower = msg_string(op->lower),
                          .root = msg_is_set(op->root) ? op->root : "/",
                          .path = msg_is_set(op->path) ? op->path : "/",
                          .base_name = msg_string(op->base_name),
                          .no_overwrite_dir_non_dir = op->no_overwrite_dir_non_dir,
                          .numeric_owner_root = op->numeric_owner_root};
  int error = object_check_id(id);
  if (!error && !task.pack && !task.changes && op->mode != Archive_Mode_MODE_UNPACK) error = EINVAL;
  if (!error && (strlen(task.root) >= PATH_SIZE_MAX || strlen(task.lower) >= PATH_SIZE_MAX || strlen(task.path) >= PATH_SIZE_MAX || strlen(task.base_name) >= PATH_SIZE_MAX))
    error = ENAMETOOLONG;
  if (error) return op_fail(context, result, error, "archive %s", id);
  struct archive_job *job = xcalloc(1, sizeof *job);
  object_init(&job->object, &archive_type, id);
  child_init(&job->child);
  job->report = -1;
  int ours[3] = {-1, -1, -1}, theirs[3] = {-1, -1, -1}, report[2] = {-1, -1};
  error = open_stdio(task.pack || task.changes, ours, theirs);
  if (!error && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, report)) error = -errno;
  pid_t pid = error ? -1 : fork();
  if (pid == 0) archive_child(&task, theirs, report[1]);
  if (!error && pid < 0) error = -errno;
  job->report = report[0];
  close_fd(&report[1]);
  for (int i = 0; i < 3; i++) close_fd(&theirs[i]);
  if (!error) {
    job->object.pid = pid;
    child_watch_new(&job->child, pid, archive_exited);
    for (uint8_t i = 0; i < 3; i++) {
      bool made = ours[i] < 0 || (i ? channel_output(&job->object, i, ours[i]) : channel_input(&job->object, ours[i], END_CLOSE));
      ours[i] = -1;
      if (!made) error = EMFILE;
    }
  }
  for (int i = 0; i < 3; i++) close_fd(&ours[i]);
  if (!error) return OP_DONE;
  object_release(&job->object);
  return op_fail(context, result, error, "archive %s", id);
}
