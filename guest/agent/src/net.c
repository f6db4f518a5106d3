/* Connect and Listen: TCP, Unix and vsock connections as objects. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "object.h"
#include "ops.h"

union address {
  struct sockaddr any;
  struct sockaddr_in in;
  struct sockaddr_in6 in6;
  struct sockaddr_un un;
  struct sockaddr_vm vm;
  struct sockaddr_storage storage;
};

/* --- Addresses ------------------------------------------------------------------------------- */

static int tcp_address(const TcpAddress *tcp, union address *address, socklen_t *size) {
  const char *host = msg_string(tcp->host);
  if (tcp->port > 65535) return EINVAL;
  if (inet_pton(AF_INET, host, &address->in.sin_addr) == 1) {
    address->in.sin_family = AF_INET;
    address->in.sin_port = htons((uint16_t)tcp->port);
    *size = sizeof address->in;
  } else if (inet_pton(AF_INET6, host, &address->in6.sin6_addr) == 1) {
    address->in6.sin6_family = AF_INET6;
    address->in6.sin6_port = htons((uint16_t)tcp->port);
    *size = sizeof address->in6;
  } else {
    return EINVAL;
  }
  return 0;
}

static int unix_address(const char *path, union address *address, socklen_t *size) {
  if (!*path) return EINVAL;
  if (strlen(path) >= sizeof address->un.sun_path) return ENAMETOOLONG;
  address->un.sun_family = AF_UNIX;
  strcpy(address->un.sun_path, path);
  *size = sizeof address->un;
  return is_in_fuse_relay(path) ? EDEADLK : 0;
}

static void vsock_address(const VsockAddress *vsock, bool listen, union address *address, socklen_t *size) {
  address->vm.svm_family = AF_VSOCK;
  address->vm.svm_cid = listen && !vsock->cid ? VMADDR_CID_ANY : vsock->cid;
  address->vm.svm_port = listen && !vsock->port ? VMADDR_PORT_ANY : vsock->port;
  *size = sizeof address->vm;
}

static void name_address(const union address *address, char *text, size_t size) {
  char host[INET6_ADDRSTRLEN];
  switch (address->any.sa_family) {
    case AF_INET:
      inet_ntop(AF_INET, &address->in.sin_addr, host, sizeof host);
      snprintf(text, size, "%s:%u", host, ntohs(address->in.sin_port));
      break;
    case AF_INET6:
      inet_ntop(AF_INET6, &address->in6.sin6_addr, host, sizeof host);
      snprintf(text, size, "[%s]:%u", host, ntohs(address->in6.sin6_port));
      break;
    case AF_VSOCK: snprintf(text, size, "vsock %u:%u", address->vm.svm_cid, address->vm.svm_port); break;
    case AF_UNIX: snprintf(text, size, "unix %s", address->un.sun_path); break;
    default: snprintf(text, size, "unknown");
  }
  utf8_sanitize(text); /* a peer's path can be any bytes */
}

/* --- Connections ----------------------------------------------------------------------------- */

struct connection {
  struct object object;
  struct op_wait wait; /* the Connect; none for an accepted one */
  struct source connecting;
  struct timer timer;
  char name[150];
};

static void connection_release(struct object *object) {
  struct connection *connection = container_of(object, struct connection, object);
  int fd = connection->connecting.fd;
  source_remove(&connection->connecting);
  close_fd(&fd);
  timer_cancel(&connection->timer);
  if (connection->wait.batch) batch_op_failed(&connection->wait, ECANCELED, "connection %s was released", object->id);
  free(connection);
}

/* It has ended when nothing moves in either direction any more. */
static void connection_channel_ended(struct object *object, struct channel *channel) {
  struct channel *input = object->channels[0], *output = object->channels[1];
  if (!input || !output || object->ended) return;
  bool input_over = input->end_done || input->broken;
  if (channel->error || (input_over && output->eof)) {
    struct outcome outcome = {.code = channel->error};
    if (channel->error) snprintf(outcome.error, sizeof outcome.error, "%s", strerror(channel->error));
    if (channel->error && !input->broken) channel_break(input);
    object_end(object, &outcome);
  }
}

static const struct object_type connection_type = {.kind = ObjectInfo_Kind_KIND_CONNECTION,
                                                   .release = connection_release,
                                                   .channel_ended = connection_channel_ended};

static struct connection *connection_new(const char *id) {
  struct connection *connection = xcalloc(1, sizeof *connection);
  object_init(&connection->object, &connection_type, id);
  connection->connecting.fd = -1;
  list_init(&connection->timer.link);
  channel_output(&connection->object, 1, -1);
  channel_input(&connection->object, -1, END_SHUTDOWN);
  return connection;
}

/* Takes the descriptor. -errno or 0. */
static int connection_open(struct connection *connection, int fd) {
  int one = 1, other = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); /* other families refuse, rightly */
  int error = channel_open(connection->object.channels[1], fd);
  if (other < 0) return -EMFILE;
  int second = channel_open(connection->object.channels[0], other);
  return error ? error : second;
}

static void connect_failed(struct connection *connection, int error) {
  batch_op_failed(&connection->wait, error, "connect to %s", connection->name);
  object_release(&connection->object);
}

static void connected(struct connection *connection, int fd) {
  OpResult result = {0};
  int error = connection_open(connection, fd);
  if (error) {
    connect_failed(connection, -error);
    return;
  }
  batch_op_done(&connection->wait, &result);
}

static void connecting_ready(struct source *source, uint32_t events) {
  struct connection *connection = container_of(source, struct connection, connecting);
  int error = 0, fd = source->fd;
  socklen_t size = sizeof error;
  if (!(events & (EPOLLOUT | EPOLLERR | EPOLLHUP))) return;
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size)) error = errno;
  timer_cancel(&connection->timer);
  source_remove(source);
  if (!error) {
    connected(connection, fd);
    return;
  }
  close(fd);
  connect_failed(connection, error);
}

static void connect_timed_out(struct timer *timer) {
  connect_failed(container_of(timer, struct connection, timer), ETIMEDOUT);
}

enum op_state op_connect(struct op_context *context, const Connect *op, OpResult *result) {
  const char *id = msg_string(op->id);
  union address address = {0};
  socklen_t size = 0;
  int error = object_check_id(id);
  if (error) return op_fail(context, result, error, "connect %s", id);
  if (op->which_address == Connect_tcp_tag) error = tcp_address(&op->address.tcp, &address, &size);
  else if (op->which_address == Connect_unix_path_tag) error = unix_address(op->address.unix_path, &address, &size);
  else if (op->which_address == Connect_vsock_tag) vsock_address(&op->address.vsock, false, &address, &size);
  else error = EDESTADDRREQ;
  if (error) return op_fail(context, result, error, "connect %s", id);
  char name[150];
  name_address(&address, name, sizeof name);
  int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return op_fail(context, result, errno, "connect to %s", name);
  int refused = connect(fd, &address.any, size) ? errno : 0;
  if (refused && refused != EINPROGRESS) {
    close(fd);
    return op_fail(context, result, refused, "connect to %s", name);
  }
  struct connection *connection = connection_new(id);
  strcpy(connection->name, name);
  timer_init(&connection->timer, connect_timed_out);
  error = refused ? source_add(&connection->connecting, fd, EPOLLOUT, connecting_ready) : connection_open(connection, fd);
  if (error) {
    if (refused) close(fd);
    object_release(&connection->object);
    return op_fail(context, result, error, "connect to %s", name);
  }
  if (!refused) return OP_DONE;
  timer_set(&connection->timer, (op->timeout_ms ? op->timeout_ms : CONNECT_TIMEOUT_MS_DEFAULT) * UINT64_C(1000000));
  return op_pending(context, &connection->wait);
}

/* --- Listeners ------------------------------------------------------------------------------- */

#define ANNOUNCE_ROOM 512u /* one Accepted */

struct listener {
  struct object object;
  struct list link;
  uint64_t accepted;
  char unix_path[sizeof(((struct sockaddr_un *)0)->sun_path)];
};

static struct list listeners = LIST_INIT(listeners);

static void listener_release(struct object *object) {
  struct listener *listener = container_of(object, struct listener, object);
  if (*listener->unix_path) unlink(listener->unix_path);
  list_remove(&listener->link);
  free(listener);
}

static const struct object_type listener_type = {.kind = ObjectInfo_Kind_KIND_LISTENER, .release = listener_release};

/* Those that stopped because the table was full. */
static void accept_again(void) {
  for (struct list *at = listeners.next; at != &listeners; at = at->next) {
    struct channel *channel = container_of(at, struct listener, link)->object.channels[1];
    if (channel && channel->ready) task_queue(&channel->task);
  }
}

static void announce(struct listener *listener, int fd, const union address *peer) {
  char id[OBJECT_ID_SIZE], name[150];
  struct buf encoded = {0};
  snprintf(id, sizeof id, "%.*s/%llu", (int)OBJECT_ID_MAX, listener->object.id, (unsigned long long)++listener->accepted);
  name_address(peer, name, sizeof name);
  if (object_find(id)) { /* the host gave this very name to something else */
    warn("connection %s is refused: the name is taken", id);
    close(fd);
    return;
  }
  struct connection *connection = connection_new(id);
  int error = connection_open(connection, fd);
  if (error) {
    warn("connection %s: %s", id, strerror(-error));
    object_release(&connection->object);
    return;
  }
  Accepted accepted = {.id = id, .peer = name};
  msg_encode_delimited(&encoded, &Accepted_msg, &accepted);
  channel_push(listener->object.channels[1], encoded.data, encoded.size);
  buf_free(&encoded);
}

static void accept_all(struct channel *channel) {
  struct listener *listener = container_of(channel->object, struct listener, object);
  while (channel->ready && objects_may_be_accepted() && channel_has_room(channel, ANNOUNCE_ROOM)) {
    union address peer = {0};
    socklen_t size = sizeof peer;
    int fd = accept4(channel->fd, &peer.any, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) announce(listener, fd, &peer);
    else if (errno == EAGAIN) channel->ready = false;
    else if (errno != EINTR && errno != ECONNABORTED) { /* no descriptors: again when an object is released */
      warn("accept for %s: %s", channel->object->id, strerror(errno));
      return;
    }
  }
}

static uint32_t bound_port(int fd) {
  union address address = {0};
  socklen_t size = sizeof address;
  if (getsockname(fd, &address.any, &size)) return 0;
  if (address.any.sa_family == AF_INET) return ntohs(address.in.sin_port);
  if (address.any.sa_family == AF_INET6) return ntohs(address.in6.sin6_port);
  return address.any.sa_family == AF_VSOCK ? address.vm.svm_port : 0;
}

enum op_state op_listen(struct op_context *context, const Listen *op, OpResult *result) {
  const char *id = msg_string(op->id);
  union address address = {0};
  socklen_t size = 0;
  char name[150];
  int one = 1, error = object_check_id(id);
  if (error) return op_fail(context, result, error, "listen %s", id);
  if (op->which_address == Listen_tcp_tag) error = tcp_address(&op->address.tcp, &address, &size);
  else if (op->which_address == Listen_unix_path_tag) error = unix_address(op->address.unix_path, &address, &size);
  else if (op->which_address == Listen_vsock_tag) vsock_address(&op->address.vsock, true, &address, &size);
  else error = EDESTADDRREQ;
  if (error) return op_fail(context, result, error, "listen %s", id);
  name_address(&address, name, sizeof name);
  int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return op_fail(context, result, errno, "listen on %s", name);
  if (op->which_address == Listen_tcp_tag) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  bool is_bound = !bind(fd, &address.any, size);
  if (!is_bound || listen(fd, op->backlog ? (int)MIN(op->backlog, LISTEN_BACKLOG_MAX) : 128)) {
    error = errno;
    close(fd);
    if (is_bound && op->which_address == Listen_unix_path_tag) unlink(address.un.sun_path);
    return op_fail(context, result, error, "listen on %s", name);
  }
  struct listener *listener = xcalloc(1, sizeof *listener);
  object_init(&listener->object, &listener_type, id);
  list_add(&listeners, &listener->link);
  objects_have_room = accept_again;
  if (op->which_address == Listen_unix_path_tag) strcpy(listener->unix_path, address.un.sun_path);
  result->which_result = OpResult_listen_tag;
  result->result.listen.port = bound_port(fd);
  struct channel *channel = channel_output(&listener->object, 1, fd);
  if (!channel) {
    object_release(&listener->object);
    *result = (OpResult){0};
    return op_fail(context, result, EMFILE, "listen on %s", name);
  }
  channel->fill = accept_all;
  return OP_DONE;
}
