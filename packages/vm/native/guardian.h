// What the guardian's parts share: the options, and helpers that name what went wrong.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
  LISTENERS_MAX = 16,
  LOGS_MAX = 4,
  CGROUPS_MAX = 4,
  CGROUP_SETTINGS_MAX = 8,
  INJECTIONS_MAX = 4,
  LEASES_MAX = 16,
  TAIL_BYTES_MAX = 4096,         // of each log, sent with the exit
  LOG_BYTES_MAX = 256 * 1024,    // of each log, on disk
  NAME_BYTES_MAX = 32,           // of a file in the run directory
  REQUEST_BYTES_MAX = 64,        // of a line from an owner
  OPEN_FILES_MAX = 1024,         // of the VMM
  CGROUP_WAIT_MS_MAX = 512,      // the longest of the pauses, which double
};

// A Unix socket in the run directory that the VMM gets as a listening descriptor.
struct listener {
  const char *name;
  int vmm_fd;
  int fd;
};

// An output of the VMM that goes through us, so that a guest cannot fill the host's disk with it.
struct log {
  const char *name;
  int vmm_fd;
  int read_fd;
  int write_fd;
  int file_fd;
  size_t file_bytes;
  size_t tail_bytes;
  char tail[TAIL_BYTES_MAX];
};

// When the VMM opens `path` for reading and writing, it is given `fd` instead.
struct injection {
  const char *path;
  int fd;
};

struct options {
  const char *dir;
  int owner_fd;
  int keep_fd_max; // descriptors from owner_fd + 1 up to this one go to the VMM
  bool adoptable;
  int64_t orphan_ms; // -1: no limit
  bool change_user;
  uid_t uid;
  int ram_fd; // -1, or a template's memory which the VMM maps privately
  struct listener listeners[LISTENERS_MAX];
  int listeners_len;
  struct log logs[LOGS_MAX];
  int logs_len;
  const char *cgroups[CGROUPS_MAX];
  int cgroups_len;
  const char *cgroup_settings[CGROUP_SETTINGS_MAX]; // FILE=VALUE
  int cgroup_settings_len;
  struct injection injections[INJECTIONS_MAX];
  int injections_len;
  char **vmm_argv;
};

// options.c
bool options_parse(struct options *o, int argc, char **argv, char *error, size_t error_len);

// confine.c: what the child does between fork and exec. Returns only when a step failed, with its
// name in *step and errno set.
void confine_and_exec(const struct options *o, pid_t guardian, int notify_channel, const char **step);

// notify.c: system calls of the VMM that the guardian answers.
bool notify_wanted(const struct options *o);
int notify_install(const struct options *o); // in the child; the listener, or -1
void notify_answer(const struct options *o, int listener);

// log.c
int log_open(struct log *log, int dir_fd);
void log_drain(struct log *log);
