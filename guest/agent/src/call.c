#include "call.h"

#include <string.h>

#include "limits.h"
#include "link.h"

#define BUCKETS 256u

static struct list buckets[BUCKETS];
static bool ready;
static uint32_t count;
static uint32_t last_stream_id;

static struct list *bucket_of(uint32_t stream_id) {
  if (!ready) {
    for (size_t i = 0; i < BUCKETS; i++) list_init(&buckets[i]);
    ready = true;
  }
  return &buckets[stream_id / 2 % BUCKETS];
}

void send_response(uint32_t stream_id, enum status_code code, const char *message, const uint8_t *payload, size_t size) {
  Response response = {.payload = {payload, size}};
  if (code != STATUS_OK) {
    response.has_status = true;
    response.status.code = (int32_t)code;
    response.status.message = (char *)message;
  }
  struct buf data = {0};
  msg_encode(&data, &Response_msg, &response);
  link_send(stream_id, FRAME_RESPONSE, 0, data.data, data.size);
  buf_free(&data);
}

static void unregister(struct call *call) {
  list_remove(&call->link);
  timer_cancel(&call->deadline);
  count--;
}

static void deadline_passed(struct timer *timer) {
  struct call *call = container_of(timer, struct call, deadline);
  uint32_t stream_id = call->stream_id;
  unregister(call);
  call->drop(call);
  send_response(stream_id, STATUS_DEADLINE_EXCEEDED, "the call's timeout passed", NULL, 0);
}

bool call_begin(struct call *call, uint32_t stream_id, int64_t timeout_ns) {
  timer_init(&call->deadline, deadline_passed);
  list_init(&call->link);
  call->stream_id = stream_id;
  if (count >= PENDING_CALLS_MAX) {
    send_response(stream_id, STATUS_RESOURCE_EXHAUSTED, "more than 1024 calls are pending", NULL, 0);
    return false;
  }
  list_add(bucket_of(stream_id), &call->link);
  count++;
  if (timeout_ns > 0) timer_set(&call->deadline, (uint64_t)timeout_ns);
  return true;
}

void call_finish(struct call *call, enum status_code code, const char *message, const struct buf *payload) {
  unregister(call);
  send_response(call->stream_id, code, message, payload ? payload->data : NULL, payload ? payload->size : 0);
}

static void end_all(const char *why) {
  last_stream_id = 0;
  if (!ready) return;
  for (size_t i = 0; i < BUCKETS; i++)
    while (!list_empty(&buckets[i])) {
      struct call *call = container_of(buckets[i].next, struct call, link);
      uint32_t stream_id = call->stream_id;
      unregister(call);
      call->drop(call);
      if (why) send_response(stream_id, STATUS_ABORTED, why, NULL, 0);
    }
}

void calls_drop_all(void) { end_all(NULL); }

void calls_abort_all(const char *why) { end_all(why); }

static struct call *call_find(uint32_t stream_id) {
  struct list *head = bucket_of(stream_id);
  for (struct list *at = head->next; at != head; at = at->next) {
    struct call *call = container_of(at, struct call, link);
    if (call->stream_id == stream_id) return call;
  }
  return NULL;
}

bool call_is_pending(uint32_t stream_id) { return call_find(stream_id) != NULL; }

static void dispatch_data(const struct frame *frame) {
  if (frame->stream_id > last_stream_id) {
    link_fail(frame->stream_id, "data of a stream that was never opened");
    return;
  }
  struct call *call = call_find(frame->stream_id);
  if (!call) return; /* it ended while this was on its way */
  if (!call->data) {
    link_fail(frame->stream_id, "data for a call that is not a stream");
    return;
  }
  call->data(call, frame);
}

static void dispatch_request(const struct frame *frame) {
  static const struct {
    const char *name;
    bool stream;
    void (*run)(uint32_t, int64_t, const uint8_t *, size_t);
  } methods[] = {{"Batch", false, batch_request}, {"Wait", false, wait_request}, {"Attach", true, attach_request}};
  uint32_t id = frame->stream_id;
  if (id <= last_stream_id) {
    link_fail(id, "request whose stream id is not greater than those before");
    return;
  }
  last_stream_id = id;
  struct arena arena = {0};
  Request request = {0};
  const char *why = msg_decode(&arena, &Request_msg, &request, frame->data, frame->size);
  const char *method = msg_string(request.method);
  size_t found = 0;
  while (found < ARRAY_SIZE(methods) && strcmp(methods[found].name, method)) found++;
  if (why) {
    link_fail(id, "request that cannot be decoded");
  } else if (strcmp(msg_string(request.service), AGENT_SERVICE)) {
    send_response(id, STATUS_UNIMPLEMENTED, "the service is " AGENT_SERVICE, NULL, 0);
  } else if (!strcmp(method, "Hello")) {
    link_fail(id, "Hello without 16 bytes of nonce and of secret");
  } else if (found == ARRAY_SIZE(methods)) {
    send_response(id, STATUS_UNIMPLEMENTED, "no such method", NULL, 0);
  } else if (methods[found].stream != !!(frame->flags & FRAME_REMOTE_OPEN)) {
    link_fail(id, "Attach is a stream and the other methods are not: wrong flags");
  } else {
    methods[found].run(id, request.timeout_nano, request.payload.data, request.payload.size);
  }
  arena_reset(&arena);
}

void call_dispatch(const struct frame *frame) {
  if (frame->type == FRAME_DATA) dispatch_data(frame);
  else dispatch_request(frame);
}
