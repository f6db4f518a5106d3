/*
 * The event loop: one thread, one epoll.
 *
 * Descriptors are watched edge-triggered. Their owner remembers "readable" and "writable" and goes
 * on until EAGAIN; an owner with more to do than its share asks for another turn with a task. So a
 * descriptor that is ready but not wanted (a pipe whose ring is full) costs nothing.
 */
#pragma once

#include <sys/epoll.h>

#include "util.h"

struct source {
  void (*ready)(struct source *source, uint32_t events);
  int fd; /* -1: not watched */
};

struct task {
  struct list link;
  void (*run)(struct task *task);
};

struct timer {
  struct list link;
  uint64_t deadline_ns;
  void (*run)(struct timer *timer);
};

void loop_init(void);
/* Ends when loop_stop() was called. */
void loop_run(void);
void loop_stop(void);
void loop_turn(bool wait); /* one round of it */
void loop_close(void);

/* EPOLLET is added. -errno or 0. */
int source_add(struct source *source, int fd, uint32_t events, void (*ready)(struct source *, uint32_t));
/* Does not close the descriptor. The source may be freed at once. */
void source_remove(struct source *source);

void task_init(struct task *task, void (*run)(struct task *));
void task_queue(struct task *task); /* runs once, soon; again is the same as once */
void task_cancel(struct task *task);

void timer_init(struct timer *timer, void (*run)(struct timer *));
void timer_set(struct timer *timer, uint64_t delay_ns);
void timer_cancel(struct timer *timer);
