/*
 * Children: who is told when a process ends.
 *
 * The agent reaps everything, orphans included. A process can end before anybody knows that it is
 * wanted (a container's init before its pid file was read): while somebody holds the statuses, the
 * exits of unknown processes are kept.
 */
#pragma once

#include "loop.h"

struct child {
  struct list link;
  pid_t pid; /* 0: not watched */
  void (*exited)(struct child *child, int status); /* as waitpid() gives it; not watched any more */
};

/* Blocks SIGCHLD, and what `on_signal` takes, for the agent. */
void children_init(void (*on_signal)(int signal));
void children_close(void);
void child_init(struct child *child);
/* One that was forked just now. */
void child_watch_new(struct child *child, pid_t pid, void (*exited)(struct child *, int));
/* Any other. `exited` may be called before this returns, when the process has ended already. */
void child_watch(struct child *child, pid_t pid, void (*exited)(struct child *, int));
void child_forget(struct child *child);
void statuses_hold(void);
void statuses_release(void);
/* In a forked child: default signals, nothing blocked. */
void child_reset_signals(void);
