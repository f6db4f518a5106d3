/*
 * Calls in flight: one for each stream id that the host opened and we did not answer yet.
 */
#pragma once

#include "frame.h"
#include "loop.h"

enum status_code { /* google.rpc.Code */
  STATUS_OK = 0,
  STATUS_CANCELLED = 1,
  STATUS_INVALID_ARGUMENT = 3,
  STATUS_DEADLINE_EXCEEDED = 4,
  STATUS_NOT_FOUND = 5,
  STATUS_RESOURCE_EXHAUSTED = 8,
  STATUS_FAILED_PRECONDITION = 9,
  STATUS_ABORTED = 10,
  STATUS_OUT_OF_RANGE = 11,
  STATUS_UNIMPLEMENTED = 12,
  STATUS_INTERNAL = 13,
};

struct call {
  struct list link;
  uint32_t stream_id;
  /* The call is over without an answer of its owner's; it is unregistered already. */
  void (*drop)(struct call *call);
  /* Data frames of a stream; NULL for a unary call. False when the call is gone. */
  void (*data)(struct call *call, const struct frame *frame);
  struct timer deadline;
};

/* False, and answered, when there are too many. `timeout_ns` 0: none. */
bool call_begin(struct call *call, uint32_t stream_id, int64_t timeout_ns);
/* Answers and unregisters; `payload` may be NULL. */
void call_finish(struct call *call, enum status_code code, const char *message, const struct buf *payload);
bool call_is_pending(uint32_t stream_id);
/* The epoch is over. */
void calls_drop_all(void);
/* The same, and each is answered. */
void calls_abort_all(const char *why);

/* Takes a frame of an open epoch. */
void call_dispatch(const struct frame *frame);
void send_response(uint32_t stream_id, enum status_code code, const char *message, const uint8_t *payload, size_t size);

/* The three methods besides Hello; each is given the payload of its request. */
void batch_request(uint32_t stream_id, int64_t timeout_ns, const uint8_t *payload, size_t size);
void wait_request(uint32_t stream_id, int64_t timeout_ns, const uint8_t *payload, size_t size);
void attach_request(uint32_t stream_id, int64_t timeout_ns, const uint8_t *payload, size_t size);
