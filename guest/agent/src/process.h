/*
 * Process objects: Spawn and ExecIn, from the fork to the release.
 *
 *   starting ── exec succeeded ──▶ running ── exited ──▶ ended
 *       │                             ▲
 *       └── launching (adopt_pid_file): exec succeeded, the launcher runs; it exits with 0 and the
 *           process it left behind takes its place, or it fails and the object ends with its status
 */
#pragma once

#include "batch.h"
#include "child.h"
#include "launch.h"
#include "object.h"

struct console; /* console.c */

struct process {
  struct object object;
  struct child child;
  struct op_wait wait; /* the operation that started it */
  int pidfd;
  int terminal; /* the master end, for Resize; -1 */
  TtySize size;
  bool has_size;
  bool group_may_live; /* the leader was reaped, others of its group were alive then */

  /* Until it runs. */
  struct source report; /* launch.h */
  bool holds_statuses;
  bool doomed; /* released before its pid was known */
  char *adopt_pid_file;
  struct console *console;
};

/* Makes the object and forks. `launch` needs only what the operation says. */
enum op_state process_start(struct op_context *context, OpResult *result, const Spawn *spawn, struct launch *launch);
struct process *process_new(const char *id);
/* Of a process object that runs; 0: there is none of this name, or it has ended. */
int32_t process_pid(const char *id);
/* Releasing an ended process leaves the rest of its group alone. */
void process_keep_group(const char *id);
/* Takes the launch's report socket; `pid` 0: it will be reported. -errno or 0. */
int process_watch_launch(struct process *process, int report, pid_t pid);
/* The terminal's channels, once its master end is there; takes the descriptor. -errno or 0. */
int process_open_terminal(struct process *process, int master, bool input);

/* Listens on `path` until a launcher sent a terminal. -errno or 0. */
int console_open(struct process *process, const char *path, bool input);
/* The launcher is gone: takes what it sent, if anything. False when there is no terminal. */
bool console_settle(struct process *process);
void console_close(struct process *process);
