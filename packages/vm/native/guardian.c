// The guardian: starts one virtual machine monitor, keeps its lease and cleans up after it.
//
// It is the VMM's parent, so it learns of its end without polling, whoever else comes and goes; and it is
// not the daemon, so the daemon's end is not the machine's. The lease is a set of connections: the
// one inherited from the owner and any that come in on `lease.sock`. When the last one closes (the
// kernel does that however the owner died) an ephemeral machine is killed at once, an adoptable one
// when nobody connected within the grace time. The VMM dies with the guardian (PDEATHSIG), so no
// kill -9 of anything leaves a machine that nobody owns.
//
// To every connection it says, as lines:
//   up pid=PID start=TICKS                    after the start, or on connecting
//   fail errno=N step=TEXT                    nothing runs and nothing is left; then it closes
//   exit code=N signal=N by=WHO LOG=BYTES ... everything is released; the ends of the logs follow,
//                                             in that order, and it closes
// and it understands one line: `kill`.
//
// By the time a connection closes after `exit` or `fail`, the run directory and the cgroup are gone: this
// process is their only owner from its start on.
#define _GNU_SOURCE
#include "guardian.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LEASE_NAME "lease.sock"

struct lease {
  int fd; // -1: free
  size_t len;
  char line[REQUEST_BYTES_MAX];
};

static struct options options;
static struct lease leases[LEASES_MAX];
static int dir_fd = -1;
static int lease_listener = -1;
static int notify_listener = -1;
static int vmm_pidfd = -1;
static int mover_pidfd = -1;
static pid_t vmm_pid;
static pid_t mover_pid;
static char vmm_start[32];
static const char *killed_by = "itself";
static int64_t orphan_deadline_ms = -1; // -1: none
static volatile sig_atomic_t terminated;

static int64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

// --- Telling the owners -----------------------------------------------------------------------

static void say(int fd, const char *data, size_t len) {
  // An owner that does not read has a full buffer, and loses the message: it sees the close.
  while (len > 0) {
    ssize_t n = send(fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    data += n;
    len -= (size_t)n;
  }
}

static void say_all(const char *data, size_t len) {
  for (int i = 0; i < LEASES_MAX; i++) {
    if (leases[i].fd >= 0) say(leases[i].fd, data, len);
  }
}

static void say_up(int fd) {
  char line[96];
  int len = snprintf(line, sizeof line, "up pid=%d start=%s\n", vmm_pid, vmm_start);
  say(fd, line, (size_t)len);
}

// --- What is released at the end --------------------------------------------------------------

// A cgroup can be busy for a moment after its last process was reaped.
static void remove_cgroup(const char *path) {
  for (int wait_ms = 1; rmdir(path) < 0 && errno == EBUSY && wait_ms <= CGROUP_WAIT_MS_MAX; wait_ms *= 2) {
    struct timespec pause = {.tv_sec = wait_ms / 1000, .tv_nsec = wait_ms % 1000 * 1000000};
    nanosleep(&pause, NULL);
  }
}

static void release_all(void) {
  if (dir_fd >= 0) {
    unlinkat(dir_fd, LEASE_NAME, 0);
    for (int i = 0; i < options.listeners_len; i++) unlinkat(dir_fd, options.listeners[i].name, 0);
    for (int i = 0; i < options.logs_len; i++) unlinkat(dir_fd, options.logs[i].name, 0);
  }
  rmdir(options.dir);
  for (int i = 0; i < options.cgroups_len; i++) remove_cgroup(options.cgroups[i]);
}

_Noreturn static void fail(const char *step, int error) {
  char line[256];
  int len = snprintf(line, sizeof line, "fail errno=%d step=%s\n", error, step);
  if (len >= (int)sizeof line) len = sizeof line - 1;
  release_all();
  say_all(line, (size_t)len);
  exit(1);
}

// --- Preparing --------------------------------------------------------------------------------

static int listen_at(const char *name) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (snprintf(address.sun_path, sizeof address.sun_path, "%s/%s", options.dir, name) >=
      (int)sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    return -1;
  }
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 8) < 0) return -1;
  return fd;
}

static void make_cgroups(void) {
  for (int i = 0; i < options.cgroups_len; i++) {
    if (mkdir(options.cgroups[i], 0755) < 0) fail("make the cgroup", errno);
  }
  for (int i = 0; i < options.cgroup_settings_len; i++) {
    char path[512];
    const char *equals = strchr(options.cgroup_settings[i], '=');
    int len = (int)(equals - options.cgroup_settings[i]);
    if (snprintf(path, sizeof path, "%.*s", len, options.cgroup_settings[i]) >= (int)sizeof path) {
      fail("set a limit of the cgroup", ENAMETOOLONG);
    }
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) fail("set a limit of the cgroup", errno);
    ssize_t n = write(fd, equals + 1, strlen(equals + 1));
    if (n < 0) fail("set a limit of the cgroup", errno);
    close(fd);
  }
}

static int receive_descriptor(int channel) {
  char byte;
  struct iovec iov = {&byte, 1};
  union {
    char buffer[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
  } control;
  struct msghdr message = {
      .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buffer, .msg_controllen = sizeof control.buffer};
  ssize_t n;
  do {
    n = recvmsg(channel, &message, MSG_CMSG_CLOEXEC);
  } while (n < 0 && errno == EINTR);
  if (n != 1) return -1;
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  if (header == NULL || header->cmsg_type != SCM_RIGHTS) return -1;
  int fd = -1;
  memcpy(&fd, CMSG_DATA(header), sizeof fd);
  return fd;
}

// Field 22 of /proc/PID/stat; the second field may hold spaces and parentheses.
static bool read_start_time(pid_t pid) {
  char path[32], text[1024];
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  ssize_t n = read(fd, text, sizeof text - 1);
  close(fd);
  if (n <= 0) return false;
  text[n] = '\0';
  char *at = strrchr(text, ')');
  for (int field = 2; at != NULL && field < 22; field++) at = strchr(at + 1, ' ');
  return at != NULL && sscanf(at + 1, "%31[0-9]", vmm_start) == 1;
}

// Entering a cgroup waits for an RCU grace period now and then (15 ms), so a process of its own does
// it while the VMM starts; what the VMM used until then is charged to our cgroup.
static void start_mover(void) {
  if (options.cgroups_len == 0) return;
  mover_pid = fork();
  if (mover_pid < 0) return;
  if (mover_pid == 0) {
    char pid[16];
    int len = snprintf(pid, sizeof pid, "%d", vmm_pid);
    for (int i = 0; i < options.cgroups_len; i++) {
      char path[512];
      if (snprintf(path, sizeof path, "%s/cgroup.procs", options.cgroups[i]) >= (int)sizeof path) _exit(ENAMETOOLONG);
      int fd = open(path, O_WRONLY | O_CLOEXEC);
      if (fd < 0 || write(fd, pid, (size_t)len) < 0) _exit(errno);
      close(fd);
    }
    _exit(0);
  }
  mover_pidfd = (int)syscall(SYS_pidfd_open, mover_pid, 0);
}

// False when the VMM runs outside of its cgroup.
static bool reap_mover(void) {
  int status = 0;
  if (mover_pid <= 0) return mover_pid == 0;
  while (waitpid(mover_pid, &status, 0) < 0 && errno == EINTR) {
  }
  mover_pid = 0;
  close(mover_pidfd);
  mover_pidfd = -1;
  return status == 0;
}

static void start_vmm(void) {
  int channel[2] = {-1, -1};
  if (notify_wanted(&options) && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel) < 0) {
    fail("make a socket pair", errno);
  }
  pid_t guardian = getpid();
  vmm_pid = fork();
  if (vmm_pid < 0) fail("fork", errno);
  if (vmm_pid == 0) {
    for (int i = 0; i < options.logs_len; i++) {
      if (options.logs[i].vmm_fd == 2) dup2(options.logs[i].write_fd, 2);
    }
    if (channel[0] >= 0) close(channel[0]);
    const char *step = NULL;
    confine_and_exec(&options, guardian, channel[1], &step);
    dprintf(2, "guardian: cannot %s: %s\n", step, strerror(errno));
    _exit(126);
  }
  vmm_pidfd = (int)syscall(SYS_pidfd_open, vmm_pid, 0);
  if (vmm_pidfd < 0 || !read_start_time(vmm_pid)) {
    int error = errno;
    kill(vmm_pid, SIGKILL);
    waitpid(vmm_pid, NULL, 0);
    fail("find the VMM's process", error);
  }
  for (int i = 0; i < options.listeners_len; i++) close(options.listeners[i].fd);
  for (int i = 0; i < options.logs_len; i++) close(options.logs[i].write_fd);
  // The VMM has its copies. We keep those that we hand out or compare with.
  for (int fd = options.owner_fd + 1; fd <= options.keep_fd_max; fd++) {
    bool kept = fd == options.ram_fd;
    for (int i = 0; i < options.injections_len; i++) kept = kept || fd == options.injections[i].fd;
    if (!kept) close(fd);
  }
  // The owner can connect from here on; the VMM finds the connections when it gets that far.
  for (int i = 0; i < LEASES_MAX; i++) {
    if (leases[i].fd >= 0) say_up(leases[i].fd);
  }
  start_mover();
  if (channel[0] >= 0) {
    close(channel[1]);
    // -1 when the child failed before: its end will tell.
    notify_listener = receive_descriptor(channel[0]);
    close(channel[0]);
  }
}

// --- The lease --------------------------------------------------------------------------------

static void kill_vmm(const char *by) {
  if (strcmp(killed_by, "itself") == 0) killed_by = by;
  syscall(SYS_pidfd_send_signal, vmm_pidfd, SIGKILL, NULL, 0);
}

static void lease_close(struct lease *lease) {
  close(lease->fd);
  lease->fd = -1;
  for (int i = 0; i < LEASES_MAX; i++) {
    if (leases[i].fd >= 0) return;
  }
  if (!options.adoptable || options.orphan_ms == 0) {
    kill_vmm("lease");
  } else if (options.orphan_ms > 0) {
    orphan_deadline_ms = now_ms() + options.orphan_ms;
  }
}

static void lease_accept(void) {
  int fd = accept4(lease_listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) return;
  struct ucred peer;
  socklen_t len = sizeof peer;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && (peer.uid == geteuid() || peer.uid == 0)) {
    for (int i = 0; i < LEASES_MAX; i++) {
      if (leases[i].fd >= 0) continue;
      leases[i] = (struct lease){.fd = fd};
      orphan_deadline_ms = -1;
      say_up(fd);
      return;
    }
  }
  close(fd);
}

static void lease_read(struct lease *lease) {
  ssize_t n = read(lease->fd, lease->line + lease->len, sizeof lease->line - lease->len);
  if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (n <= 0) {
    lease_close(lease);
    return;
  }
  lease->len += (size_t)n;
  char *newline;
  while ((newline = memchr(lease->line, '\n', lease->len)) != NULL) {
    size_t used = (size_t)(newline - lease->line) + 1;
    if (used == 5 && memcmp(lease->line, "kill\n", 5) == 0) kill_vmm("owner");
    memmove(lease->line, lease->line + used, lease->len - used);
    lease->len -= used;
  }
  if (lease->len == sizeof lease->line) lease_close(lease);
}

// --- The end ----------------------------------------------------------------------------------

static void finish(void) {
  int status = 0;
  if (mover_pid > 0) kill(mover_pid, SIGKILL);
  reap_mover();
  while (waitpid(vmm_pid, &status, 0) < 0 && errno == EINTR) {
  }
  char line[256];
  int len = snprintf(line, sizeof line, "exit code=%d signal=%d by=%s", WIFEXITED(status) ? WEXITSTATUS(status) : -1,
                     WIFSIGNALED(status) ? WTERMSIG(status) : 0, killed_by);
  for (int i = 0; i < options.logs_len; i++) {
    log_drain(&options.logs[i]);
    len += snprintf(line + len, sizeof line - (size_t)len, " %s=%zu", options.logs[i].name, options.logs[i].tail_bytes);
  }
  line[len++] = '\n';
  close(lease_listener);
  release_all();
  say_all(line, (size_t)len);
  for (int i = 0; i < options.logs_len; i++) say_all(options.logs[i].tail, options.logs[i].tail_bytes);
}

static void watch(void) {
  for (;;) {
    struct pollfd fds[5 + LOGS_MAX + LEASES_MAX];
    int lease_index[LEASES_MAX];
    int n = 0;
    fds[n++] = (struct pollfd){.fd = vmm_pidfd, .events = POLLIN};
    fds[n++] = (struct pollfd){.fd = lease_listener, .events = POLLIN};
    fds[n++] = (struct pollfd){.fd = notify_listener, .events = POLLIN};
    fds[n++] = (struct pollfd){.fd = mover_pidfd, .events = POLLIN};
    int logs_at = n;
    for (int i = 0; i < options.logs_len; i++) {
      fds[n++] = (struct pollfd){.fd = options.logs[i].read_fd, .events = POLLIN};
    }
    int leases_at = n, leases_len = 0;
    for (int i = 0; i < LEASES_MAX; i++) {
      if (leases[i].fd < 0) continue;
      lease_index[leases_len++] = i;
      fds[n++] = (struct pollfd){.fd = leases[i].fd, .events = POLLIN};
    }
    struct timespec timeout = {0};
    if (orphan_deadline_ms >= 0) {
      int64_t left = orphan_deadline_ms - now_ms();
      if (left > 0) timeout = (struct timespec){.tv_sec = left / 1000, .tv_nsec = left % 1000 * 1000000};
    }
    // SIGTERM is let in only here, so that none is missed.
    sigset_t none;
    sigemptyset(&none);
    if (ppoll(fds, (nfds_t)n, orphan_deadline_ms >= 0 ? &timeout : NULL, &none) < 0) {
      if (errno != EINTR) kill_vmm("guardian");
      for (int i = 0; i < n; i++) fds[i].revents = 0;
    }
    if (terminated) kill_vmm("signal");
    if (orphan_deadline_ms >= 0 && now_ms() >= orphan_deadline_ms) {
      orphan_deadline_ms = -1;
      kill_vmm("grace");
    }
    if (fds[2].revents & POLLIN) {
      notify_answer(&options, notify_listener);
    } else if (fds[2].revents != 0) {
      close(notify_listener);
      notify_listener = -1;
    }
    if (mover_pid < 0 || fds[3].revents != 0) {
      if (!reap_mover()) kill_vmm("cgroup");
      mover_pid = 0;
    }
    for (int i = 0; i < options.logs_len; i++) {
      if (fds[logs_at + i].revents != 0) log_drain(&options.logs[i]);
    }
    if (fds[0].revents != 0) return;
    for (int i = 0; i < leases_len; i++) {
      if (fds[leases_at + i].revents != 0) lease_read(&leases[lease_index[i]]);
    }
    if (fds[1].revents != 0) lease_accept();
  }
}

static void on_terminate(int signal_number) {
  (void)signal_number;
  terminated = 1;
}

int main(int argc, char **argv) {
  char error[128];
  for (int i = 0; i < LEASES_MAX; i++) leases[i].fd = -1;
  bool parsed = options_parse(&options, argc, argv, error, sizeof error);
  if (!parsed) {
    dprintf(2, "guardian: %s\n", error);
    if (options.dir != NULL) rmdir(options.dir);
    if (options.owner_fd >= 0) dprintf(options.owner_fd, "fail errno=%d step=read the options: %s\n", EINVAL, error);
    return 2;
  }
  setsid();
  umask(077);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGHUP, SIG_IGN);
  signal(SIGINT, SIG_IGN);
  struct sigaction terminate = {.sa_handler = on_terminate};
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  sigprocmask(SIG_BLOCK, &blocked, NULL);
  sigaction(SIGTERM, &terminate, NULL);

  leases[0].fd = options.owner_fd;
  if (fcntl(options.owner_fd, F_SETFD, FD_CLOEXEC) < 0) fail("use the owner's descriptor", errno);
  close_range((unsigned)options.keep_fd_max + 1, ~0U, 0);
  dir_fd = open(options.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
  if (dir_fd < 0) fail("open the run directory", errno);

  lease_listener = listen_at(LEASE_NAME);
  if (lease_listener < 0) fail("listen for leases", errno);
  for (int i = 0; i < options.listeners_len; i++) {
    options.listeners[i].fd = listen_at(options.listeners[i].name);
    if (options.listeners[i].fd < 0) fail("make a socket in the run directory", errno);
  }
  for (int i = 0; i < options.logs_len; i++) {
    if (log_open(&options.logs[i], dir_fd) < 0) fail("make a log file", errno);
  }
  make_cgroups();
  start_vmm();
  watch();
  finish();
  return 0;
}
