/*
 * Network namespaces, and netlink inside of them: sends messages as they are and collects the answers.
 *
 * The last message of the request says how the end is known: it asks for an acknowledgement, or is a
 * dump. The kernel answers most families before send() returns; the few others are waited for.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "limits.h"
#include "loop.h"
#include "ops.h"

#define RECEIVE_SIZE (64u << 10)

struct exchange {
  struct op_wait wait;
  struct source source;
  struct timer timer;
  int fd;
  uint32_t last_sequence;
  struct buf reply;
};

/* Walks the messages of the request. 0 or EINVAL. */
static int check_request(const uint8_t *data, size_t size, uint32_t *last_sequence) {
  struct nlmsghdr header = {0};
  size_t at = 0;
  while (at < size) {
    if (size - at < sizeof header) return EINVAL;
    memcpy(&header, data + at, sizeof header);
    if (header.nlmsg_len < sizeof header || header.nlmsg_len > size - at) return EINVAL;
    at += NLMSG_ALIGN(header.nlmsg_len);
  }
  bool ends = (header.nlmsg_flags & NLM_F_ACK) || (header.nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP;
  *last_sequence = header.nlmsg_seq;
  return size && ends ? 0 : EINVAL;
}

/* Not <sys/mount.h>: it does not go together with <linux/mount.h> everywhere. */
int mount(const char *, const char *, const char *, unsigned long, const void *);
#define MS_BIND_FLAG 4096

/* A descriptor of the namespace that the operation names, or -errno. */
static int open_namespace(const Netlink *op) {
  int fd = msg_is_set(op->netns_path) ? open(op->netns_path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)
                                      : (int)syscall(SYS_pidfd_open, (pid_t)op->netns_pid, 0);
  return fd < 0 ? -errno : fd;
}

static int open_home(void) {
  int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
  return home < 0 ? -errno : home;
}

static void return_home(int home) {
  if (setns(home, CLONE_NEWNET)) fatal("return to our network namespace: %s", strerror(errno));
}

static int open_socket(uint32_t protocol) {
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, (int)protocol);
  return fd < 0 ? -errno : fd;
}

/* A socket belongs to the namespace it was made in: we go there for one call. */
static int open_in(const Netlink *op) {
  if (op->netns_pid <= 0 && !msg_is_set(op->netns_path)) return open_socket(op->protocol);
  int home = open_home();
  if (home < 0) return home;
  int namespace = open_namespace(op), fd = namespace;
  if (namespace >= 0 && setns(namespace, CLONE_NEWNET)) {
    fd = -errno;
  } else if (namespace >= 0) {
    fd = open_socket(op->protocol);
    return_home(home);
  }
  close_fd(&namespace);
  close(home);
  return fd;
}

enum op_state op_net_namespace(struct op_context *context, const NetNamespace *op, OpResult *result) {
  const char *path = msg_string(op->path);
  int error = check_path(path), home = -1;
  int pin = error ? -1 : open(path, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (!error && pin < 0) error = errno;
  if (!error && (home = open_home()) < 0) error = -home;
  if (!error && unshare(CLONE_NEWNET)) error = errno;
  else if (!error) {
    if (mount("/proc/self/ns/net", path, NULL, MS_BIND_FLAG, NULL)) error = errno;
    return_home(home);
  }
  if (error && pin >= 0) unlink(path);
  if (pin >= 0) close(pin);
  if (home >= 0) close(home);
  return error ? op_fail(context, result, error, "network namespace at %.300s", path) : OP_DONE;
}

static void exchange_free(struct exchange *exchange) {
  source_remove(&exchange->source);
  timer_cancel(&exchange->timer);
  close_fd(&exchange->fd);
  buf_free(&exchange->reply);
  free(exchange);
}

/* Whether these received messages hold the answer to the last one. */
static bool holds_end(const uint8_t *data, size_t size, uint32_t last_sequence) {
  for (size_t at = 0; size - at >= sizeof(struct nlmsghdr);) {
    struct nlmsghdr header;
    memcpy(&header, data + at, sizeof header);
    if (header.nlmsg_len < sizeof header || header.nlmsg_len > size - at) return false;
    bool ends = header.nlmsg_type == NLMSG_DONE || header.nlmsg_type == NLMSG_ERROR;
    if (ends && header.nlmsg_seq == last_sequence) return true;
    if (NLMSG_ALIGN(header.nlmsg_len) >= size - at) return false;
    at += NLMSG_ALIGN(header.nlmsg_len);
  }
  return false;
}

/* 0: complete, EAGAIN: more is to come, otherwise the errno. */
static int collect(struct exchange *exchange) {
  for (;;) {
    buf_reserve(&exchange->reply, RECEIVE_SIZE);
    uint8_t *at = exchange->reply.data + exchange->reply.size;
    ssize_t size = recv(exchange->fd, at, RECEIVE_SIZE, MSG_TRUNC);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return errno;
    if (size > (ssize_t)RECEIVE_SIZE || exchange->reply.size + (size_t)size > NETLINK_REPLY_MAX) return EMSGSIZE;
    exchange->reply.size += (size_t)size;
    if (holds_end(at, (size_t)size, exchange->last_sequence)) return 0;
  }
}

static void exchange_ready(struct source *source, uint32_t events) {
  struct exchange *exchange = container_of(source, struct exchange, source);
  (void)events;
  int error = exchange->wait.batch ? collect(exchange) : ECANCELED;
  if (error == EAGAIN) return;
  OpResult result = {.which_result = OpResult_data_tag,
                     .result.data = {.data = {exchange->reply.data, exchange->reply.size}, .eof = true}};
  if (error) batch_op_failed(&exchange->wait, error, "netlink answer");
  else batch_op_done(&exchange->wait, &result);
  exchange_free(exchange);
}

static void exchange_timed_out(struct timer *timer) {
  struct exchange *exchange = container_of(timer, struct exchange, timer);
  batch_op_failed(&exchange->wait, ETIMEDOUT, "netlink answer");
  exchange_free(exchange);
}

enum op_state op_netlink(struct op_context *context, const Netlink *op, OpResult *result) {
  uint32_t last_sequence = 0;
  if (check_request(op->request.data, op->request.size, &last_sequence))
    return op_fail(context, result, EINVAL, "netlink request that is malformed, or whose last message has neither NLM_F_ACK nor NLM_F_DUMP");
  int fd = open_in(op);
  if (fd < 0)
    return op_fail(context, result, fd, "netlink socket of protocol %u (namespace %.300s of process %d)", op->protocol,
                   msg_string(op->netns_path), op->netns_pid);
  struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
  int buffer = NETLINK_REPLY_MAX;
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
  if (sendto(fd, op->request.data, op->request.size, 0, (struct sockaddr *)&kernel, sizeof kernel) < 0) {
    int error = errno;
    close(fd);
    return op_fail(context, result, error, "send a netlink request");
  }
  struct exchange *exchange = xcalloc(1, sizeof *exchange);
  exchange->fd = fd;
  exchange->source.fd = -1;
  exchange->last_sequence = last_sequence;
  timer_init(&exchange->timer, exchange_timed_out);
  int error = collect(exchange);
  if (error == EAGAIN) {
    error = source_add(&exchange->source, fd, EPOLLIN, exchange_ready);
    if (!error) {
      timer_set(&exchange->timer, NETLINK_TIMEOUT_MS * UINT64_C(1000000));
      return op_pending(context, &exchange->wait);
    }
  }
  if (!error) {
    uint8_t *copy = arena_take(context->arena, exchange->reply.size + 1);
    if (copy) memcpy(copy, exchange->reply.data, exchange->reply.size);
    else error = EMSGSIZE;
    result->which_result = copy ? OpResult_data_tag : 0;
    result->result.data = (DataResult){.data = {copy, exchange->reply.size}, .eof = true};
  }
  exchange_free(exchange);
  return error ? op_fail(context, result, error, "netlink answer") : OP_DONE;
}
