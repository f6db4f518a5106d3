#include "channel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <termios.h>
#include <unistd.h>

#include "limits.h"
#include "object.h"
#include "stream.h"

static size_t retained_total; /* capacity of all output rings */

static uint32_t used(const struct channel *channel) { return (uint32_t)(channel->end - channel->acked); }

static void resize_ring(struct channel *channel, uint32_t capacity) {
  uint8_t *ring = xmalloc(capacity);
  for (uint64_t at = channel->acked; at < channel->end;) {
    uint32_t from = (uint32_t)at & (channel->capacity - 1), to = (uint32_t)at & (capacity - 1);
    size_t run = MIN(channel->end - at, MIN(channel->capacity - from, capacity - to));
    memcpy(ring + to, channel->ring + from, run);
    at += run;
  }
  if (channel->index) retained_total += (size_t)capacity - channel->capacity;
  free(channel->ring);
  channel->ring = ring;
  channel->capacity = capacity;
}

/* Free bytes, after growing when that is allowed and `wanted` are not there. */
static size_t make_room(struct channel *channel, size_t wanted) {
  uint32_t most = channel->index ? OUTPUT_RETAIN_MAX : INPUT_WINDOW;
  if (channel->index && retained_total >= RETAIN_TOTAL_MAX) most = OUTPUT_RETAIN_SHARED;
  while (channel->capacity - used(channel) < wanted && channel->capacity < most)
    resize_ring(channel, channel->capacity ? MIN(channel->capacity * 4, most) : OUTPUT_RETAIN_MIN);
  return channel->capacity - used(channel);
}

/* Up to two pieces of the ring from `offset` on. */
int channel_pieces(const struct channel *channel, uint64_t offset, size_t size, struct iovec pieces[2]) {
  uint32_t at = (uint32_t)offset & (channel->capacity - 1);
  size_t first = MIN(size, (size_t)channel->capacity - at);
  pieces[0] = (struct iovec){channel->ring + at, first};
  pieces[1] = (struct iovec){channel->ring, size - first};
  return size > first ? 2 : 1;
}

static void put(struct channel *channel, const uint8_t *data, size_t size) {
  struct iovec pieces[2];
  int count = channel_pieces(channel, channel->end, size, pieces);
  memcpy(pieces[0].iov_base, data, pieces[0].iov_len);
  if (count == 2) memcpy(pieces[1].iov_base, data + pieces[0].iov_len, pieces[1].iov_len);
  channel->end += size;
}

static void close_descriptor(struct channel *channel) {
  source_remove(&channel->source);
  close_fd(&channel->fd);
  channel->ready = false;
}

/* What is in it is forgotten. */
static void drop_ring(struct channel *channel) {
  if (channel->index) retained_total -= channel->capacity;
  free(channel->ring);
  channel->ring = NULL;
  channel->capacity = 0;
}

/* --- Output -------------------------------------------------------------------------------- */

static void fill_from_descriptor(struct channel *channel) {
  size_t budget = FILL_BUDGET;
  while (channel->ready && budget) {
    size_t room = make_room(channel, 1);
    struct iovec pieces[2];
    if (!room) return; /* channel_ack() goes on */
    int count = channel_pieces(channel, channel->end, MIN(room, budget), pieces);
    ssize_t size = readv(channel->fd, pieces, count);
    if (size > 0) {
      bool filled = (size_t)size == room;
      channel->end += (size_t)size;
      /* Byte by byte, a writer must not get more of our time than one of large pieces. */
      budget -= MIN(budget, MAX((size_t)size, FILL_COST_MIN));
      if (filled) make_room(channel, (size_t)channel->capacity * 2);
    } else if (size < 0 && errno == EINTR) {
      continue;
    } else if (size < 0 && errno == EAGAIN) {
      channel->ready = false;
    } else { /* the end; EIO is how a terminal says it */
      if (size < 0) channel->error = errno;
      channel_end_output(channel);
      return;
    }
  }
  if (channel->ready) task_queue(&channel->task);
}

void channel_end_output(struct channel *channel) {
  if (channel->eof) return;
  channel->eof = true;
  close_descriptor(channel);
  if (!used(channel)) drop_ring(channel);
  attach_has_output(channel->object);
  attach_check_end(channel->object);
  object_channel_ended(channel->object, channel);
}

bool channel_has_room(struct channel *channel, size_t size) { return make_room(channel, size) >= size; }

bool channel_push(struct channel *channel, const void *data, size_t size) {
  if (channel->eof || make_room(channel, size) < size) return false;
  put(channel, data, size);
  attach_has_output(channel->object);
  return true;
}

void channel_ack(struct channel *channel, uint64_t acked) {
  channel->acked = acked;
  if (channel->sent < acked) channel->sent = acked;
  /* A ring stays as large as it grew, unless others want for room. */
  if (!used(channel) && (channel->eof || retained_total >= RETAIN_TOTAL_MAX)) drop_ring(channel);
  if (channel->ready) task_queue(&channel->task);
}

/* --- Input --------------------------------------------------------------------------------- */

void channel_break(struct channel *channel) {
  close_descriptor(channel);
  channel->broken = true;
  channel->acked = channel->end;
  channel->end_done = channel->eof;
  drop_ring(channel);
}

/* False when the terminal takes nothing now. */
static bool end_terminal_input(struct channel *channel) {
  struct termios settings;
  if (tcgetattr(channel->fd, &settings) || !(settings.c_lflag & ICANON)) return true;
  uint8_t bytes[2] = {settings.c_cc[VEOF], settings.c_cc[VEOF]};
  /* The first one only ends a line that was begun. */
  bool line_begun = channel->acked && channel->last_byte != '\n' && channel->last_byte != '\r';
  return write(channel->fd, bytes, line_begun ? 2 : 1) > 0 || errno != EAGAIN;
}

static void pass_end(struct channel *channel) {
  if (channel->on_end == END_TERMINAL && !channel->broken) {
    if (channel->fd < 0) return; /* it is yet to come */
    channel->ready = end_terminal_input(channel);
    if (!channel->ready) return;
  }
  channel->end_done = true;
  drop_ring(channel);
  if (channel->fd < 0) return;
  if (channel->on_end == END_SHUTDOWN) shutdown(channel->fd, SHUT_WR);
  if (channel->on_end == END_CLOSE || channel->on_end == END_SHUTDOWN) close_descriptor(channel);
  object_channel_ended(channel->object, channel);
}

static ssize_t take_bytes(struct channel *channel, const uint8_t *data, size_t size) {
  if (channel->take) return channel->take(channel, data, size);
  ssize_t count = write(channel->fd, data, size);
  if (count > 0) channel->last_byte = data[count - 1];
  return count < 0 ? -errno : count;
}

static void drain(struct channel *channel) {
  size_t budget = FILL_BUDGET;
  while (channel->ready && budget && used(channel)) {
    struct iovec pieces[2];
    channel_pieces(channel, channel->acked, used(channel), pieces);
    ssize_t size = take_bytes(channel, pieces[0].iov_base, pieces[0].iov_len);
    if (size > 0) {
      channel->acked += (size_t)size;
      budget -= MIN(budget, (size_t)size);
    } else if (size == -EINTR) {
      continue;
    } else if (size == -EAGAIN || size == 0) {
      channel->ready = false;
    } else {
      channel->error = (int)-size;
      channel_break(channel);
      object_channel_ended(channel->object, channel);
    }
  }
  if (channel->eof && !used(channel) && !channel->end_done) pass_end(channel);
  if (channel->ready && used(channel)) task_queue(&channel->task);
  attach_input_moved(channel->object);
}

/* The first bytes of an input that has nothing waiting need not go through the ring. */
static size_t take_directly(struct channel *channel, const uint8_t *data, size_t size) {
  size_t done = 0;
  while (done < size && channel->ready && !used(channel) && !channel->take) {
    ssize_t count = take_bytes(channel, data + done, size - done);
    if (count == -EINTR) continue;
    if (count <= 0) {
      if (count != -EAGAIN && count != 0) return done; /* drain() meets the error again */
      channel->ready = false;
      break;
    }
    done += (size_t)count;
    channel->acked += (size_t)count;
    channel->end += (size_t)count;
  }
  return done;
}

const char *channel_receive(struct channel *channel, uint64_t offset, const uint8_t *data, size_t size, bool eof) {
  if (offset > channel->end) return "input after a gap";
  if (offset + size < offset || offset + size > channel_input_limit(channel)) return "input past its limit";
  if (channel->eof && offset + size > channel->end) return "input after its end";
  size_t known = MIN(size, channel->end - offset); /* came before */
  if (known) data += known; /* nothing may be nowhere */
  size -= known;
  if (channel->broken) {
    channel->end += size;
    channel->acked = channel->end;
  } else if (size) {
    size_t done = take_directly(channel, data, size);
    if (done < size) {
      make_room(channel, size - done);
      put(channel, data + done, size - done);
    }
  }
  if (eof) channel->eof = true;
  drain(channel);
  return NULL;
}

void channel_rewind(struct channel *channel) {
  if (channel->end_done) return;
  channel->end = channel->acked;
  channel->eof = false;
}

uint64_t channel_input_limit(const struct channel *channel) { return channel->acked + INPUT_WINDOW; }

/* --- Both ---------------------------------------------------------------------------------- */

void channel_work(struct channel *channel) {
  if (!channel->index) {
    drain(channel);
    return;
  }
  uint64_t before = channel->end;
  if (channel->eof) return;
  if (channel->fill) channel->fill(channel);
  else fill_from_descriptor(channel);
  if (channel->end != before) attach_has_output(channel->object);
}

static void run_task(struct task *task) { channel_work(container_of(task, struct channel, task)); }

static void descriptor_ready(struct source *source, uint32_t events) {
  struct channel *channel = container_of(source, struct channel, source);
  (void)events;
  channel->ready = true;
  channel_work(channel);
}

static struct channel *channel_new(struct object *object, uint8_t index, int fd) {
  struct channel *channel = xcalloc(1, sizeof *channel);
  channel->object = object;
  channel->index = index;
  channel->fd = channel->source.fd = -1;
  task_init(&channel->task, run_task);
  if (fd >= 0 && channel_open(channel, fd)) {
    free(channel);
    return NULL;
  }
  object->channels[index] = channel;
  return channel;
}

struct channel *channel_output(struct object *object, uint8_t index, int fd) { return channel_new(object, index, fd); }

struct channel *channel_input(struct object *object, int fd, enum channel_end on_end) {
  struct channel *channel = channel_new(object, 0, fd);
  if (channel) channel->on_end = on_end;
  return channel;
}

int channel_open(struct channel *channel, int fd) {
  int error = source_add(&channel->source, fd, channel->index ? EPOLLIN : EPOLLOUT, descriptor_ready);
  if (error) close(fd);
  else channel->fd = fd;
  return error;
}

void channel_free(struct channel *channel) {
  if (!channel) return;
  task_cancel(&channel->task);
  close_descriptor(channel);
  drop_ring(channel);
  free(channel);
}

uint64_t channel_acked(const struct channel *channel) { return channel ? channel->acked : 0; }
