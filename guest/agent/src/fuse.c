/*
 * FuseRelay: a mount whose requests and replies travel to the host. Channel 1 carries whole requests,
 * channel 0 whole replies; the kernel wants each reply in one write.
 *
 * The agent must never look up a path in such a mount itself: it would wait for itself. So file
 * operations run in jobs while a relay exists, and the few that cannot refuse paths below one.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "limits.h"
#include "object.h"
#include "ops.h"

struct fuse_relay {
  struct object object;
  struct list link;
  char target[PATH_SIZE_MAX];
  bool mounted;
  uint8_t *request; /* read from the kernel, no room for it yet */
  size_t request_size;
  struct buf reply; /* what has come of one */
};

static struct list relays = LIST_INIT(relays);

bool fuse_relay_exists(void) { return !list_empty(&relays); }

bool is_in_fuse_relay(const char *path) {
  for (struct list *at = relays.next; at != &relays; at = at->next) {
    const char *target = container_of(at, struct fuse_relay, link)->target;
    size_t size = strlen(target);
    if (!strncmp(path, target, size) && (!path[size] || path[size] == '/')) return true;
  }
  return false;
}

static void fuse_release(struct object *object) {
  struct fuse_relay *relay = container_of(object, struct fuse_relay, object);
  /* The channels are closed, so the connection is aborted and nothing waits for us any more. */
  if (relay->mounted && umount2(relay->target, MNT_DETACH | UMOUNT_NOFOLLOW) && errno != EINVAL)
    warn("unmount %s: %s", relay->target, strerror(errno));
  list_remove(&relay->link);
  buf_free(&relay->reply);
  free(relay->request);
  free(relay);
}

static void channel_ended(struct object *object, struct channel *channel);
static const struct object_type fuse_type = {
    .kind = ObjectInfo_Kind_KIND_FUSE, .release = fuse_release, .channel_ended = channel_ended};

static void fail(struct fuse_relay *relay, int error, const char *why) {
  struct outcome outcome = {.code = error};
  snprintf(outcome.error, sizeof outcome.error, "%s", why);
  channel_end_output(relay->object.channels[1]);
  channel_break(relay->object.channels[0]);
  object_end(&relay->object, &outcome);
}

static void fill(struct channel *channel) {
  struct fuse_relay *relay = container_of(channel->object, struct fuse_relay, object);
  for (;;) {
    if (relay->request_size) {
      if (!channel_push(channel, relay->request, relay->request_size)) return;
      relay->request_size = 0;
    }
    if (!channel->ready) return;
    ssize_t size = read(channel->fd, relay->request, FUSE_MESSAGE_MAX);
    if (size > 0 && (size_t)size <= OUTPUT_RETAIN_MAX) {
      relay->request_size = (size_t)size;
    } else if (size > 0) {
      fail(relay, EMSGSIZE, "the kernel sent a request of more than 1 MiB: negotiate a smaller max_write");
      return;
    } else if (size < 0 && (errno == EINTR || errno == ENOENT)) { /* taken back before it was read */
      continue;
    } else if (size < 0 && errno == EAGAIN) {
      channel->ready = false;
    } else {
      if (size < 0 && errno == ENODEV) {
        relay->mounted = false;
        fail(relay, 0, "");
      } else {
        fail(relay, size < 0 ? errno : EIO, "reading from /dev/fuse failed");
      }
      return;
    }
  }
}

/* Collects one reply and writes it whole. */
static ssize_t take(struct channel *channel, const uint8_t *data, size_t size) {
  struct fuse_relay *relay = container_of(channel->object, struct fuse_relay, object);
  struct buf *reply = &relay->reply;
  struct fuse_out_header header;
  size_t wanted = sizeof header;
  if (reply->size >= sizeof header) {
    memcpy(&header, reply->data, sizeof header);
    wanted = header.len;
  }
  size_t taken = MIN(size, wanted - reply->size);
  buf_add(reply, data, taken);
  if (reply->size < sizeof header) return (ssize_t)taken;
  memcpy(&header, reply->data, sizeof header);
  if (header.len < sizeof header || header.len > FUSE_MESSAGE_MAX) return -EPROTO;
  if (reply->size < header.len) return (ssize_t)taken;
  ssize_t written = write(channel->fd, reply->data, reply->size);
  reply->size = 0;
  /* ENOENT: the request was interrupted meanwhile. */
  if (written < 0 && errno != ENOENT) return -errno;
  return (ssize_t)taken;
}

static void channel_ended(struct object *object, struct channel *channel) {
  struct fuse_relay *relay = container_of(object, struct fuse_relay, object);
  if (channel->index || object->ended || !channel->broken) return;
  fail(relay, channel->error ? channel->error : EPROTO, "the kernel refused a reply");
}

enum op_state op_fuse_relay(struct op_context *context, const FuseRelay *op, OpResult *result) {
  const char *id = msg_string(op->id), *target = msg_string(op->target);
  char options[PATH_SIZE_MAX];
  int error = object_check_id(id);
  if (!error) error = check_path(target);
  if (!error && is_in_fuse_relay(target)) error = EDEADLK;
  if (!error && op->mkdir_target) error = -make_directories(target, 0755);
  if (error) return op_fail(context, result, error, "relay %s at %.300s", id, target);
  int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return op_fail(context, result, errno, "open /dev/fuse");
  const char *extra = msg_string(op->options);
  int size = snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0%s%s", fd, *extra ? "," : "", extra);
  if (size >= (int)sizeof options) error = E2BIG;
  else if (mount("arcbox", target, "fuse", MS_NOSUID | MS_NODEV, options)) error = errno;
  if (error) {
    close(fd);
    return op_fail(context, result, error, "mount a relay at %.300s", target);
  }
  struct fuse_relay *relay = xcalloc(1, sizeof *relay);
  object_init(&relay->object, &fuse_type, id);
  strcpy(relay->target, target);
  relay->mounted = true;
  relay->request = xmalloc(FUSE_MESSAGE_MAX);
  list_add(&relays, &relay->link);
  int replies = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  struct channel *output = channel_output(&relay->object, 1, fd);
  struct channel *input = replies < 0 ? NULL : channel_input(&relay->object, replies, END_NOTHING);
  if (!output || !input) {
    object_release(&relay->object);
    return op_fail(context, result, EMFILE, "mount a relay at %.300s", target);
  }
  output->fill = fill;
  input->take = take;
  return OP_DONE;
}
