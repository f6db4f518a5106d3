/*
 * Fuzzes what a host can send: frames, requests, batches, and the state of calls and streams. Two
 * objects are there to be attached to, waited for and fed: one between pipes, whose other ends are read,
 * and now and then closed, as the input has it; one that has ended. Operations and the connection are
 * replaced by nothing, so no input touches the machine (random-operations.test.ts has the operations).
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "limits.h"
#include "link.h"
#include "object.h"
#include "ops.h"
#include "stream.h"

static bool failed;
static uint64_t sent_bytes;

/* --- In place of link.c -------------------------------------------------------------------- */

void link_send(uint32_t stream_id, uint8_t type, uint8_t flags, const void *data, size_t size) {
  (void)flags, (void)data;
  if (stream_id % 2 == 0 || (type != FRAME_RESPONSE && type != FRAME_DATA) || size > FRAME_DATA_MAX) abort();
  sent_bytes += size;
}

void link_send_data(struct iovec *pieces, int count) {
  for (int i = 0; i < count; i++)
    for (size_t at = 0; at < pieces[i].iov_len; at++) sent_bytes += ((uint8_t *)pieces[i].iov_base)[at] & 1;
}

bool link_has_room(void) { return !failed; }
void link_wake(void) {}

void link_fail(uint32_t stream_id, const char *why) {
  if (!why || !*why) abort();
  (void)stream_id;
  calls_abort_all(why);
  failed = true;
}

/* --- In place of the operations --------------------------------------------------------------- */

static struct op_wait waiting; /* of the one operation that takes its time */

/* What becomes of it after a frame of this size. */
static void end_waiting(uint32_t size) {
  OpResult result = {0};
  if (!waiting.batch || size % 4 == 0) return;
  if (size % 4 == 1) batch_op_done(&waiting, &result);
  else if (size % 4 == 2) batch_op_done_encoded(&waiting, 0, NULL, 0);
  else batch_op_failed(&waiting, 110, "wait for nothing");
}

enum op_state op_run(struct op_context *context, const Op *op, OpResult *result) {
  if (op->which_op == Op_wait_device_tag && !waiting.batch) return op_pending(context, &waiting);
  if (!op->which_op) return op_fail(context, result, 38, "unknown operation");
  if (op->which_op == Op_list_objects_tag) {
    struct buf list = {0};
    objects_encode(&list);
    buf_free(&list);
  }
  if (op->which_op == Op_release_tag) {
    struct object *object = object_find(msg_string(op->op.release.id));
    if (object) object_release(object);
  }
  if (op->which_op == Op_spawn_tag) {
    for (size_t i = 0; i < op->op.spawn.argv.count; i++) sent_bytes += strlen(op->op.spawn.argv.items[i]);
    if (op->op.spawn.groups_count > GROUPS_MAX) abort();
  }
  return OP_DONE;
}

/* --- The objects ------------------------------------------------------------------------------ */

static void release(struct object *object) { free(object); }
static const struct object_type type = {.kind = ObjectInfo_Kind_KIND_PROCESS, .release = release};

static int input_reader = -1; /* where the input of the living one arrives */

/* `output` -1: channel 1 has only what is in its ring; `input` -1: there is none. */
static void make_object(const char *id, int input, int output) {
  struct object *object = calloc(1, sizeof *object);
  static const uint8_t bytes[5000] = {1, 2, 3};
  bool ended = output < 0;
  object_init(object, &type, id);
  for (uint8_t index = 1; index < 3; index++) {
    struct channel *channel = channel_output(object, index, index == 1 ? output : -1);
    if (!channel || !channel_push(channel, bytes, index == 1 ? sizeof bytes : 10)) abort();
    if (ended) channel_end_output(channel);
  }
  if (input >= 0 && !channel_input(object, input, END_CLOSE)) abort();
  if (ended) object_end(object, &(struct outcome){.code = 3});
}

static void make_objects(void) {
  static const char more[3000];
  int input[2], output[2];
  if (pipe2(input, O_CLOEXEC | O_NONBLOCK) || pipe2(output, O_CLOEXEC | O_NONBLOCK)) abort();
  fcntl(input[1], F_SETPIPE_SZ, 4096);
  if (write(output[1], more, sizeof more) != sizeof more) abort();
  close(output[1]);
  input_reader = input[0];
  make_object("a", input[1], output[0]);
  make_object("b", -1, -1);
}

/* What the reader of the input does after a frame of this size. */
static void read_input(uint32_t size) {
  static char taken[4096];
  if (input_reader < 0) return;
  if (size % 16 == 15) close_fd(&input_reader);
  else sent_bytes += (uint64_t)MAX(read(input_reader, taken, size * 16 % sizeof taken), 0);
}

static void check_channels(const char *id) {
  struct object *object = object_find(id);
  if (!object) return;
  for (int index = 0; index < 3; index++) {
    struct channel *channel = object->channels[index];
    if (!channel) continue;
    if (channel->acked > channel->end || channel->end - channel->acked > OUTPUT_RETAIN_MAX) abort();
    if (index && (channel->sent < channel->acked || channel->sent > channel->end)) abort();
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const uint8_t secret[SECRET_SIZE] = "0123456789abcdef";
  static bool ready;
  struct hello hello;
  if (!ready) {
    loop_init();
    signal(SIGPIPE, SIG_IGN);
    ready = true;
  }
  failed = false;
  make_objects();
  if (hello_at_tail(data, size, secret, &hello) && memcmp(hello.secret, secret, SECRET_SIZE)) abort();
  hello_at_tail(data, size, NULL, &hello);
  for (size_t at = 0; at < size && !failed;) {
    struct frame frame;
    const char *why = NULL;
    enum frame_status status = frame_parse(data + at, size - at, &frame, &why);
    if (status == FRAME_BAD && !why) abort();
    if (status != FRAME_OK) break;
    if (frame.data + frame.size > data + size) abort();
    at += FRAME_HEADER_SIZE + frame.size;
    if (hello_decode(&frame, &hello)) call_dispatch(&frame);
    else calls_drop_all();
    if (streams_pending()) streams_pump();
    loop_turn(false);
    read_input(frame.size);
    end_waiting(frame.size);
    check_channels("a");
    check_channels("b");
  }
  calls_drop_all();
  objects_release_all();
  close_fd(&input_reader);
  loop_turn(false);
  return 0;
}
