#define _GNU_SOURCE
#include "link.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "call.h"
#include "limits.h"
#include "loop.h"
#include "stream.h"

static struct {
  struct source source, listener;
  struct task work;
  bool is_port;
  bool up, open;
  bool readable, writable;
  bool hung_up;    /* a port whose host was seen to be gone since the last Hello */
  bool rx_stalled; /* frames wait for room in tx */
  uint64_t epoch;
  uint8_t secret[SECRET_SIZE];
  uint8_t nonce[NONCE_SIZE]; /* of the epoch's Hello */
  struct buf rx, tx;
  size_t rx_done; /* bytes of rx that were dispatched */
  size_t tx_done; /* bytes of tx that were written */
} host = {.source.fd = -1, .listener.fd = -1};

static size_t tx_pending(void) { return host.tx.size - host.tx_done; }

bool link_has_room(void) { return host.open && host.writable && tx_pending() < PORT_DIRECT_MIN; }

void link_wake(void) { task_queue(&host.work); }

static void tx_compact(void) {
  if (host.tx_done == host.tx.size) host.tx_done = host.tx.size = 0;
  if (!host.tx.size && host.tx.capacity > TX_PAUSE_HIGH) buf_free(&host.tx);
  if (host.tx_done > TX_COMPACT_MIN && host.tx_done > host.tx.size / 2) {
    buf_drop_front(&host.tx, host.tx_done);
    host.tx_done = 0;
  }
}

static void flush(void);

/* One call; a short write is not an error. */
static ssize_t write_some(struct iovec *pieces, int count) {
  struct msghdr message = {.msg_iov = pieces, .msg_iovlen = (size_t)count};
  return host.is_port ? writev(host.source.fd, pieces, count) : sendmsg(host.source.fd, &message, MSG_NOSIGNAL);
}

void link_send_data(struct iovec *pieces, int count) {
  /* A port makes a message to the host of every piece: small ones are cheaper in one. */
  bool direct = pieces[count - 1].iov_len >= PORT_DIRECT_MIN;
  if (direct) flush();
  direct = direct && host.writable && !tx_pending();
  while (count && direct) {
    ssize_t written = write_some(pieces, count);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) host.writable = direct = false;
    for (size_t left = written > 0 ? (size_t)written : 0; count && left >= pieces->iov_len; pieces++, count--, written = (ssize_t)left)
      left -= pieces->iov_len;
    if (count && written > 0) {
      pieces->iov_base = (uint8_t *)pieces->iov_base + written;
      pieces->iov_len -= (size_t)written;
    }
  }
  tx_compact();
  for (; count; pieces++, count--) buf_add(&host.tx, pieces->iov_base, pieces->iov_len);
  link_wake();
}

void link_send(uint32_t stream_id, uint8_t type, uint8_t flags, const void *data, size_t size) {
  uint8_t header[FRAME_HEADER_SIZE];
  if (!host.up) return;
  frame_put_header(header, stream_id, type, flags, size);
  tx_compact();
  buf_add(&host.tx, header, sizeof header);
  buf_add(&host.tx, data, size);
  link_wake();
}

/* --- Epochs -------------------------------------------------------------------------------- */

/* What was half received is dropped. */
static void forget_received(void) {
  host.rx.size = host.rx_done = 0;
  host.rx_stalled = false;
  if (host.rx.capacity > RX_KEEP) buf_free(&host.rx);
}

/* What was half sent is dropped. */
static void forget_queued(void) {
  host.tx.size = host.tx_done = 0;
  if (host.tx.capacity > TX_PAUSE_HIGH) buf_free(&host.tx);
}

/* The socket's peer is gone. (A port is never down: a new host is known by its Hello.) */
static void link_down(void) {
  host.open = host.up = host.readable = host.writable = false;
  calls_drop_all();
  forget_received();
  forget_queued();
  int fd = host.source.fd;
  source_remove(&host.source);
  close_fd(&fd);
}

static void answer_hello(const struct hello *hello) {
  struct utsname names;
  uname(&names);
  HelloResponse response = {
      .nonce = {hello->nonce, NONCE_SIZE},
      .protocol_version = PROTOCOL_VERSION,
      .epoch = host.epoch,
      .agent_version = (char *)AGENT_VERSION,
      .kernel_release = names.release,
      .is_init = agent_is_init,
  };
  struct buf payload = {0};
  msg_encode(&payload, &HelloResponse_msg, &response);
  send_response(hello->stream_id, STATUS_OK, NULL, payload.data, payload.size);
  buf_free(&payload);
}

/* A host that waits says its Hello again: it may have got, or be getting, the answer to the first by now, and gone on. */
static bool is_repeated(const struct hello *hello) {
  return host.open && !memcmp(hello->nonce, host.nonce, NONCE_SIZE);
}

static void begin_epoch(const struct hello *hello) {
  host.open = false;
  calls_drop_all();
  forget_received();
  forget_queued();
  if (hello->protocol_version != PROTOCOL_VERSION) {
    link_fail(hello->stream_id, "Hello with a protocol version that is not 1");
    return;
  }
  host.open = true;
  host.hung_up = false;
  host.writable = true; /* or EAGAIN tells */
  host.epoch++;
  memcpy(host.secret, hello->secret, SECRET_SIZE);
  memcpy(host.nonce, hello->nonce, NONCE_SIZE);
  answer_hello(hello);
}

void link_fail(uint32_t stream_id, const char *why) {
  warn("connection ended: %s", why);
  if (stream_id && !call_is_pending(stream_id))
    send_response(stream_id, STATUS_INVALID_ARGUMENT, why, NULL, 0);
  calls_abort_all(why); /* a port cannot hang up: the host learns it from the answers */
  host.open = false;
  forget_received();
  if (host.is_port) return;
  flush();
  link_down();
}

/* --- Receiving ----------------------------------------------------------------------------- */

/* Not open: only a Hello counts. */
static void look_for_hello(void) {
  struct hello hello;
  struct frame frame;
  const char *why = NULL;
  if (hello_at_tail(host.rx.data, host.rx.size, NULL, &hello)) {
    begin_epoch(&hello);
    return;
  }
  if (host.is_port) { /* leftovers of an earlier connection; keep what may be half a Hello */
    if (host.rx.size > HELLO_FRAME_MAX) buf_drop_front(&host.rx, host.rx.size - HELLO_FRAME_MAX);
    return;
  }
  enum frame_status status = frame_parse(host.rx.data, host.rx.size, &frame, &why);
  if (status == FRAME_BAD) link_fail(0, why);
  else if (status == FRAME_OK || (host.rx.size >= FRAME_HEADER_SIZE && frame.size > HELLO_FRAME_MAX))
    link_fail(frame.stream_id, "first frame is not a good Hello");
}

static void dispatch_received(void) {
  struct hello hello;
  if (!host.open) {
    look_for_hello();
    return;
  }
  if (hello_at_tail(host.rx.data, host.rx.size, host.hung_up ? NULL : host.secret, &hello) &&
      !is_repeated(&hello)) {
    begin_epoch(&hello);
    return;
  }
  uint64_t epoch = host.epoch;
  while (host.open && host.epoch == epoch) {
    struct frame frame;
    const char *why = NULL;
    host.rx_stalled = tx_pending() > TX_PAUSE_HIGH;
    if (host.rx_stalled) break;
    enum frame_status status = frame_parse(host.rx.data + host.rx_done, host.rx.size - host.rx_done, &frame, &why);
    if (status == FRAME_PARTIAL) break;
    if (status == FRAME_BAD) {
      link_fail(frame.stream_id, why);
      return;
    }
    host.rx_done += FRAME_HEADER_SIZE + frame.size;
    if (frame.type == FRAME_REQUEST && frame.size <= HELLO_FRAME_MAX && !hello_decode(&frame, &hello)) {
      if (is_repeated(&hello)) {
        answer_hello(&hello);
        continue;
      }
      begin_epoch(&hello);
      return;
    }
    call_dispatch(&frame);
  }
  if (host.open && host.epoch == epoch) {
    buf_drop_front(&host.rx, host.rx_done);
    host.rx_done = 0;
    if (!host.rx.size && host.rx.capacity > RX_KEEP) buf_free(&host.rx);
  }
}

/* Room for the rest of a frame whose header is there, so that a big one is read in few pieces. */
static void reserve_for_read(void) {
  struct frame frame;
  const char *why;
  size_t room = RX_CHUNK;
  if (host.open && frame_parse(host.rx.data, host.rx.size, &frame, &why) == FRAME_PARTIAL &&
      host.rx.size >= FRAME_HEADER_SIZE)
    room = MAX(room, FRAME_HEADER_SIZE + frame.size - host.rx.size);
  buf_reserve(&host.rx, room);
}

static void receive(void) {
  size_t budget = RX_BUDGET;
  bool ended = false;
  while (host.readable && budget && tx_pending() <= TX_PAUSE_HIGH) {
    reserve_for_read();
    size_t room = MIN(host.rx.capacity - host.rx.size, budget);
    ssize_t count = read(host.source.fd, host.rx.data + host.rx.size, room);
    if (count > 0) {
      host.rx.size += (size_t)count;
      budget -= (size_t)count;
    } else if (count < 0 && errno == EINTR) {
      continue;
    } else if (count < 0 && errno == EAGAIN) {
      host.readable = false;
    } else {
      ended = true;
      break;
    }
  }
  if (host.rx.size) dispatch_received();
  if (!ended) return;
  host.readable = false;
  if (host.is_port) host.hung_up = true;
  else if (host.up) link_down();
}

/* --- Sending ------------------------------------------------------------------------------- */

static void flush(void) {
  while (host.writable && tx_pending()) {
    size_t size = tx_pending();
    if (host.is_port) size = MIN(size, PORT_WRITE_MAX);
    ssize_t count = host.is_port ? write(host.source.fd, host.tx.data + host.tx_done, size)
                                 : send(host.source.fd, host.tx.data + host.tx_done, size, MSG_NOSIGNAL);
    if (count > 0) host.tx_done += (size_t)count;
    else if (count < 0 && errno == EINTR) continue;
    else host.writable = false; /* EAGAIN; a broken connection is found by reading */
  }
  tx_compact();
}

static void link_work(struct task *task) {
  (void)task;
  if (!host.up) return;
  receive();
  for (int turn = 0; host.up && turn < 8; turn++) {
    bool more = link_has_room() && streams_pump();
    flush();
    if (!more || !host.writable) break;
  }
  if (!host.up) return;
  bool paused = tx_pending() > TX_PAUSE_HIGH;
  bool receive_more = !paused && (host.readable || host.rx_stalled);
  bool send_more = host.writable && (tx_pending() || (host.open && streams_pending()));
  if (receive_more || send_more) link_wake();
}

/*
 * A port that hung up is read on: what the host sent before is still there, and so may be what the
 * next one sent. It can hang up late, after the next host's Hello was answered, because the kernel
 * learns of connections and of bytes on different queues. So nothing ends here.
 */
static void host_ready(struct source *source, uint32_t events) {
  (void)source;
  if (events & EPOLLOUT) host.writable = true;
  if (events & (EPOLLIN | EPOLLHUP | EPOLLRDHUP | EPOLLERR)) host.readable = true;
  if (host.is_port && (events & EPOLLHUP)) host.hung_up = true;
  host.up = true;
  link_wake();
}

void link_open_port(const char *path) {
  int fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) fatal("open %s: %s", path, strerror(errno));
  host.is_port = host.up = true;
  task_init(&host.work, link_work);
  int error = source_add(&host.source, fd, EPOLLIN | EPOLLOUT, host_ready);
  if (error) fatal("watch %s: %s", path, strerror(-error));
}

/* --- The Unix socket of host mode ------------------------------------------------------------ */

static void listener_ready(struct source *source, uint32_t events) {
  (void)events;
  for (;;) {
    int fd = accept4(source->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if (errno != EAGAIN) warn("accept: %s", strerror(errno));
      return;
    }
    if (host.up) link_down(); /* a new connection replaces the old one */
    if (source_add(&host.source, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP, host_ready)) {
      close(fd);
      continue;
    }
    host.up = true;
  }
}

/* Bound under another name first: where the name is, somebody listens. */
void link_listen(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  int size = snprintf(address.sun_path, sizeof address.sun_path, "%s~", path);
  if (size >= (int)sizeof address.sun_path) fatal("socket path %s is longer than 106 bytes", path);
  task_init(&host.work, link_work);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) fatal("socket: %s", strerror(errno));
  unlink(address.sun_path);
  if (bind(fd, (struct sockaddr *)&address, sizeof address)) fatal("bind %s: %s", path, strerror(errno));
  if (listen(fd, 8)) fatal("listen on %s: %s", path, strerror(errno));
  int error = source_add(&host.listener, fd, EPOLLIN, listener_ready);
  if (error) fatal("watch %s: %s", path, strerror(-error));
  if (rename(address.sun_path, path)) fatal("listen on %s: %s", path, strerror(errno));
}

void link_close(void) {
  link_down();
  task_cancel(&host.work);
  int fds[2] = {host.source.fd, host.listener.fd};
  source_remove(&host.source);
  source_remove(&host.listener);
  close_fd(&fds[0]);
  close_fd(&fds[1]);
  buf_free(&host.rx);
  buf_free(&host.tx);
}
