#define _GNU_SOURCE
#include "launch.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "child.h"
#include "limits.h"

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

int report_send(int socket, const struct report *report, int fd) {
  union {
    struct cmsghdr header;
    char space[CMSG_SPACE(sizeof(int))];
  } control = {0};
  struct iovec data = {(void *)report, sizeof *report};
  struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
  if (fd >= 0) {
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
  }
  return sendmsg(socket, &message, MSG_NOSIGNAL) == (ssize_t)sizeof *report ? 0 : -errno;
}

ssize_t report_receive(int socket, struct report *report, int *fd) {
  union {
    struct cmsghdr header;
    char space[CMSG_SPACE(sizeof(int))];
  } control;
  struct iovec data = {report, sizeof *report};
  struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  *fd = -1;
  ssize_t size = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  struct cmsghdr *header = size > 0 ? CMSG_FIRSTHDR(&message) : NULL;
  if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS)
    memcpy(fd, CMSG_DATA(header), sizeof *fd);
  if (size > 0) report->what[sizeof report->what - 1] = 0;
  return size;
}

void launch_failed(const struct launch *launch, int error, const char *format, ...) {
  struct report report = {.kind = REPORT_ERROR, .value = error};
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(report.what, sizeof report.what, format, arguments);
  va_end(arguments);
  report_send(launch->report_fd, &report, -1);
  _exit(127);
}

static const char *path_of(char *const *env) {
  for (; *env; env++)
    if (!strncmp(*env, "PATH=", 5)) return *env + 5;
  return DEFAULT_PATH;
}

static void execute(const struct launch *launch) {
  const char *file = launch->argv[0];
  if (strchr(file, '/')) {
    execve(file, launch->argv, launch->env);
    return;
  }
  int error = ENOENT;
  for (const char *at = path_of(launch->env);;) {
    const char *end = strchrnul(at, ':');
    char candidate[PATH_SIZE_MAX];
    int size = snprintf(candidate, sizeof candidate, "%.*s%s%s", (int)(end - at), at, end == at ? "" : "/", file);
    if (size < (int)sizeof candidate) {
      execve(candidate, launch->argv, launch->env);
      /* As a shell: one that may not be run is remembered, one that is not there is not. */
      if (errno != ENOENT && errno != ENOTDIR) error = errno;
      if (errno != ENOENT && errno != ENOTDIR && errno != EACCES) break;
    }
    if (!*end) break;
    at = end + 1;
  }
  errno = error;
}

static void set_stdio(const struct launch *launch) {
  int fds[3];
  int terminal = launch->tty && launch->exec_in ? exec_in_open_terminal(launch) : -1;
  /* Out of the way of 0 to 2 first: one of the three can be another's target. */
  for (int i = 0; i < 3; i++) {
    fds[i] = fcntl(terminal >= 0 ? terminal : launch->stdio[i], F_DUPFD_CLOEXEC, 3);
    if (fds[i] < 0) launch_failed(launch, errno, "duplicate descriptor %d", i);
  }
  for (int i = 0; i < 3; i++)
    if (dup2(fds[i], i) < 0) launch_failed(launch, errno, "set descriptor %d", i);
}

void launch_set_ids(const struct launch *launch) {
  gid_t groups[GROUPS_MAX];
  for (size_t i = 0; i < launch->groups_count; i++) groups[i] = launch->groups[i];
  /* The system calls themselves: the library's wrappers are for threads. */
  if (syscall(SYS_setgroups, launch->groups_count, groups)) {
    /* A user namespace may forbid it; having none is then as good as setting none. */
    int error = errno;
    if (error != EPERM || launch->groups_count || getgroups(0, NULL))
      launch_failed(launch, error, "set %zu supplementary groups", launch->groups_count);
  }
  if (syscall(SYS_setresgid, launch->gid, launch->gid, launch->gid))
    launch_failed(launch, errno, "set group id %u", launch->gid);
  if (syscall(SYS_setresuid, launch->uid, launch->uid, launch->uid))
    launch_failed(launch, errno, "set user id %u", launch->uid);
}

/* Of what is open from 3 on, only these stay. Changes their order. */
static void close_others(int *kept, size_t count) {
  unsigned from = 3;
  for (size_t i = 0; i < count; i++) {
    size_t least = i;
    for (size_t j = i + 1; j < count; j++)
      if (kept[j] < kept[least]) least = j;
    int fd = kept[least];
    kept[least] = kept[i];
    if (fd < (int)from) continue; /* there is none, it is one of 0 to 2, or it was named before */
    if (fd > (int)from) close_range(from, (unsigned)fd - 1, 0);
    from = (unsigned)fd + 1;
  }
  close_range(from, ~0u, 0);
}

/*
 * Until exec this process is a copy of the agent, and with ExecIn the processes of a container see it:
 * with the same user id, and capabilities no more than theirs at its end, they could trace it, read its memory
 * and take its descriptors. So it cannot be traced, which exec undoes, and it has no descriptor that it does
 * not need, which also leaves nothing for a path below /proc/self/fd to lead to.
 */
static void stop_being_the_agent(const struct launch *launch) {
  const struct exec_in *exec_in = launch->exec_in;
  int kept[] = {launch->report_fd, launch->stdio[0], launch->stdio[1], launch->stdio[2], exec_in ? exec_in->pidfd : -1,
                exec_in ? exec_in->cgroup_fd : -1};
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)) launch_failed(launch, errno, "become untraceable");
  close_others(kept, ARRAY_SIZE(kept));
}

void launch_child(const struct launch *launch) {
  const char *cwd = msg_is_set(launch->cwd) ? launch->cwd : "/";
  child_reset_signals();
  stop_being_the_agent(launch);
  if (launch->exec_in) exec_in_enter(launch);
  setsid();
  set_stdio(launch);
  if (launch->tty && ioctl(0, TIOCSCTTY, 0)) launch_failed(launch, errno, "take the terminal");
  umask(022);
  if (chdir(cwd)) launch_failed(launch, errno, "chdir %s", cwd);
  if (launch->exec_in) exec_in_confine(launch);
  else launch_set_ids(launch);
  execute(launch);
  launch_failed(launch, errno, "exec %s", launch->argv[0]);
}
