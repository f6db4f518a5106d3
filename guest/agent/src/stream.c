#include "stream.h"

#include <stdlib.h>
#include <string.h>

#include "link.h"

struct attach {
  struct call call;
  struct object *object; /* NULL until the AttachOpen came */
  struct list ready;     /* in `ready_streams` while there may be something to send */
  uint8_t turn;          /* which output channel is next */
};

static struct list ready_streams = LIST_INIT(ready_streams);

bool streams_pending(void) { return !list_empty(&ready_streams); }

static void mark_ready(struct attach *attach) {
  if (list_empty(&attach->ready)) list_add(&ready_streams, &attach->ready);
  link_wake();
}

void attach_has_output(struct object *object) {
  if (object->attach) mark_ready(object->attach);
}

/* Lets go of the object. What it had received and not written is forgotten. */
static void detach(struct attach *attach) {
  if (!attach->object) return;
  if (attach->object->channels[0]) channel_rewind(attach->object->channels[0]);
  attach->object->attach = NULL;
  attach->object = NULL;
}

static void attach_free(struct attach *attach) {
  detach(attach);
  list_remove(&attach->ready);
  free(attach);
}

static void drop_attach(struct call *call) { attach_free(container_of(call, struct attach, call)); }

static void finish(struct attach *attach, enum status_code code, const char *why) {
  call_finish(&attach->call, code, why, NULL);
  attach_free(attach);
}

void attach_finish(struct object *object, enum status_code code, const char *why) {
  finish(object->attach, code, why);
}

/* --- To the host --------------------------------------------------------------------------- */

static uint8_t *put_varint(uint8_t *at, uint64_t value) {
  for (; value > 0x7f; value >>= 7) *at++ = (uint8_t)(value | 0x80);
  *at++ = (uint8_t)value;
  return at;
}

/* AttachFrame{chunk}: header and fields from here, the data from the ring. */
static void send_chunk(struct attach *attach, struct channel *channel, size_t size, bool eof) {
  uint8_t fields[64], head[FRAME_HEADER_SIZE + sizeof fields + 16], *at = fields;
  at = put_varint(put_varint(at, Chunk_channel_tag << 3 | PB_WT_VARINT), channel->index);
  if (channel->sent) at = put_varint(put_varint(at, Chunk_offset_tag << 3 | PB_WT_VARINT), channel->sent);
  if (eof) at = put_varint(put_varint(at, Chunk_eof_tag << 3 | PB_WT_VARINT), 1);
  if (size) at = put_varint(put_varint(at, Chunk_data_tag << 3 | PB_WT_STRING), size);
  size_t fields_size = (size_t)(at - fields), body = fields_size + size;
  at = put_varint(put_varint(head + FRAME_HEADER_SIZE, AttachFrame_chunk_tag << 3 | PB_WT_STRING), body);
  frame_put_header(head, attach->call.stream_id, FRAME_DATA, 0, (size_t)(at - head) - FRAME_HEADER_SIZE + body);
  memcpy(at, fields, fields_size);
  struct iovec pieces[3] = {{head, (size_t)(at - head) + fields_size}};
  int count = 1 + (size ? channel_pieces(channel, channel->sent, size, pieces + 1) : 0);
  link_send_data(pieces, count);
  channel->sent += size;
  channel->eof_sent |= eof;
}

static bool can_send(const struct channel *channel) {
  if (!channel) return false;
  if (channel->sent < channel->end && channel->sent < channel->limit) return true;
  return channel->eof && !channel->eof_sent && channel->sent == channel->end;
}

static void send_from(struct attach *attach, struct channel *channel) {
  uint64_t until = MIN(channel->end, channel->limit);
  size_t size = until > channel->sent ? (size_t)MIN(until - channel->sent, CHUNK_DATA_MAX) : 0;
  send_chunk(attach, channel, size, channel->eof && channel->sent + size == channel->end);
}

bool streams_pump(void) {
  while (!list_empty(&ready_streams) && link_has_room()) {
    struct attach *attach = container_of(ready_streams.next, struct attach, ready);
    struct channel **channels = attach->object->channels;
    list_remove(&attach->ready);
    uint8_t first = (uint8_t)(1 + attach->turn), second = (uint8_t)(3 - first);
    struct channel *channel = can_send(channels[first]) ? channels[first] : channels[second];
    if (!can_send(channel)) continue;
    send_from(attach, channel);
    attach->turn = (uint8_t)(2 - channel->index);
    if (can_send(channels[1]) || can_send(channels[2])) list_add(&ready_streams, &attach->ready);
    else attach_check_end(attach->object);
  }
  return !list_empty(&ready_streams);
}

/* For channel 0; a limit of 0 when the object takes no input. */
static void send_credit(struct attach *attach, struct channel *channel) {
  AttachFrame frame = {.which_frame = AttachFrame_credit_tag};
  if (channel) {
    frame.frame.credit = (Credit){.acked = channel->acked, .limit = channel_input_limit(channel)};
    channel->told_acked = channel->acked;
  }
  struct buf data = {0};
  msg_encode(&data, &AttachFrame_msg, &frame);
  link_send(attach->call.stream_id, FRAME_DATA, 0, data.data, data.size);
  buf_free(&data);
}

void attach_input_moved(struct object *object) {
  struct channel *channel = object->channels[0];
  if (!object->attach || !channel || channel->acked == channel->told_acked) return;
  bool all_written = channel->acked == channel->end;
  if (all_written || channel->acked - channel->told_acked >= INPUT_WINDOW / 4) send_credit(object->attach, channel);
}

static bool output_is_over(const struct channel *channel) {
  return !channel || (channel->eof_sent && channel->acked == channel->end);
}

void attach_check_end(struct object *object) {
  if (!object->attach || !object->ended) return;
  if (output_is_over(object->channels[1]) && output_is_over(object->channels[2]))
    attach_finish(object, STATUS_OK, NULL);
}

/* --- From the host ------------------------------------------------------------------------- */

/* NULL, or why the stream cannot go on at this offset. */
static const char *resume_output(struct channel *channel, bool given, const Credit *credit) {
  if (!channel) return NULL;
  uint64_t acked = given ? credit->acked : channel->acked;
  if (acked < channel->acked) return "the output before this offset was acknowledged and freed";
  if (acked > channel->end) return "this offset of the output was not reached yet";
  channel->sent = acked;
  channel->limit = given ? credit->limit : acked;
  channel->eof_sent = false;
  channel_ack(channel, acked);
  return NULL;
}

static void open_stream(struct attach *attach, const AttachOpen *open) {
  struct object *object = object_find(msg_string(open->id));
  if (!object) {
    finish(attach, STATUS_NOT_FOUND, "no object of this id");
    return;
  }
  if (object->attach) attach_finish(object, STATUS_ABORTED, "another Attach took the object");
  const char *why = resume_output(object->channels[1], open->has_output, &open->output);
  if (!why) why = resume_output(object->channels[2], open->has_error, &open->error);
  if (why) {
    finish(attach, STATUS_OUT_OF_RANGE, why);
    return;
  }
  attach->object = object;
  object->attach = attach;
  send_credit(attach, object->channels[0]);
  mark_ready(attach);
  attach_check_end(object);
}

static void take_credit(struct attach *attach, const Credit *credit) {
  struct channel *channel = credit->channel == 1 || credit->channel == 2 ? attach->object->channels[credit->channel] : NULL;
  if (!channel) {
    finish(attach, STATUS_OUT_OF_RANGE, "credit for a channel that is not there");
    return;
  }
  if (credit->acked > channel->sent) {
    finish(attach, STATUS_OUT_OF_RANGE, "credit that acknowledges more than was sent");
    return;
  }
  if (credit->acked > channel->acked) channel_ack(channel, credit->acked);
  channel->limit = MAX(channel->limit, credit->limit);
  if (can_send(channel)) mark_ready(attach);
  attach_check_end(attach->object);
}

static void take_chunk(struct attach *attach, const Chunk *chunk) {
  struct channel *channel = attach->object->channels[0];
  if (chunk->channel != 0) {
    finish(attach, STATUS_INVALID_ARGUMENT, "the host sends on channel 0 only");
    return;
  }
  if (chunk->data.size > CHUNK_DATA_MAX) {
    finish(attach, STATUS_INVALID_ARGUMENT, "chunk of more than 64 KiB");
    return;
  }
  if (!channel) {
    if (chunk->data.size) finish(attach, STATUS_FAILED_PRECONDITION, "the object takes no input");
    return;
  }
  struct object *object = attach->object;
  const char *why = channel_receive(channel, chunk->offset, chunk->data.data, chunk->data.size, chunk->eof);
  if (why && object->attach) attach_finish(object, STATUS_OUT_OF_RANGE, why);
}

static void take_frame(struct attach *attach, const uint8_t *data, size_t size) {
  struct arena arena = {0};
  AttachFrame frame = {0};
  const char *why = msg_decode(&arena, &AttachFrame_msg, &frame, data, size);
  bool opens = frame.which_frame == AttachFrame_open_tag;
  if (why || !frame.which_frame || opens != !attach->object) {
    link_fail(attach->call.stream_id, why ? "AttachFrame that cannot be decoded"
                                          : "AttachFrame out of order: open comes first, once");
  } else if (opens) {
    open_stream(attach, &frame.frame.open);
  } else if (frame.which_frame == AttachFrame_credit_tag) {
    take_credit(attach, &frame.frame.credit);
  } else {
    take_chunk(attach, &frame.frame.chunk);
  }
  arena_reset(&arena);
}

static void attach_data(struct call *call, const struct frame *frame) {
  struct attach *attach = container_of(call, struct attach, call);
  uint32_t stream_id = call->stream_id;
  if (!(frame->flags & FRAME_NO_DATA) && (frame->size || !(frame->flags & FRAME_REMOTE_CLOSED)))
    take_frame(attach, frame->data, frame->size);
  if ((frame->flags & FRAME_REMOTE_CLOSED) && call_is_pending(stream_id)) finish(attach, STATUS_OK, NULL);
}

void attach_request(uint32_t stream_id, int64_t timeout_ns, const uint8_t *payload, size_t size) {
  struct attach *attach = xcalloc(1, sizeof *attach);
  list_init(&attach->ready);
  attach->call.drop = drop_attach;
  attach->call.data = attach_data;
  if (!call_begin(&attach->call, stream_id, timeout_ns)) {
    free(attach);
    return;
  }
  take_frame(attach, payload, size);
}
