/*
 * The messages: nanopb with one field callback for all of them.
 *
 * Decoding: a string is copied into an arena and ends with a NUL; bytes are a view of the frame.
 * Encoding: both are taken from where they are; `msg_raw` holds fields that are encoded already.
 */
#pragma once

#include "util.h"

struct msg_bytes {
  const uint8_t *data;
  size_t size;
};

struct msg_strings {
  char **items; /* ends with NULL when there is one */
  size_t count, capacity;
};

struct msg_raw {
  const uint8_t *data;
  size_t size;
};

#include <pb_decode.h>
#include <pb_encode.h>

#include "arcbox/agent/v1/agent.pb.h"
#include "ttrpc/ttrpc.pb.h"

/* Memory that is given back at once. */
struct arena {
  struct arena_block *blocks;
  size_t used; /* bytes of all blocks */
};

/* NULL when the arena holds ARENA_MAX. */
void *arena_take(struct arena *arena, size_t size);
/* The same, from a format; never fails (short strings only). */
char *arena_printf(struct arena *arena, const char *format, ...) __attribute__((format(printf, 2, 3)));
void arena_reset(struct arena *arena);

/* NULL when done, otherwise what is wrong with the message. */
const char *msg_decode(struct arena *arena, const pb_msgdesc_t *type, void *message, const uint8_t *data, size_t size);
/* Appends the message. */
void msg_encode(struct buf *buf, const pb_msgdesc_t *type, const void *message);
/* Appends a field of type message. */
void msg_encode_field(struct buf *buf, uint32_t tag, const pb_msgdesc_t *type, const void *message);
/* Appends a message preceded by its length as a varint. */
void msg_encode_delimited(struct buf *buf, const pb_msgdesc_t *type, const void *message);

/* A decoded string that was absent is NULL. */
static inline const char *msg_string(const char *string) { return string ? string : ""; }
static inline bool msg_is_set(const char *string) { return string && *string; }
