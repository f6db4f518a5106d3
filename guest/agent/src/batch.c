#include "batch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "call.h"
#include "limits.h"
#include "link.h"
#include "ops.h"

struct batch {
  struct call call;
  bool abandoned; /* the call is gone */
  bool running;
  bool over;      /* an operation failed: answer */
  struct op_wait *wait;
  uint8_t *payload;
  size_t payload_size;
  pb_istream_t stream; /* over the rest of the payload */
  struct buf response;
  struct arena arena;
  Op op;
  struct task task; /* goes on after a pending operation */
};

static size_t pending_total; /* payloads of all batches */

static void batch_free(struct batch *batch) {
  if (batch->wait) batch->wait->batch = NULL;
  task_cancel(&batch->task);
  arena_reset(&batch->arena);
  buf_free(&batch->response);
  free(batch->payload);
  pending_total -= batch->payload_size;
  free(batch);
}

static void drop_batch(struct call *call) {
  struct batch *batch = container_of(call, struct batch, call);
  /* An operation that is on the stack right now ends the batch when it returns. */
  if (batch->running) batch->abandoned = true;
  else batch_free(batch);
}

static void batch_finish(struct batch *batch) {
  call_finish(&batch->call, STATUS_OK, NULL, &batch->response);
  batch_free(batch);
}

/* --- Results ------------------------------------------------------------------------------- */

enum op_state op_fail(struct op_context *context, OpResult *result, int error, const char *format, ...) {
  char what[700];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(what, sizeof what, format, arguments);
  va_end(arguments);
  if (error < 0) error = -error;
  result->errno_ = error ? error : EIO;
  result->error = arena_printf(context->arena, "%s: %s", what, strerror(result->errno_));
  return OP_DONE;
}

/* Appends one result; false when the batch ends with it. */
static bool add_encoded(struct batch *batch, int error, const uint8_t *data, size_t size) {
  if (batch->response.size + size > BATCH_RESPONSE_MAX) {
    OpResult result = {.errno_ = EMSGSIZE, .error = (char *)"the results of one batch exceed 4 MiB: Message too long"};
    msg_encode_field(&batch->response, BatchResponse_results_tag, &OpResult_msg, &result);
    return false;
  }
  buf_add_varint(&batch->response, BatchResponse_results_tag << 3 | PB_WT_STRING);
  buf_add_varint(&batch->response, size);
  buf_add(&batch->response, data, size);
  return !error;
}

static bool add_result(struct batch *batch, const OpResult *result) {
  struct buf encoded = {0};
  msg_encode(&encoded, &OpResult_msg, result);
  bool go_on = add_encoded(batch, result->errno_, encoded.data, encoded.size);
  buf_free(&encoded);
  return go_on;
}

enum op_state op_pending(struct op_context *context, struct op_wait *wait) {
  wait->batch = context->batch;
  context->batch->wait = wait;
  return OP_PENDING;
}

/* In a turn of its own: the operation may still be on the stack. */
static void go_on_or_finish(struct batch *batch, bool go_on) {
  batch->over = !go_on;
  task_queue(&batch->task);
}

static struct batch *take_batch(struct op_wait *wait) {
  struct batch *batch = wait->batch;
  wait->batch = NULL;
  if (batch) batch->wait = NULL;
  return batch;
}

void batch_op_done(struct op_wait *wait, const OpResult *result) {
  struct batch *batch = take_batch(wait);
  if (batch) go_on_or_finish(batch, add_result(batch, result));
}

void batch_op_done_encoded(struct op_wait *wait, int error, const uint8_t *result, size_t size) {
  struct batch *batch = take_batch(wait);
  if (batch) go_on_or_finish(batch, add_encoded(batch, error, result, size));
}

void batch_op_failed(struct op_wait *wait, int error, const char *format, ...) {
  char what[700], text[800];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(what, sizeof what, format, arguments);
  va_end(arguments);
  snprintf(text, sizeof text, "%s: %s", what, strerror(error));
  utf8_sanitize(text);
  OpResult result = {.errno_ = error, .error = text};
  batch_op_done(wait, &result);
}

/* --- Running ------------------------------------------------------------------------------- */

/* The next operation's bytes; false at the end of the payload. */
static bool next_op(pb_istream_t *stream, const uint8_t **data, size_t *size, const char **why) {
  for (;;) {
    pb_wire_type_t wire;
    uint32_t tag;
    bool eof = false;
    *why = NULL;
    if (!pb_decode_tag(stream, &wire, &tag, &eof)) {
      if (!eof) *why = PB_GET_ERROR(stream);
      return false;
    }
    if (tag == BatchRequest_ops_tag && wire == PB_WT_STRING) {
      pb_istream_t op;
      if (!pb_make_string_substream(stream, &op)) break;
      *data = op.state;
      *size = op.bytes_left;
      if (!pb_read(&op, NULL, op.bytes_left) || !pb_close_string_substream(stream, &op)) break;
      return true;
    }
    if (!pb_skip_field(stream, wire)) break;
  }
  *why = PB_GET_ERROR(stream);
  return false;
}

/* All of it decodes, before any of it runs. NULL, or what is wrong. */
static const char *check(const uint8_t *payload, size_t size) {
  pb_istream_t stream = pb_istream_from_buffer(payload, size);
  const uint8_t *data;
  size_t op_size, count = 0;
  const char *why;
  Op *op = xmalloc(sizeof *op);
  while (next_op(&stream, &data, &op_size, &why)) {
    struct arena arena = {0};
    memset(op, 0, sizeof *op);
    why = ++count > BATCH_OPS_MAX ? "more than 256 operations" : msg_decode(&arena, &Op_msg, op, data, op_size);
    arena_reset(&arena);
    if (why) break;
  }
  free(op);
  return why;
}

static void run(struct batch *batch) {
  const uint8_t *data;
  size_t size;
  const char *why;
  while (next_op(&batch->stream, &data, &size, &why)) {
    OpResult result = {0};
    arena_reset(&batch->arena);
    memset(&batch->op, 0, sizeof batch->op);
    msg_decode(&batch->arena, &Op_msg, &batch->op, data, size);
    struct op_context context = {.batch = batch, .arena = &batch->arena};
    batch->running = true;
    enum op_state state = op_run(&context, &batch->op, &result);
    batch->running = false;
    if (batch->abandoned) {
      batch_free(batch);
      return;
    }
    if (state == OP_PENDING) return;
    if (!add_result(batch, &result)) break;
  }
  batch_finish(batch);
}

static void run_task(struct task *task) {
  struct batch *batch = container_of(task, struct batch, task);
  if (batch->over) batch_finish(batch);
  else run(batch);
}

void batch_request(uint32_t stream_id, int64_t timeout_ns, const uint8_t *payload, size_t size) {
  const char *why = check(payload, size);
  if (why) {
    char text[200];
    snprintf(text, sizeof text, "BatchRequest: %s", why);
    link_fail(stream_id, text);
    return;
  }
  if (pending_total + size > BATCH_PENDING_MAX) {
    send_response(stream_id, STATUS_RESOURCE_EXHAUSTED, "the requests of pending batches exceed 64 MiB", NULL, 0);
    return;
  }
  struct batch *batch = xcalloc(1, sizeof *batch);
  batch->call.drop = drop_batch;
  task_init(&batch->task, run_task);
  if (!call_begin(&batch->call, stream_id, timeout_ns)) {
    free(batch);
    return;
  }
  batch->payload = xmalloc(size);
  batch->payload_size = size;
  pending_total += size;
  if (size) memcpy(batch->payload, payload, size);
  batch->stream = pb_istream_from_buffer(batch->payload, size);
  run(batch);
}
