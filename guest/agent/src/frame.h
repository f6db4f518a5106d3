/*
 * ttrpc frames: a 10-byte header and data.
 *
 *   u32be length of data | u32be stream id | u8 type | u8 flags
 */
#pragma once

#include "msg.h"

#define FRAME_HEADER_SIZE 10u
#define AGENT_SERVICE "arcbox.agent.v1.Agent"

enum frame_type { FRAME_REQUEST = 1, FRAME_RESPONSE = 2, FRAME_DATA = 3 };
enum frame_flags { FRAME_REMOTE_CLOSED = 1, FRAME_REMOTE_OPEN = 2, FRAME_NO_DATA = 4 };

struct frame {
  uint32_t stream_id;
  uint8_t type, flags;
  uint32_t size;
  const uint8_t *data; /* a view of the received bytes */
};

enum frame_status { FRAME_OK, FRAME_PARTIAL, FRAME_BAD };

/* Looks at the first frame of `data`. FRAME_PARTIAL: `frame->size` is valid when 10 bytes are there. */
enum frame_status frame_parse(const uint8_t *data, size_t size, struct frame *frame, const char **why);
void frame_put_header(uint8_t header[FRAME_HEADER_SIZE], uint32_t stream_id, uint8_t type, uint8_t flags, size_t size);

/* A Hello request, decoded. */
struct hello {
  uint32_t stream_id;
  uint32_t protocol_version;
  uint8_t nonce[16], secret[16];
};

/* Whether the frame is a Hello request; NULL and `hello` filled when it is a good one. */
const char *hello_decode(const struct frame *frame, struct hello *hello);
/*
 * Whether the received bytes end with exactly one Hello frame, whatever comes before it. With
 * `secret`, only one that carries this secret counts.
 */
bool hello_at_tail(const uint8_t *data, size_t size, const uint8_t *secret, struct hello *hello);
