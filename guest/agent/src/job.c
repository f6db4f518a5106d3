/*
 * Jobs: operations that can block for long run in a forked child, which sends its encoded OpResult
 * through a pipe. At most JOBS_MAX run at a time; the others wait for their turn.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "child.h"
#include "limits.h"
#include "ops.h"

struct job {
  struct list link; /* in `queued` */
  struct op_wait wait;
  struct child child;
  struct source source;
  int fd; /* of the pipe */
  struct buf reply; /* errno, then the OpResult */
  bool exited, complete;
  int status;
  const Op *op; /* of the batch: valid while it waits */
  job_run run;
};

static struct list queued = LIST_INIT(queued);
static unsigned running;

static _Noreturn void job_child(struct job *job, int fd) {
  struct arena arena = {0};
  struct op_context context = {.arena = &arena};
  OpResult result = {0};
  struct buf reply = {0};
  child_reset_signals();
  /* The agent's descriptors must not live longer because of us. */
  if (fd != 3) dup3(fd, 3, O_CLOEXEC);
  close_range(4, ~0u, 0);
  job->run(&context, job->op, &result);
  int32_t error = result.errno_;
  buf_add(&reply, &error, sizeof error);
  msg_encode(&reply, &OpResult_msg, &result);
  write_all(3, reply.data, reply.size);
  _exit(0);
}

static void start_queued(void);

static void finish_when_over(struct job *job) {
  if (!job->exited || !job->complete) return;
  int32_t error = EIO;
  if (job->reply.size >= sizeof error) {
    memcpy(&error, job->reply.data, sizeof error);
    batch_op_done_encoded(&job->wait, error, job->reply.data + sizeof error, job->reply.size - sizeof error);
  } else if (WIFSIGNALED(job->status)) {
    batch_op_failed(&job->wait, EIO, "the operation's process died of signal %d", WTERMSIG(job->status));
  } else {
    batch_op_failed(&job->wait, EIO, "the operation's process gave no result");
  }
  source_remove(&job->source);
  close_fd(&job->fd);
  buf_free(&job->reply);
  free(job);
  running--;
  start_queued();
}

static void job_exited(struct child *child, int status) {
  struct job *job = container_of(child, struct job, child);
  job->exited = true;
  job->status = status;
  finish_when_over(job);
}

static void job_ready(struct source *source, uint32_t events) {
  struct job *job = container_of(source, struct job, source);
  (void)events;
  for (;;) {
    buf_reserve(&job->reply, 64 << 10);
    ssize_t size = read(job->fd, job->reply.data + job->reply.size, job->reply.capacity - job->reply.size);
    if (size > 0 && job->reply.size + (size_t)size <= FRAME_DATA_MAX * 8u) {
      job->reply.size += (size_t)size;
      continue;
    }
    if (size < 0 && errno == EINTR) continue;
    if (size < 0 && errno == EAGAIN) return;
    job->complete = true;
    finish_when_over(job);
    return;
  }
}

/* -errno or 0. */
static int job_fork(struct job *job) {
  int fds[2];
  int error = pipe_cloexec(fds);
  if (error) return error;
  pid_t pid = fork();
  if (pid == 0) job_child(job, fds[1]);
  if (pid < 0) error = -errno;
  close(fds[1]);
  if (!error) {
    fcntl(fds[0], F_SETFL, O_NONBLOCK);
    job->fd = fds[0];
    job->op = NULL;
    running++;
    child_watch_new(&job->child, pid, job_exited);
    /* Only epoll's own limits can fail this; the result is lost then, not the process. */
    if (source_add(&job->source, fds[0], EPOLLIN, job_ready)) job->complete = true;
    return 0;
  }
  close(fds[0]);
  return error;
}

static void start_queued(void) {
  while (running < JOBS_MAX && !list_empty(&queued)) {
    struct job *job = container_of(queued.next, struct job, link);
    list_remove(&job->link);
    int error = job->wait.batch ? job_fork(job) : -ECANCELED;
    if (!error) continue;
    batch_op_failed(&job->wait, -error, "fork");
    free(job);
  }
}

/* Those that nobody asks for any more. Each epoch could leave some behind jobs that hang. */
static void drop_abandoned(void) {
  for (struct list *at = queued.next, *next; at != &queued; at = next) {
    struct job *job = container_of(at, struct job, link);
    next = at->next;
    if (job->wait.batch) continue;
    list_remove(&job->link);
    free(job);
  }
}

enum op_state job_start(struct op_context *context, const Op *op, job_run run) {
  drop_abandoned();
  struct job *job = xcalloc(1, sizeof *job);
  list_init(&job->link);
  child_init(&job->child);
  job->source.fd = job->fd = -1;
  job->op = op;
  job->run = run;
  list_add(&queued, &job->link);
  op_pending(context, &job->wait);
  start_queued();
  return OP_PENDING;
}
