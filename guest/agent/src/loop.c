#include "loop.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define EVENTS_MAX 64

static int epoll_fd = -1;
static bool stopping;
static struct list tasks = LIST_INIT(tasks);
static struct list timers = LIST_INIT(timers); /* few: kept unsorted */
static struct epoll_event events[EVENTS_MAX];
static int events_at, events_count;

void loop_init(void) {
  epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  if (epoll_fd < 0) fatal("epoll_create1: %s", strerror(errno));
}

void loop_stop(void) { stopping = true; }

void loop_close(void) { close_fd(&epoll_fd); }

int source_add(struct source *source, int fd, uint32_t wanted, void (*ready)(struct source *, uint32_t)) {
  struct epoll_event event = {.events = wanted | EPOLLET, .data.ptr = source};
  source->ready = ready;
  source->fd = -1;
  if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event)) return -errno;
  source->fd = fd;
  return 0;
}

void source_remove(struct source *source) {
  if (source->fd < 0) return;
  epoll_ctl(epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
  source->fd = -1;
  /* An event of this round may still name it. */
  for (int i = events_at; i < events_count; i++)
    if (events[i].data.ptr == source) events[i].data.ptr = NULL;
}

void task_init(struct task *task, void (*run)(struct task *)) {
  list_init(&task->link);
  task->run = run;
}

void task_queue(struct task *task) {
  if (list_empty(&task->link)) list_add(&tasks, &task->link);
}

void task_cancel(struct task *task) { list_remove(&task->link); }

void timer_init(struct timer *timer, void (*run)(struct timer *)) {
  list_init(&timer->link);
  timer->run = run;
}

void timer_set(struct timer *timer, uint64_t delay_ns) {
  uint64_t now = now_ns();
  timer->deadline_ns = delay_ns > UINT64_MAX - now ? UINT64_MAX : now + delay_ns;
  if (list_empty(&timer->link)) list_add(&timers, &timer->link);
}

void timer_cancel(struct timer *timer) { list_remove(&timer->link); }

/* Until the next timer, rounded up, in ms; -1 for ever. */
static int next_timeout_ms(void) {
  uint64_t first = UINT64_MAX;
  for (struct list *at = timers.next; at != &timers; at = at->next)
    first = MIN(first, container_of(at, struct timer, link)->deadline_ns);
  if (first == UINT64_MAX) return -1;
  uint64_t now = now_ns();
  if (first <= now) return 0;
  return (int)MIN((first - now + 999999) / 1000000, 60000u);
}

static void run_timers(void) {
  uint64_t now = now_ns();
  for (;;) {
    struct timer *due = NULL;
    for (struct list *at = timers.next; at != &timers; at = at->next) {
      struct timer *timer = container_of(at, struct timer, link);
      if (timer->deadline_ns <= now && (!due || timer->deadline_ns < due->deadline_ns)) due = timer;
    }
    if (!due) return;
    list_remove(&due->link);
    due->run(due);
  }
}

/* Those that are queued now; what they queue waits for the next round. */
static void run_tasks(void) {
  struct list round = LIST_INIT(round);
  if (list_empty(&tasks)) return;
  round = tasks;
  round.next->prev = round.prev->next = &round;
  list_init(&tasks);
  while (!list_empty(&round)) {
    struct task *task = container_of(round.next, struct task, link);
    list_remove(&task->link);
    task->run(task);
  }
}

void loop_turn(bool wait) {
  int timeout = wait && list_empty(&tasks) ? next_timeout_ms() : 0;
  events_count = epoll_wait(epoll_fd, events, EVENTS_MAX, timeout);
  if (events_count < 0 && errno != EINTR) fatal("epoll_wait: %s", strerror(errno));
  for (events_at = 0; events_at < events_count;) {
    struct epoll_event *event = &events[events_at++];
    struct source *source = event->data.ptr;
    if (source) source->ready(source, event->events);
  }
  events_at = events_count = 0;
  if (!list_empty(&timers)) run_timers();
  run_tasks();
}

void loop_run(void) {
  while (!stopping) loop_turn(true);
}
