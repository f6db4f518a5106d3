#define _GNU_SOURCE
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "limits.h"
#include "ops.h"

static void process_release(struct object *object);
static const struct object_type process_type = {.kind = ObjectInfo_Kind_KIND_PROCESS, .release = process_release};

static struct outcome outcome_of(int status) {
  struct outcome outcome = {.signaled = WIFSIGNALED(status)};
  outcome.code = outcome.signaled ? WTERMSIG(status) : WEXITSTATUS(status);
  return outcome;
}

static void release_statuses(struct process *process) {
  if (process->holds_statuses) statuses_release();
  process->holds_statuses = false;
}

/* 0 or the errno. The group is named by a pid: it is signalled only while that is surely ours. */
static int signal_group(struct process *process, int number) {
  pid_t pid = process->object.pid;
  if (pid <= 1) return ESRCH;
  if (process->object.ended) {
    if (!process->group_may_live) return ESRCH;
    /* A process of this pid would be another one: the leader was reaped. */
    if (!kill(pid, 0)) return ESRCH;
  }
  return kill(-pid, number) ? errno : 0;
}

static int signal_process(struct process *process, int number) {
  if (process->object.ended || process->object.pid <= 1) return ESRCH;
  if (process->pidfd >= 0) return syscall(SYS_pidfd_send_signal, process->pidfd, number, NULL, 0) ? errno : 0;
  return kill(process->object.pid, number) ? errno : 0; /* not reaped yet, so still this one */
}

static void process_free(struct process *process) {
  int report = process->report.fd;
  source_remove(&process->report);
  close_fd(&report);
  release_statuses(process);
  console_close(process);
  close_fd(&process->pidfd);
  close_fd(&process->terminal);
  free(process->adopt_pid_file);
  free(process);
}

static void process_release(struct object *object) {
  struct process *process = container_of(object, struct process, object);
  if (!object->ended) signal_process(process, SIGKILL);
  signal_group(process, SIGKILL);
  child_forget(&process->child);
  if (process->wait.batch) batch_op_failed(&process->wait, ECANCELED, "process %s was released", object->id);
  /* ExecIn's process is not known yet: it is killed as soon as it is. */
  process->doomed = process->report.fd >= 0 && object->pid == 0;
  if (!process->doomed) process_free(process);
}

/* --- The end of the process ------------------------------------------------------------------ */

static void process_exited(struct child *child, int status) {
  struct process *process = container_of(child, struct process, child);
  struct outcome outcome = outcome_of(status);
  process->group_may_live = process->object.pid > 1 && !kill(-process->object.pid, 0);
  close_fd(&process->pidfd);
  object_end(&process->object, &outcome);
}

static void started(struct process *process) {
  OpResult result = {.which_result = OpResult_process_tag};
  result.result.process.pid = process->object.pid;
  release_statuses(process);
  batch_op_done(&process->wait, &result);
}

/* The parent; 0 when the process is gone. */
static pid_t parent_of(pid_t pid) {
  char path[32], text[512];
  int parent = 0;
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  if (read_file(path, text, sizeof text) <= 0) return 0;
  char *end = strrchr(text, ')'); /* the name before it can hold anything */
  return end && sscanf(end, ") %*c %d", &parent) == 1 ? parent : 0;
}

/*
 * It need not be our child yet: the launcher may have forked (`crun run --detach` does), and the
 * process becomes ours when that fork, too, has exited. One that is gone was ours.
 */
static bool descends_from_us(pid_t pid) {
  for (int tries = 0; tries < 16; tries++) {
    pid_t parent = parent_of(pid);
    if (!parent || parent == getpid()) return true;
    for (int depth = 0; depth < 8 && parent > 1; depth++)
      if ((parent = parent_of(parent)) == getpid()) return true;
    if (parent == 1) return false;
    /* One of the chain exited as we looked: the process has another parent now. */
  }
  return false;
}

/* 0 or the errno of what is in the way of the launcher's process. */
static int adopt(struct process *process, const char **what) {
  char text[32];
  char *end;
  ssize_t size = read_file(process->adopt_pid_file, text, sizeof text);
  *what = "read the pid file";
  if (size < 0) return (int)-size;
  errno = 0;
  long pid = strtol(text, &end, 10);
  *what = "the pid file holds no pid";
  if (end == text || pid <= 1 || pid > INT32_MAX || (*end && *end != '\n')) return EINVAL;
  if (!descends_from_us((pid_t)pid)) {
    *what = "the process of the pid file does not descend from the launcher";
    return ECHILD;
  }
  process->object.pid = (int32_t)pid;
  process->pidfd = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
  child_watch(&process->child, (pid_t)pid, process_exited);
  if (process->pidfd < 0 && !process->object.ended) { /* it is gone, and nobody saw it end */
    child_forget(&process->child);
    *what = "the process of the pid file is not there";
    return ESRCH;
  }
  if (process->object.ended) close_fd(&process->pidfd);
  return 0;
}

static void launcher_exited(struct child *child, int status) {
  struct process *process = container_of(child, struct process, child);
  struct outcome outcome = outcome_of(status);
  const char *what = NULL;
  int error = 0;
  close_fd(&process->pidfd);
  if (status) {
    object_end(&process->object, &outcome);
    release_statuses(process);
    batch_op_failed(&process->wait, ECHILD, "the launcher %s %d", outcome.signaled ? "died of signal" : "exited with",
                    outcome.code);
    return;
  }
  pid_t launcher = process->object.pid;
  if (process->console && !console_settle(process)) {
    error = ENOTTY;
    what = "the launcher sent no terminal";
  }
  if (!error) error = adopt(process, &what);
  if (!error) {
    started(process);
    return;
  }
  process->object.pid = launcher;
  close_fd(&process->pidfd);
  object_end(&process->object, &outcome);
  release_statuses(process);
  batch_op_failed(&process->wait, error, "adopt the process of %s: %s", process->adopt_pid_file, what);
}

/* --- The start ------------------------------------------------------------------------------- */

static void set_pid(struct process *process, pid_t pid) {
  process->object.pid = pid;
  process->pidfd = (int)syscall(SYS_pidfd_open, pid, 0); /* -1 when it was reaped already */
}

static void take_terminal(struct process *process, int master, bool doomed) {
  if (doomed || process->terminal >= 0) close(master);
  else if (process_open_terminal(process, master, process->object.channels[0] != NULL))
    warn("terminal of %s cannot be watched", process->object.id);
}

static void report_ready(struct source *source, uint32_t events) {
  struct process *process = container_of(source, struct process, report);
  struct report report;
  (void)events;
  for (;;) {
    int passed;
    ssize_t size = report_receive(source->fd, &report, &passed);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0 && errno == EAGAIN) return;
    if (passed >= 0) {
      take_terminal(process, passed, process->doomed);
      continue;
    }
    if (size == (ssize_t)sizeof report && report.kind == REPORT_PID && process->doomed) {
      kill(report.value, SIGKILL);
      continue;
    }
    if (process->doomed) {
      process_free(process);
      return;
    }
    if (size == (ssize_t)sizeof report && report.kind == REPORT_PID) {
      child_forget(&process->child); /* the one that entered the namespaces; its exit says nothing */
      close_fd(&process->pidfd);
      set_pid(process, report.value);
      child_watch(&process->child, report.value, process_exited);
      continue;
    }
    int fd = source->fd;
    source_remove(source);
    close(fd);
    if (size == (ssize_t)sizeof report) {
      batch_op_failed(&process->wait, report.value ? report.value : EIO, "%s", report.what);
      object_release(&process->object);
      return;
    }
    if (process->object.pid <= 1) { /* killed on its way */
      batch_op_failed(&process->wait, ECHILD, "the process died before it was started");
      object_release(&process->object);
    } else if (!process->adopt_pid_file) {
      started(process);
    }
    return;
  }
}

int process_watch_launch(struct process *process, int report, pid_t pid) {
  fcntl(report, F_SETFL, O_NONBLOCK);
  int error = source_add(&process->report, report, EPOLLIN, report_ready);
  if (error) {
    close(report);
    return error;
  }
  statuses_hold();
  process->holds_statuses = true;
  if (!pid) return 0;
  set_pid(process, pid);
  child_watch_new(&process->child, pid, process->adopt_pid_file ? launcher_exited : process_exited);
  return 0;
}

struct process *process_new(const char *id) {
  struct process *process = xcalloc(1, sizeof *process);
  object_init(&process->object, &process_type, id);
  child_init(&process->child);
  process->pidfd = process->terminal = process->report.fd = -1;
  return process;
}

/* --- Signal, Resize -------------------------------------------------------------------------- */

static struct process *find(const char *id) {
  struct object *object = object_find(msg_string(id));
  return object && object->type == &process_type ? container_of(object, struct process, object) : NULL;
}

int32_t process_pid(const char *id) {
  struct process *process = find(id);
  return process && !process->object.ended && process->report.fd < 0 ? process->object.pid : 0;
}

void process_keep_group(const char *id) {
  struct process *process = find(id);
  if (process && process->object.ended) process->group_may_live = false;
}

static int kill_cgroup(const char *cgroup) {
  char path[PATH_SIZE_MAX];
  int error = cgroup_file(cgroup, "cgroup.kill", path);
  return error ? error : -write_file(path, "1");
}

enum op_state op_signal(struct op_context *context, const Signal *op, OpResult *result) {
  struct process *process = find(op->id);
  if (!process) return op_fail(context, result, ENOENT, "no process %s", msg_string(op->id));
  int error = op->group ? signal_group(process, op->signal) : ESRCH;
  /* An adopted process need not lead a group. */
  if (error == ESRCH) error = signal_process(process, op->signal);
  if (op->group && op->signal == SIGKILL && msg_is_set(op->cgroup)) {
    int other = kill_cgroup(op->cgroup);
    if (error == ESRCH) error = 0; /* the group is gone; the rest was in the cgroup */
    if (other) error = other;
  }
  if (error) return op_fail(context, result, error, "signal %d to process %s", op->signal, msg_string(op->id));
  return OP_DONE;
}

enum op_state op_resize(struct op_context *context, const Resize *op, OpResult *result) {
  struct process *process = find(op->id);
  if (!process) return op_fail(context, result, ENOENT, "no process %s", msg_string(op->id));
  struct winsize size = {.ws_row = (uint16_t)op->size.rows, .ws_col = (uint16_t)op->size.columns};
  process->has_size = true;
  process->size = op->size;
  if (process->terminal < 0 && (process->console || process->report.fd >= 0)) return OP_DONE; /* set when it comes */
  if (process->terminal < 0) return op_fail(context, result, ENOTTY, "process %s", msg_string(op->id));
  if (ioctl(process->terminal, TIOCSWINSZ, &size)) return op_fail(context, result, errno, "resize %s", msg_string(op->id));
  return OP_DONE;
}
