/** Named limits of the daemon and its clients. Sizes are bytes, times are milliseconds. */

/** Payload of one stdio frame. */
export const FRAME_BYTES_MAX = 1024 * 1024;
/** Payload of a frame that is not data. */
export const CONTROL_FRAME_BYTES_MAX = 64 * 1024;
/** Input that a client sends before the daemon has said that it was accepted. */
export const INPUT_WINDOW_BYTES = 256 * 1024;
/** Input that the daemon holds for one client before it stops reading it; signals come on the same connection. */
export const INPUT_QUEUE_BYTES = 2 * INPUT_WINDOW_BYTES;
/** What a frame in that queue counts besides its bytes. */
export const INPUT_FRAME_COST_BYTES = 64;
/** The largest answer that our client takes: a listing of as many containers as there can be. */
export const ANSWER_BYTES_MAX = 64 * 1024 * 1024;
/** Records shorter than this are copied together before they are sent. */
export const SMALL_RECORD_BYTES = 2048;
/** How long a new connection may take to say what it speaks and, over HTTP/1.1, to send the headers of a request. */
export const PREFACE_TIMEOUT_MS = 10_000;
/** Connections to the socket at one time. */
export const CONNECTIONS_MAX = 1024;
/** So long after its last connection has closed, the daemon gives back memory that it needs no more. */
export const QUIET_MS = 3000;
/** The largest message that a service takes. */
export const MESSAGE_BYTES_MAX = 4 * 1024 * 1024;
/** When the daemon ends: how long answers that are streams have to reach their clients. */
export const STREAM_END_TIMEOUT_MS = 500;
/** After the exit frame, how long a client has to say that it has everything. */
export const FAREWELL_TIMEOUT_MS = 10_000;
/** A client whose body was refused has so long to read why. */
export const REFUSED_BODY_TIMEOUT_MS = 10_000;
/** How long a daemon has to become ready. */
export const DAEMON_START_TIMEOUT_MS = 20_000;
/** So many daemons that end without a word are enough to give up. */
export const DAEMON_START_DEATHS_MAX = 5;
/** How long a stopping daemon has to go. */
export const DAEMON_STOP_TIMEOUT_MS = 60_000;
/** Back-off while another process starts the daemon. */
export const CONNECT_RETRY_MS_MIN = 1;
export const CONNECT_RETRY_MS_MAX = 50;
/** Back-off of starting another daemon while one has the lock: it is starting, or it is stopping its containers. */
export const SPAWN_RETRY_MS_MIN = 50;
export const SPAWN_RETRY_MS_MAX = 1000;
/** The daemon's log is set aside at start when it is larger. */
export const DAEMON_LOG_BYTES_MAX = 10 * 1024 * 1024;
