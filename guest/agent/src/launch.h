/*
 * What happens between fork and exec, for Spawn and for ExecIn.
 *
 * The child tells its parent through a close-on-exec pipe: an error and where it happened, or the pid
 * of the process it started in its place; the pipe's end without an error means that exec succeeded.
 */
#pragma once

#include "msg.h"

enum report_kind { REPORT_PID = 1, REPORT_ERROR = 2 };

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

_Noreturn void launch_child(const struct launch *launch);
_Noreturn void launch_failed(const struct launch *launch, int error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void launch_set_ids(const struct launch *launch);
/* The two parts of ExecIn around the common one; see exec_in.c. */
void exec_in_enter(const struct launch *launch);
void exec_in_confine(const struct launch *launch);
