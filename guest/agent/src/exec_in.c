/*
 * ExecIn: a process inside another one's namespaces and cgroup.
 *
 *   agent ── fork ──▶ A: joins the cgroup, setns(), clone(CLONE_PARENT) ──▶ B: in the pid namespace,
 *     ▲                tells B's pid, exits                                   becomes the program
 *     └──────────────────── B is a child of the agent: its status is exact ◀──┘
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "limits.h"
#include "ops.h"
#include "process.h"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

/* --- In the agent -------------------------------------------------------------------------- */

/* One filter is enough: there is one profile for each kernel. Kept while its file stays the same. */
static struct {
  struct seccomp_filter filter;
  struct stat status;
} cached;

static bool is_cached(const struct stat *status) {
  return cached.filter.instructions && status->st_dev == cached.status.st_dev && status->st_ino == cached.status.st_ino &&
         status->st_size == cached.status.st_size && status->st_mtim.tv_sec == cached.status.st_mtim.tv_sec &&
         status->st_mtim.tv_nsec == cached.status.st_mtim.tv_nsec;
}

/* NULL and errno when it cannot be had. */
static const struct seccomp_filter *load_filter(const char *path) {
  struct stat status;
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return NULL;
  int error = fstat(fd, &status) ? errno : 0;
  if (!error && is_cached(&status)) {
    close(fd);
    return &cached.filter;
  }
  size_t size = (size_t)status.st_size;
  if (!error && (!S_ISREG(status.st_mode) || !size || size > SECCOMP_FILTER_MAX || size % sizeof(struct sock_filter)))
    error = EINVAL;
  if (!error) {
    void *instructions = xmalloc(size);
    if (pread(fd, instructions, size, 0) == (ssize_t)size) {
      free((void *)cached.filter.instructions);
      cached.filter = (struct seccomp_filter){(uint16_t)(size / sizeof(struct sock_filter)), instructions};
      cached.status = status;
    } else {
      error = errno ? errno : EIO;
      free(instructions);
    }
  }
  close(fd);
  errno = error;
  return error ? NULL : &cached.filter;
}

static int open_cgroup(const char *cgroup) {
  char path[PATH_SIZE_MAX];
  int error = cgroup_file(cgroup, "cgroup.procs", path);
  if (error) return -error;
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  return fd < 0 ? -errno : fd;
}

enum op_state op_exec_in(struct op_context *context, const ExecIn *op, OpResult *result) {
  const char *id = msg_string(op->spawn.id);
  struct exec_in exec_in = {.target_pid = op->target_pid,
                            .pidfd = -1,
                            .cgroup_fd = -1,
                            .capabilities = op->capabilities,
                            .keep_all_capabilities = op->keep_all_capabilities,
                            .no_new_privs = op->no_new_privs,
                            .rlimits = op->rlimits,
                            .rlimits_count = op->rlimits_count};
  struct launch launch = {.exec_in = &exec_in};
  if (msg_is_set(op->target)) {
    exec_in.target_pid = process_pid(op->target);
    if (!exec_in.target_pid) return op_fail(context, result, ESRCH, "no process %s runs", op->target);
  }
  if (msg_is_set(op->spawn.adopt_pid_file) || msg_is_set(op->spawn.console_socket))
    return op_fail(context, result, EINVAL, "start process %s: ExecIn takes no adopt_pid_file or console_socket", id);
  if (exec_in.target_pid <= 1)
    return op_fail(context, result, EINVAL, "start process %s in process %d", id, exec_in.target_pid);
  if (msg_is_set(op->seccomp_bpf)) {
    exec_in.seccomp = load_filter(op->seccomp_bpf);
    if (!exec_in.seccomp) return op_fail(context, result, errno, "load the seccomp filter %.300s", op->seccomp_bpf);
  }
  exec_in.pidfd = (int)syscall(SYS_pidfd_open, (pid_t)exec_in.target_pid, 0);
  if (exec_in.pidfd < 0) return op_fail(context, result, errno, "open process %d", exec_in.target_pid);
  if (msg_is_set(op->cgroup)) exec_in.cgroup_fd = open_cgroup(op->cgroup);
  enum op_state state;
  if (exec_in.cgroup_fd < -1) state = op_fail(context, result, exec_in.cgroup_fd, "open the cgroup %.300s", op->cgroup);
  else state = process_start(context, result, &op->spawn, &launch);
  close_fd(&exec_in.pidfd);
  close_fd(&exec_in.cgroup_fd);
  return state;
}

/* --- In the child -------------------------------------------------------------------------- */

/* The kinds of namespace in which the target is not where we are. */
static int different_namespaces(const struct launch *launch, int32_t pid) {
  static const struct {
    const char *name;
    int flag;
  } kinds[] = {{"user", CLONE_NEWUSER}, {"mnt", CLONE_NEWNS},         {"pid", CLONE_NEWPID}, {"net", CLONE_NEWNET},
               {"ipc", CLONE_NEWIPC},   {"uts", CLONE_NEWUTS},        {"cgroup", CLONE_NEWCGROUP}, {"time", CLONE_NEWTIME}};
  int flags = 0;
  for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
    char path[64];
    struct stat own, theirs;
    snprintf(path, sizeof path, "/proc/self/ns/%s", kinds[i].name);
    if (stat(path, &own)) continue; /* a kernel without this kind */
    snprintf(path, sizeof path, "/proc/%d/ns/%s", pid, kinds[i].name);
    if (stat(path, &theirs)) launch_failed(launch, errno == ENOENT ? ESRCH : errno, "namespaces of process %d", pid);
    if (own.st_ino != theirs.st_ino || own.st_dev != theirs.st_dev) flags |= kinds[i].flag;
  }
  return flags;
}

void exec_in_enter(const struct launch *launch) {
  const struct exec_in *exec_in = launch->exec_in;
  struct report report = {.kind = REPORT_PID};
  int flags = different_namespaces(launch, exec_in->target_pid);
  if (exec_in->cgroup_fd >= 0 && write(exec_in->cgroup_fd, "0", 1) < 0) launch_failed(launch, errno, "join the cgroup");
  syscall(SYS_setgroups, 0, NULL); /* while it is allowed; see launch_set_ids() */
  if (flags && setns(exec_in->pidfd, flags)) launch_failed(launch, errno, "enter the namespaces of process %d", exec_in->target_pid);
  close(exec_in->pidfd);
  if (exec_in->cgroup_fd >= 0) close(exec_in->cgroup_fd);
  if (!(flags & CLONE_NEWPID)) {
    report.value = getpid();
    report_send(launch->report_fd, &report, -1);
    return;
  }
  long pid = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
  if (pid == 0) return;
  if (pid < 0) launch_failed(launch, errno, "fork into the pid namespace");
  report.value = (int32_t)pid;
  /* The agent is gone, or will never know the process: then it must not stay. */
  if (report_send(launch->report_fd, &report, -1)) kill((pid_t)pid, SIGKILL);
  _exit(0);
}

int exec_in_open_terminal(const struct launch *launch) {
  struct report report = {.kind = REPORT_TERMINAL};
  int unlock = 0;
  int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (master < 0) launch_failed(launch, errno, "open /dev/ptmx in the container");
  if (ioctl(master, TIOCSPTLCK, &unlock)) launch_failed(launch, errno, "unlock the terminal");
  int terminal = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (terminal < 0) launch_failed(launch, errno, "open the terminal");
  if (launch->size) {
    struct winsize size = {.ws_row = (uint16_t)launch->size->rows, .ws_col = (uint16_t)launch->size->columns};
    ioctl(master, TIOCSWINSZ, &size);
  }
  if (fchown(terminal, launch->uid, (gid_t)-1)) launch_failed(launch, errno, "give the terminal to user %u", launch->uid);
  int error = report_send(launch->report_fd, &report, master);
  if (error) launch_failed(launch, -error, "send the terminal");
  return terminal;
}

static void set_limits(const struct launch *launch) {
  const struct exec_in *exec_in = launch->exec_in;
  for (size_t i = 0; i < exec_in->rlimits_count; i++) {
    const Rlimit *wanted = &exec_in->rlimits[i];
    struct rlimit limit = {.rlim_cur = wanted->soft, .rlim_max = wanted->hard};
    if (setrlimit((int)wanted->resource, &limit)) launch_failed(launch, errno, "set resource limit %u", wanted->resource);
  }
}

static void drop_bounding(const struct launch *launch, uint64_t keep) {
  for (unsigned number = 0; number < 64; number++) {
    int there = prctl(PR_CAPBSET_READ, number, 0, 0, 0);
    if (there < 0) return; /* past the last capability */
    if (!there || (keep >> number & 1)) continue;
    if (prctl(PR_CAPBSET_DROP, number, 0, 0, 0)) launch_failed(launch, errno, "drop capability %u", number);
  }
}

static void set_capabilities(const struct launch *launch, uint64_t keep) {
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct data[2] = {0};
  for (int i = 0; i < 2; i++) data[i].permitted = data[i].effective = (uint32_t)(keep >> (32 * i));
  if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)) launch_failed(launch, errno, "clear ambient capabilities");
  if (syscall(SYS_capset, &header, data)) launch_failed(launch, errno, "set capabilities %#llx", (unsigned long long)keep);
}

static uint64_t permitted_capabilities(void) {
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct data[2] = {0};
  syscall(SYS_capget, &header, data);
  return (uint64_t)data[1].permitted << 32 | data[0].permitted;
}

static void install_filter(const struct launch *launch) {
  const struct seccomp_filter *filter = launch->exec_in->seccomp;
  struct sock_fprog program = {.len = filter->count, .filter = (void *)filter->instructions};
  if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program)) launch_failed(launch, errno, "install the seccomp filter");
}

void exec_in_confine(const struct launch *launch) {
  const struct exec_in *exec_in = launch->exec_in;
  uint64_t keep = exec_in->keep_all_capabilities ? permitted_capabilities() : exec_in->capabilities;
  set_limits(launch);
  if (!exec_in->keep_all_capabilities) drop_bounding(launch, keep);
  /* Without no_new_privs a filter takes CAP_SYS_ADMIN, so it comes before that goes. */
  if (exec_in->seccomp && !exec_in->no_new_privs) install_filter(launch);
  if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)) launch_failed(launch, errno, "keep capabilities");
  launch_set_ids(launch);
  prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0);
  set_capabilities(launch, keep);
  if (exec_in->no_new_privs && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) launch_failed(launch, errno, "set no_new_privs");
  if (exec_in->seccomp && exec_in->no_new_privs) install_filter(launch);
}
