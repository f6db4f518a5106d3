/** Named limits of the agent protocol. Sizes are bytes, times are milliseconds. */

export const PROTOCOL_VERSION = 1;

/** Data of one ttrpc frame (the reference implementation's limit). */
export const FRAME_DATA_BYTES_MAX = 4 * 1024 * 1024;

/** Data of one `Chunk`. */
export const CHUNK_DATA_BYTES_MAX = 64 * 1024;

/** Operations of one batch. */
export const BATCH_OPS_MAX = 256;

/** How far the agent may run ahead of what the host has written, for each output channel. */
export const STREAM_WINDOW_BYTES = 1024 * 1024;

/** Input that is held for an object that has not acknowledged it, whatever credit its agent gives. */
export const INPUT_UNACKED_BYTES_MAX = 4 * 1024 * 1024;

/** Of what the agent says about a failure, so much is kept. */
export const DETAIL_LENGTH_MAX = 4096;

/** Calls and streams in flight on one connection. */
export const CALLS_MAX = 1024;

/** Bytes of an object's name. */
export const OBJECT_ID_BYTES_MAX = 64;

/** Bulk senders wait for the channel once this much is queued in it. */
export const SEND_QUEUE_BYTES = 512 * 1024;

/** What the channel may hold in all, control frames included, before the connection is given up. */
export const SEND_QUEUE_BYTES_MAX = 64 * 1024 * 1024;

/** An acknowledgement goes out at once when it frees this share of the window, ... */
export const CREDIT_SHARE = 1 / 4;

/** ... otherwise at the latest after this long. */
export const CREDIT_DELAY_MS = 10;

/** `Hello` is sent again after this long, doubling up to the maximum. */
export const HELLO_RETRY_MS = 50;
export const HELLO_RETRY_MS_MAX = 1000;

/** Bytes of the answer to `Hello`, its frame header included. */
export const HELLO_ANSWER_BYTES_MAX = 1024;

/** Bytes of the handshake's nonce and of a machine's secret. */
export const NONCE_BYTES = 16;
export const SECRET_BYTES = 16;

/** How long `close` waits for the channel to take what was queued. */
export const CLOSE_TIMEOUT_MS = 1000;
