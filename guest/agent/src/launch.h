/*
 * What happens between fork and exec, for Spawn and for ExecIn.
 *
 * The child tells its parent through a close-on-exec socket: an error and where it happened, the pid
 * of the process it started in its place, or a terminal's master end (as ancillary data). The end of
 * the socket without an error means that exec succeeded.
 */
#pragma once

#include "msg.h"

enum report_kind { REPORT_PID = 1, REPORT_ERROR = 2, REPORT_TERMINAL = 3 };

struct report {
  int32_t kind;
  int32_t value;   /* pid or errno */
  char what[120];  /* of an error */
};

struct launch {
  char *const *argv, *const *env;
  const char *cwd;
  uint32_t uid, gid;
  const uint32_t *groups;
  size_t groups_count;
  int stdio[3]; /* all the same descriptor: a terminal, which becomes the controlling one */
  bool tty;
  const TtySize *size; /* of a terminal that the child opens; NULL: none given */
  int report_fd;
  const struct exec_in *exec_in; /* NULL: Spawn */
};

/* ExecIn's part, prepared before the fork. */
struct exec_in {
  int32_t target_pid;
  int pidfd;
  int cgroup_fd; /* cgroup.procs, or -1 */
  uint64_t capabilities;
  bool keep_all_capabilities, no_new_privs;
  const Rlimit *rlimits;
  size_t rlimits_count;
  const struct seccomp_filter *seccomp; /* NULL: none */
};

struct seccomp_filter {
  uint16_t count; /* instructions */
  const void *instructions;
};

/* 0 or -errno; `fd` -1: none goes with it. */
int report_send(int socket, const struct report *report, int fd);
/* As recv(); `fd` is -1 or a descriptor that came with it. */
ssize_t report_receive(int socket, struct report *report, int *fd);

_Noreturn void launch_child(const struct launch *launch);
_Noreturn void launch_failed(const struct launch *launch, int error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void launch_set_ids(const struct launch *launch);
/* The parts of ExecIn around the common one; see exec_in.c. */
void exec_in_enter(const struct launch *launch);
/* Opens a terminal of the container's and sends its master end; the descriptor for stdio. */
int exec_in_open_terminal(const struct launch *launch);
void exec_in_confine(const struct launch *launch);
