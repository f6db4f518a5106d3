/*
 * One byte channel of an object, between a descriptor and the stream that is attached.
 *
 *                 acked            sent              produced
 *   output  ────────┴────── kept ────┴───── to send ─────┴──── room ────   read from the descriptor
 *
 *                 acked                       received
 *   input   ────────┴──── not yet written ───────┴──── up to limit ─────   written to the descriptor
 *
 * Positions are offsets since the object began; the ring holds [acked, produced) or
 * [acked, received). A descriptor is read only while there is room: that is the back-pressure.
 */
#pragma once

#include <sys/uio.h>

#include "loop.h"

struct object;

enum channel_end { /* what becomes of the descriptor when the host's end of file was passed on */
  END_CLOSE,
  END_SHUTDOWN, /* a socket goes on in the other direction */
  END_TERMINAL, /* gets its end-of-file character, unless it is in raw mode */
  END_NOTHING,
};

struct channel {
  struct object *object;
  uint8_t index; /* 0: input */
  struct source source;
  int fd; /* -1: none, or gone */
  bool ready; /* readable, or writable */
  struct task task;
  uint8_t *ring;
  uint32_t capacity; /* a power of two */
  uint64_t acked;
  uint64_t end;   /* produced, or received */
  bool eof;       /* no more comes after `end` */
  int error;      /* the errno that ended it; 0: its end came in order */

  /* Output: what the attached stream was sent and may be sent. */
  uint64_t sent, limit;
  bool eof_sent;
  /* Makes output by another way than reading bytes; does what it can and returns. */
  void (*fill)(struct channel *channel);

  /* Input: what the stream was told last, and how the descriptor ends. */
  uint64_t told_acked;
  enum channel_end on_end;
  bool end_done;
  uint8_t last_byte; /* that was written */
  bool broken; /* nobody reads it any more: what comes is swallowed */
  /* Writes input in its own way: returns what it took of the contiguous `size`, or -errno. */
  ssize_t (*take)(struct channel *channel, const uint8_t *data, size_t size);
};

/* The channel owns the descriptor from now on (-1: none). NULL when it cannot be watched. */
struct channel *channel_output(struct object *object, uint8_t index, int fd);
struct channel *channel_input(struct object *object, int fd, enum channel_end on_end);
/* Gives a descriptor to a channel made without one; takes it in any case. -errno or 0. */
int channel_open(struct channel *channel, int fd);
void channel_free(struct channel *channel);
uint64_t channel_acked(const struct channel *channel); /* 0 for NULL */

/* Output: all or nothing, false when there is no room for it. */
bool channel_push(struct channel *channel, const void *data, size_t size);
/* Output: whether there is room for `size` bytes, after growing when that is allowed. */
bool channel_has_room(struct channel *channel, size_t size);
/* Output: nothing more comes. */
void channel_end_output(struct channel *channel);
/* Output: the host has everything before `acked`. */
void channel_ack(struct channel *channel, uint64_t acked);
/* Output: where bytes that are in the ring are; the number of pieces. */
int channel_pieces(const struct channel *channel, uint64_t offset, size_t size, struct iovec pieces[2]);
/* Reads, or writes, what is possible now. */
void channel_work(struct channel *channel);

/* Input: bytes at `offset` of the host's. NULL when taken, otherwise why not. */
const char *channel_receive(struct channel *channel, uint64_t offset, const uint8_t *data, size_t size, bool eof);
/* Input: forgets what was not written; the next stream brings it again. */
void channel_rewind(struct channel *channel);
/* Input: the descriptor takes nothing any more; what comes is swallowed. */
void channel_break(struct channel *channel);
uint64_t channel_input_limit(const struct channel *channel);
