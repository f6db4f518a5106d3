/*
 * Batch: operations one after the other, ended by the first that fails.
 *
 * An operation either is done at once, or is pending: then what it waits for holds an `op_wait`,
 * and the batch stands still until batch_op_done(). Other batches go on. When the epoch ends before
 * that, the wait loses its batch and what it did is simply not reported.
 */
#pragma once

#include "msg.h"

struct batch;

/* Embedded in whatever finishes a pending operation. */
struct op_wait {
  struct batch *batch; /* NULL: nobody asks any more */
};

enum op_state { OP_DONE, OP_PENDING };

/* What an operation works with; valid until it is done. */
struct op_context {
  struct batch *batch;
  struct arena *arena; /* for strings and data of the result */
};

/* Sets errno and a sentence "WHAT: strerror", and is OP_DONE. `error` may be negative. */
enum op_state op_fail(struct op_context *context, OpResult *result, int error, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
enum op_state op_pending(struct op_context *context, struct op_wait *wait);
/* Finishes a pending operation; what `result` points to is used up when this returns. */
void batch_op_done(struct op_wait *wait, const OpResult *result);
/* The same with a result that is encoded already; `error` is its errno. */
void batch_op_done_encoded(struct op_wait *wait, int error, const uint8_t *result, size_t size);
void batch_op_failed(struct op_wait *wait, int error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Runs the operation in a forked child; see job.c. */
typedef void (*job_run)(struct op_context *context, const Op *op, OpResult *result);
enum op_state job_start(struct op_context *context, const Op *op, job_run run);
