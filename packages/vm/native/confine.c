// Between fork and exec: the child gives up what the VMM does not need.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "guardian.h"

// Moves sources out of the way of the targets first, since both are small numbers.
static bool place_descriptors(const struct options *o, int *notify_channel) {
  int sources[LISTENERS_MAX + LOGS_MAX];
  int targets[LISTENERS_MAX + LOGS_MAX];
  int len = 0;
  int top = o->keep_fd_max;
  for (int i = 0; i < o->listeners_len; i++) {
    sources[len] = o->listeners[i].fd;
    targets[len++] = o->listeners[i].vmm_fd;
  }
  for (int i = 0; i < o->logs_len; i++) {
    sources[len] = o->logs[i].write_fd;
    targets[len++] = o->logs[i].vmm_fd;
  }
  for (int i = 0; i < len; i++) {
    if (targets[i] > top) top = targets[i];
  }
  for (int i = 0; i < len; i++) {
    sources[i] = fcntl(sources[i], F_DUPFD_CLOEXEC, top + 2);
    if (sources[i] < 0) return false;
  }
  if (*notify_channel >= 0) {
    if (dup3(*notify_channel, top + 1, O_CLOEXEC) < 0) return false;
    *notify_channel = top + 1;
  }
  close(o->owner_fd);
  for (int i = 0; i < len; i++) {
    if (dup2(sources[i], targets[i]) < 0) return false;
  }
  return close_range((unsigned)top + 2, ~0U, 0) == 0;
}

static bool limit(int resource, rlim_t value) {
  struct rlimit limit = {value, value};
  return setrlimit(resource, &limit) == 0;
}

static bool send_descriptor(int channel, int fd) {
  char byte = 0;
  struct iovec iov = {&byte, 1};
  union {
    char buffer[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
  } control = {0};
  struct msghdr message = {
      .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buffer, .msg_controllen = sizeof control.buffer};
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(header), &fd, sizeof fd);
  return sendmsg(channel, &message, MSG_NOSIGNAL) == 1;
}

void confine_and_exec(const struct options *o, pid_t guardian, int notify_channel, const char **step) {
  *step = "place the descriptors";
  if (!place_descriptors(o, &notify_channel)) return;

  *step = "set the limits";
  // Never a core file: it would hold the guest's memory.
  if (!limit(RLIMIT_CORE, 0) || !limit(RLIMIT_NOFILE, OPEN_FILES_MAX)) return;

  *step = "leave the host's network";
  // Every socket of the VMM comes as a descriptor. So a guest that breaks out of it finds nothing that listens on the
  // host's addresses, its loopback included, nor abstract sockets. Where root may not do this (in a container), or the
  // kernel has no namespaces, it goes on and says so.
  if (o->change_user && unshare(CLONE_NEWNET | CLONE_NEWIPC) < 0) {
    if (errno != EPERM && errno != EINVAL) return;
    dprintf(2, "guardian: the VMM stays in the host's network: %s\n", strerror(errno));
  }

  *step = "change the user";
  if (o->change_user) {
    if (setgroups(0, NULL) < 0) return;
    if (setresgid(o->uid, o->uid, o->uid) < 0) return;
    if (setresuid(o->uid, o->uid, o->uid) < 0) return;
  }

  *step = "follow the guardian";
  // After the change of user, which clears it. The check closes the gap before it was set.
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0) return;
  if (getppid() != guardian) _exit(125);

  *step = "set no_new_privs";
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return;

  *step = "reset the signals";
  sigset_t none;
  sigemptyset(&none);
  if (sigprocmask(SIG_SETMASK, &none, NULL) < 0) return;
  signal(SIGPIPE, SIG_DFL);

  if (notify_channel >= 0) {
    *step = "install the seccomp filter (a kernel from 5.14 on is needed)";
    int listener = notify_install(o);
    if (listener < 0 || !send_descriptor(notify_channel, listener)) return;
    close(listener);
    close(notify_channel);
  }

  *step = "execute the VMM";
  char *const environment[] = {"PATH=/usr/bin:/bin", "LC_ALL=C", NULL};
  execve(o->vmm_argv[0], o->vmm_argv, environment);
}
