#define _GNU_SOURCE
#include "frame.h"

#include <arpa/inet.h>
#include <string.h>

#include "limits.h"

static uint32_t get_u32(const uint8_t *at) {
  return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

enum frame_status frame_parse(const uint8_t *data, size_t size, struct frame *frame, const char **why) {
  *frame = (struct frame){0};
  if (size < FRAME_HEADER_SIZE) return FRAME_PARTIAL;
  frame->size = get_u32(data);
  frame->stream_id = get_u32(data + 4);
  frame->type = data[8];
  frame->flags = data[9];
  frame->data = data + FRAME_HEADER_SIZE;
  if (frame->size > FRAME_DATA_MAX) {
    *why = "frame of more than 4 MiB";
    return FRAME_BAD;
  }
  if (frame->type != FRAME_REQUEST && frame->type != FRAME_DATA) {
    *why = "frame that is neither a request nor data";
    return FRAME_BAD;
  }
  if (frame->flags & ~(FRAME_REMOTE_CLOSED | FRAME_REMOTE_OPEN | FRAME_NO_DATA)) {
    *why = "frame with unknown flags";
    return FRAME_BAD;
  }
  if (frame->stream_id % 2 == 0) {
    *why = "frame with an even stream id";
    return FRAME_BAD;
  }
  if ((frame->flags & FRAME_NO_DATA) && frame->size) {
    *why = "frame with data that says it has none";
    return FRAME_BAD;
  }
  return size - FRAME_HEADER_SIZE < frame->size ? FRAME_PARTIAL : FRAME_OK;
}

void frame_put_header(uint8_t header[FRAME_HEADER_SIZE], uint32_t stream_id, uint8_t type, uint8_t flags, size_t size) {
  uint32_t words[2] = {htonl((uint32_t)size), htonl(stream_id)};
  memcpy(header, words, sizeof words);
  header[8] = type;
  header[9] = flags;
}

static const char *decode_parts(struct arena *arena, const struct frame *frame, struct hello *hello) {
  Request request = {0};
  HelloRequest message = {0};
  if (frame->type != FRAME_REQUEST) return "not a request";
  const char *why = msg_decode(arena, &Request_msg, &request, frame->data, frame->size);
  if (why) return why;
  if (strcmp(msg_string(request.service), AGENT_SERVICE) || strcmp(msg_string(request.method), "Hello"))
    return "not Hello";
  why = msg_decode(arena, &HelloRequest_msg, &message, request.payload.data, request.payload.size);
  if (why) return why;
  if (message.nonce.size != NONCE_SIZE) return "Hello whose nonce is not 16 bytes";
  if (message.secret.size != SECRET_SIZE) return "Hello whose secret is not 16 bytes";
  hello->stream_id = frame->stream_id;
  hello->protocol_version = message.protocol_version;
  memcpy(hello->nonce, message.nonce.data, NONCE_SIZE);
  memcpy(hello->secret, message.secret.data, SECRET_SIZE);
  return NULL;
}

const char *hello_decode(const struct frame *frame, struct hello *hello) {
  struct arena arena = {0};
  const char *why = decode_parts(&arena, frame, hello);
  arena_reset(&arena);
  return why;
}

bool hello_at_tail(const uint8_t *data, size_t size, const uint8_t *secret, struct hello *hello) {
  size_t window = MIN(size, HELLO_FRAME_MAX);
  const uint8_t *end = data + size, *at = end - window;
  if (size < FRAME_HEADER_SIZE + NONCE_SIZE + SECRET_SIZE) return false;
  if (secret && !memmem(at, window, secret, SECRET_SIZE)) return false;
  for (; end - at >= (ptrdiff_t)FRAME_HEADER_SIZE; at++) {
    struct frame frame;
    const char *why;
    if (get_u32(at) != (uint32_t)(end - at) - FRAME_HEADER_SIZE) continue;
    if (frame_parse(at, (size_t)(end - at), &frame, &why) != FRAME_OK) continue;
    if (hello_decode(&frame, hello)) continue;
    if (!secret || !memcmp(hello->secret, secret, SECRET_SIZE)) return true;
  }
  return false;
}
