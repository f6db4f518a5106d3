/* Watch: inotify, as WatchEvent messages. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "object.h"
#include "ops.h"

#define EVENTS_SIZE 4096u /* one read: at least one event of the longest name */
#define ENCODED_ROOM (8u * EVENTS_SIZE) /* what the events of one read can become */

static void watch_release(struct object *object) { free(object); }
static const struct object_type watch_type = {.kind = ObjectInfo_Kind_KIND_WATCH, .release = watch_release};

static bool push_event(struct channel *channel, struct inotify_event *event) {
  struct buf encoded = {0};
  WatchEvent message = {.mask = event->mask, .cookie = event->cookie};
  if (event->len) {
    utf8_sanitize(event->name);
    message.name = event->name;
  }
  msg_encode_delimited(&encoded, &WatchEvent_msg, &message);
  channel_push(channel, encoded.data, encoded.size);
  buf_free(&encoded);
  return !(event->mask & IN_IGNORED);
}

static void fill(struct channel *channel) {
  _Alignas(struct inotify_event) char events[EVENTS_SIZE];
  while (channel->ready && channel_has_room(channel, ENCODED_ROOM)) {
    ssize_t size = read(channel->fd, events, sizeof events);
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) {
      channel->ready = false;
      return;
    }
    for (char *at = events; at < events + size;) {
      struct inotify_event *event = (struct inotify_event *)at;
      at += sizeof *event + event->len;
      if (push_event(channel, event)) continue;
      channel_end_output(channel); /* what was watched is gone */
      object_end(channel->object, &(struct outcome){0});
      return;
    }
  }
}

enum op_state op_watch(struct op_context *context, const Watch *op, OpResult *result) {
  const char *id = msg_string(op->id), *path = msg_string(op->path);
  int error = object_check_id(id);
  if (error) return op_fail(context, result, error, "watch %s", id);
  if (is_in_fuse_relay(path)) return op_fail(context, result, EDEADLK, "watch %.300s, which is served by a FuseRelay", path);
  int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
  if (fd < 0) return op_fail(context, result, errno, "watch %.300s", path);
  if (inotify_add_watch(fd, path, op->mask) < 0) {
    error = errno;
    close(fd);
    return op_fail(context, result, error, "watch %.300s", path);
  }
  struct object *object = xcalloc(1, sizeof *object);
  object_init(object, &watch_type, id);
  struct channel *channel = channel_output(object, 1, fd);
  if (!channel) {
    object_release(object);
    return op_fail(context, result, EMFILE, "watch %.300s", path);
  }
  channel->fill = fill;
  return OP_DONE;
}
