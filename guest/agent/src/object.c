#include "object.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "link.h"
#include "stream.h"

#define BUCKETS 1024u

struct waiter {
  struct call call;
  struct list link; /* in object.waiters */
};

static struct list all = LIST_INIT(all);
static struct list buckets[BUCKETS];
static uint32_t count;
void (*objects_have_room)(void);

static struct list *bucket_of(const char *id) {
  uint32_t hash = 2166136261u; /* FNV-1a */
  for (; *id; id++) hash = (hash ^ (uint8_t)*id) * 16777619u;
  struct list *head = &buckets[hash % BUCKETS];
  if (!head->next) list_init(head);
  return head;
}

struct object *object_find(const char *id) {
  struct list *head = bucket_of(id);
  for (struct list *at = head->next; at != head; at = at->next) {
    struct object *object = container_of(at, struct object, bucket);
    if (!strcmp(object->id, id)) return object;
  }
  return NULL;
}

bool objects_may_be_accepted(void) { return count < OBJECTS_MAX - OBJECTS_OF_HOST_MIN; }

int object_check_id(const char *id) {
  size_t size = strlen(id);
  if (!size || size > OBJECT_ID_MAX) return EINVAL;
  if (object_find(id)) return EEXIST;
  return count >= OBJECTS_MAX ? ENFILE : 0;
}

void object_init(struct object *object, const struct object_type *type, const char *id) {
  object->type = type;
  strcpy(object->id, id);
  list_init(&object->waiters);
  list_add(&all, &object->all);
  list_add(bucket_of(id), &object->bucket);
  count++;
}

/* --- Wait ---------------------------------------------------------------------------------- */

static void answer_wait(struct call *call, const struct outcome *outcome) {
  WaitResponse response = {
      .signaled = outcome->signaled, .code = outcome->code, .error = (char *)outcome->error};
  struct buf payload = {0};
  msg_encode(&payload, &WaitResponse_msg, &response);
  call_finish(call, STATUS_OK, NULL, &payload);
  buf_free(&payload);
}

static void drop_waiter(struct call *call) {
  struct waiter *waiter = container_of(call, struct waiter, call);
  list_remove(&waiter->link);
  free(waiter);
}

void wait_request(uint32_t stream_id, int64_t timeout_ns, const uint8_t *payload, size_t size) {
  struct arena arena = {0};
  WaitRequest request = {0};
  struct waiter *waiter = xcalloc(1, sizeof *waiter);
  list_init(&waiter->link);
  waiter->call.drop = drop_waiter;
  if (msg_decode(&arena, &WaitRequest_msg, &request, payload, size)) {
    free(waiter);
    link_fail(stream_id, "WaitRequest that cannot be decoded");
  } else if (!call_begin(&waiter->call, stream_id, timeout_ns)) {
    free(waiter);
  } else {
    struct object *object = object_find(msg_string(request.id));
    if (object && !object->ended) {
      list_add(&object->waiters, &waiter->link);
    } else {
      if (object) answer_wait(&waiter->call, &object->outcome);
      else call_finish(&waiter->call, STATUS_NOT_FOUND, "no object of this id", NULL);
      free(waiter);
    }
  }
  arena_reset(&arena);
}

void object_end(struct object *object, const struct outcome *outcome) {
  if (object->ended) return;
  object->ended = true;
  object->outcome = *outcome;
  utf8_sanitize(object->outcome.error);
  while (!list_empty(&object->waiters)) {
    struct waiter *waiter = container_of(object->waiters.next, struct waiter, link);
    list_remove(&waiter->link);
    answer_wait(&waiter->call, &object->outcome);
    free(waiter);
  }
  attach_check_end(object);
}

void object_channel_ended(struct object *object, struct channel *channel) {
  if (object->type->channel_ended) object->type->channel_ended(object, channel);
}

/* --- The end ------------------------------------------------------------------------------- */

void object_release(struct object *object) {
  if (object->attach) attach_finish(object, STATUS_ABORTED, "the object was released");
  while (!list_empty(&object->waiters)) {
    struct waiter *waiter = container_of(object->waiters.next, struct waiter, link);
    list_remove(&waiter->link);
    call_finish(&waiter->call, STATUS_ABORTED, "the object was released", NULL);
    free(waiter);
  }
  for (size_t i = 0; i < ARRAY_SIZE(object->channels); i++) {
    channel_free(object->channels[i]);
    object->channels[i] = NULL;
  }
  list_remove(&object->all);
  list_remove(&object->bucket);
  count--;
  object->type->release(object);
  if (objects_have_room) objects_have_room();
}

void objects_release_all(void) {
  while (!list_empty(&all)) object_release(container_of(all.next, struct object, all));
}

void objects_encode(struct buf *buf) {
  for (struct list *at = all.next; at != &all; at = at->next) {
    struct object *object = container_of(at, struct object, all);
    ObjectInfo info = {.id = object->id,
                       .kind = object->type->kind,
                       .pid = object->pid,
                       .ended = object->ended,
                       .input_acked = channel_acked(object->channels[0]),
                       .output_acked = channel_acked(object->channels[1]),
                       .error_acked = channel_acked(object->channels[2])};
    msg_encode_field(buf, ObjectList_objects_tag, &ObjectInfo_msg, &info);
  }
}
