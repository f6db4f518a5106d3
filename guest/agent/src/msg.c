#include "msg.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "limits.h"

#define ARENA_BLOCK 4096u

struct arena_block {
  struct arena_block *next;
  size_t used, capacity;
  _Alignas(16) uint8_t data[];
};

/* The message being decoded. */
static struct arena *decoding;
static const uint8_t *decoding_data;
static size_t decoding_size;

void *arena_take(struct arena *arena, size_t size) {
  size = (size + 15) & ~(size_t)15;
  struct arena_block *block = arena->blocks;
  if (!block || block->capacity - block->used < size) {
    size_t capacity = MAX(size, ARENA_BLOCK);
    if (capacity > ARENA_MAX - arena->used) return NULL;
    block = xmalloc(sizeof *block + capacity);
    block->used = 0;
    block->capacity = capacity;
    block->next = arena->blocks;
    arena->blocks = block;
    arena->used += capacity;
  }
  void *result = block->data + block->used;
  block->used += size;
  return result;
}

char *arena_printf(struct arena *arena, const char *format, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  utf8_sanitize(text);
  size_t size = strlen(text) + 1;
  char *copy = arena_take(arena, size);
  return copy ? memcpy(copy, text, size) : NULL;
}

void arena_reset(struct arena *arena) {
  while (arena->blocks) {
    struct arena_block *block = arena->blocks;
    arena->blocks = block->next;
    free(block);
  }
  arena->used = 0;
}

static bool take_string(pb_istream_t *stream, char **out) {
  size_t size = stream->bytes_left;
  char *string = arena_take(decoding, size + 1);
  if (!string) PB_RETURN_ERROR(stream, "strings exceed ARENA_MAX");
  if (!pb_read(stream, (pb_byte_t *)string, size)) return false;
  if (memchr(string, 0, size)) PB_RETURN_ERROR(stream, "string with a NUL byte");
  string[size] = 0;
  *out = string;
  return true;
}

static bool take_strings(pb_istream_t *stream, struct msg_strings *strings) {
  if (strings->count >= STRINGS_MAX) PB_RETURN_ERROR(stream, "more strings than STRINGS_MAX");
  if (strings->count + 1 >= strings->capacity) {
    size_t capacity = strings->capacity ? strings->capacity * 2 : 16;
    char **items = arena_take(decoding, capacity * sizeof *items);
    if (!items) PB_RETURN_ERROR(stream, "strings exceed ARENA_MAX");
    if (strings->count) memcpy(items, strings->items, strings->count * sizeof *items);
    strings->items = items;
    strings->capacity = capacity;
  }
  if (!take_string(stream, &strings->items[strings->count])) return false;
  strings->items[++strings->count] = NULL;
  return true;
}

static bool decode_field(pb_istream_t *stream, const pb_field_t *field) {
  /* nanopb gives a field of a wrong wire type as a copy on its stack. */
  uintptr_t offset = (uintptr_t)stream->state - (uintptr_t)decoding_data;
  if (offset > decoding_size) PB_RETURN_ERROR(stream, "wrong wire type");
  switch (PB_LTYPE(field->type)) {
    case PB_LTYPE_STRING:
      if (PB_HTYPE(field->type) == PB_HTYPE_REPEATED) return take_strings(stream, field->pData);
      return take_string(stream, field->pData);
    case PB_LTYPE_BYTES: {
      /* All streams are over memory: nanopb keeps the position in `state`. */
      struct msg_bytes *bytes = field->pData;
      bytes->data = stream->state;
      bytes->size = stream->bytes_left;
      return pb_read(stream, NULL, stream->bytes_left);
    }
    default: /* messages the agent only sends */
      return pb_read(stream, NULL, stream->bytes_left);
  }
}

static bool encode_bytes(pb_ostream_t *stream, const pb_field_t *field, const void *data, size_t size) {
  if (!size) return true;
  return pb_encode_tag_for_field(stream, field) && pb_encode_string(stream, data, size);
}

static bool encode_field(pb_ostream_t *stream, const pb_field_t *field) {
  switch (PB_LTYPE(field->type)) {
    case PB_LTYPE_STRING: {
      if (PB_HTYPE(field->type) == PB_HTYPE_REPEATED) return true; /* only in requests */
      const char *string = *(char *const *)field->pData;
      return encode_bytes(stream, field, string, string ? strlen(string) : 0);
    }
    case PB_LTYPE_BYTES: {
      const struct msg_bytes *bytes = field->pData;
      return encode_bytes(stream, field, bytes->data, bytes->size);
    }
    default: {
      const struct msg_raw *raw = field->pData;
      return !raw->size || pb_write(stream, raw->data, raw->size);
    }
  }
}

bool msg_field(pb_istream_t *istream, pb_ostream_t *ostream, const pb_field_t *field) {
  if (istream) return decode_field(istream, field);
  return encode_field(ostream, field);
}

const char *msg_decode(struct arena *arena, const pb_msgdesc_t *type, void *message, const uint8_t *data, size_t size) {
  pb_istream_t stream = pb_istream_from_buffer(data, size);
  decoding = arena;
  decoding_data = data;
  decoding_size = size;
  bool done = pb_decode(&stream, type, message);
  decoding = NULL;
  return done ? NULL : PB_GET_ERROR(&stream);
}

static bool write_to_buf(pb_ostream_t *stream, const pb_byte_t *data, size_t size) {
  buf_add(stream->state, data, size);
  return true;
}

static pb_ostream_t ostream_to(struct buf *buf) {
  return (pb_ostream_t){.callback = write_to_buf, .state = buf, .max_size = SIZE_MAX};
}

void msg_encode(struct buf *buf, const pb_msgdesc_t *type, const void *message) {
  pb_ostream_t stream = ostream_to(buf);
  if (!pb_encode(&stream, type, message)) fatal("encoding a message: %s", PB_GET_ERROR(&stream));
}

void msg_encode_field(struct buf *buf, uint32_t tag, const pb_msgdesc_t *type, const void *message) {
  buf_add_varint(buf, (uint64_t)tag << 3 | PB_WT_STRING);
  msg_encode_delimited(buf, type, message);
}

void msg_encode_delimited(struct buf *buf, const pb_msgdesc_t *type, const void *message) {
  pb_ostream_t stream = ostream_to(buf);
  if (!pb_encode_submessage(&stream, type, message)) fatal("encoding a message: %s", PB_GET_ERROR(&stream));
}
