#include "child.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "limits.h"

static struct list children = LIST_INIT(children);
static struct source signals = {.fd = -1};
static void (*other_signal)(int signal);
static unsigned holds;
static struct {
  pid_t pid;
  int status;
} orphans[ORPHAN_STATUS_MAX]; /* a ring: the oldest goes first */
static unsigned orphans_at, orphans_count;

static void remember_orphan(pid_t pid, int status) {
  if (!holds) return;
  orphans[orphans_at].pid = pid;
  orphans[orphans_at].status = status;
  orphans_at = (orphans_at + 1) % ORPHAN_STATUS_MAX;
  orphans_count = MIN(orphans_count + 1, ORPHAN_STATUS_MAX);
}

/* The latest exit of this pid. */
static bool take_orphan(pid_t pid, int *status) {
  for (unsigned i = 1; i <= orphans_count; i++) {
    unsigned at = (orphans_at + ORPHAN_STATUS_MAX - i) % ORPHAN_STATUS_MAX;
    if (orphans[at].pid != pid) continue;
    orphans[at].pid = 0;
    *status = orphans[at].status;
    return true;
  }
  return false;
}

void statuses_hold(void) { holds++; }

void statuses_release(void) {
  if (--holds == 0) orphans_count = 0;
}

void child_init(struct child *child) {
  list_init(&child->link);
  child->pid = 0;
}

void child_watch_new(struct child *child, pid_t pid, void (*exited)(struct child *, int)) {
  int status;
  while (take_orphan(pid, &status)) { /* of another process, which had this pid before */
  }
  child->exited = exited;
  child->pid = pid;
  list_add(&children, &child->link);
}

void child_watch(struct child *child, pid_t pid, void (*exited)(struct child *, int)) {
  int status;
  if (take_orphan(pid, &status)) exited(child, status);
  else child_watch_new(child, pid, exited);
}

void child_forget(struct child *child) {
  list_remove(&child->link);
  child->pid = 0;
}

static void reap(void) {
  for (;;) {
    int status;
    pid_t pid = waitpid(-1, &status, WNOHANG);
    if (pid < 0 && errno == EINTR) continue;
    if (pid <= 0) return;
    struct list *at = children.next;
    while (at != &children && container_of(at, struct child, link)->pid != pid) at = at->next;
    if (at == &children) {
      remember_orphan(pid, status);
      continue;
    }
    struct child *child = container_of(at, struct child, link);
    child_forget(child);
    child->exited(child, status);
  }
}

static void signals_ready(struct source *source, uint32_t events) {
  struct signalfd_siginfo info;
  (void)events;
  while (read(source->fd, &info, sizeof info) == sizeof info) {
    if (info.ssi_signo == SIGCHLD) continue; /* several can be one: reap() looks for all */
    if (other_signal) other_signal((int)info.ssi_signo);
  }
  reap();
}

void children_init(void (*on_signal)(int signal)) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  if (on_signal) {
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
  }
  other_signal = on_signal;
  sigprocmask(SIG_BLOCK, &set, NULL);
  signal(SIGPIPE, SIG_IGN);
  int fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
  if (fd < 0) fatal("signalfd: %s", strerror(errno));
  int error = source_add(&signals, fd, EPOLLIN, signals_ready);
  if (error) fatal("watch signals: %s", strerror(-error));
}

void children_close(void) {
  int fd = signals.fd;
  source_remove(&signals);
  close_fd(&fd);
}

void child_reset_signals(void) {
  sigset_t none;
  sigemptyset(&none);
  for (int number = 1; number < NSIG; number++)
    if (number != SIGKILL && number != SIGSTOP) signal(number, SIG_DFL);
  sigprocmask(SIG_SETMASK, &none, NULL);
}
