/**
 * Standard streams over one connection: what follows `101 Switching Protocols` with `Upgrade: arcbox-stream`.
 *
 * A frame is a byte of type, three zero bytes, the payload's length as a big-endian u32, and the payload.
 *
 *   client to daemon                         daemon to client
 *   1  stdin: bytes                          17 stdout: bytes
 *   2  end of stdin                          18 stderr: bytes
 *   3  resize: u32 rows, u32 columns         19 cursor: u64, a position in the log
 *   4  signal: u32                           20 input: u64 acknowledged, u64 accepted
 *   5  farewell: the client has everything   21 exit: JSON {"exitCode", "error"}
 *                                            22 error: JSON {"code", "message"}; "final": true when the stream ends
 *                                            23 ping: empty; says nothing
 *
 * Resuming. A cursor frame says that what came before it is what the log has before that position. A client that loses
 * the connection connects again with the last cursor it got, and skips as many bytes of output as it had received since:
 * the log has the same bytes in the same order. Input has offsets, counted from the start of the run: a client keeps
 * what is not acknowledged and, after it came back, sends again from the first offset that was not accepted.
 */
import { ApiError } from '../errors.ts';
import { CONTROL_FRAME_BYTES_MAX, FRAME_BYTES_MAX } from '../limits.ts';

export const FrameType = {
  stdin: 1,
  stdinEnd: 2,
  resize: 3,
  signal: 4,
  farewell: 5,
  stdout: 17,
  stderr: 18,
  cursor: 19,
  input: 20,
  exit: 21,
  error: 22,
  ping: 23,
} as const;

export const FRAME_HEADER_BYTES = 8;
export const UPGRADE_PROTOCOL = 'arcbox-stream';

/** Frames whose payload is handed on as it comes; all others arrive whole. */
const DATA_FRAMES: ReadonlySet<number> = new Set([FrameType.stdin, FrameType.stdout, FrameType.stderr]);

export interface ExitPayload {
  readonly exitCode: number;
  readonly error: string;
}

export interface ErrorPayload {
  readonly code: string;
  readonly message: string;
  /** The stream ends with it, and there is no use in coming back. */
  readonly final?: true;
}

export function frameHeader(type: number, lengthBytes: number): Buffer {
  const header = Buffer.allocUnsafe(FRAME_HEADER_BYTES);
  writeFrameHeader(header, 0, type, lengthBytes);
  return header;
}

export function writeFrameHeader(target: Buffer, at: number, type: number, lengthBytes: number): void {
  target.writeUInt32LE(type, at);
  target.writeUInt32BE(lengthBytes, at + 4);
}

export function frame(type: number, payload: Uint8Array = new Uint8Array(0)): Buffer {
  return Buffer.concat([frameHeader(type, payload.length), payload]);
}

export function jsonFrame(type: number, value: ExitPayload | ErrorPayload): Buffer {
  return frame(type, Buffer.from(JSON.stringify(value)));
}

/** A frame of up to four unsigned numbers, each `bytes` (4 or 8) long. */
export function numbersFrame(type: number, bytes: 4 | 8, ...values: readonly number[]): Buffer {
  const payload = Buffer.alloc(values.length * bytes);
  values.forEach((value, index) => {
    if (bytes === 4) payload.writeUInt32BE(value, index * 4);
    else payload.writeBigUInt64BE(BigInt(value), index * 8);
  });
  return frame(type, payload);
}

/** The numbers of such a frame. Throws `ERR_ARCBOX_STREAM_PROTOCOL` unless there are exactly `count`. */
export function readNumbers(payload: Buffer, bytes: 4 | 8, count: number): number[] {
  if (payload.length !== bytes * count)
    throw protocolError(`a frame of ${bytes * count} bytes has ${payload.length}`);
  return Array.from({ length: count }, (_, index) =>
    bytes === 4 ? payload.readUInt32BE(index * 4) : Number(payload.readBigUInt64BE(index * 8)),
  );
}

/** Takes bytes as they come; gives pieces of data frames at once and other frames when they are whole. */
export class FrameDecoder {
  readonly #onFrame: (type: number, payload: Buffer) => void;
  readonly #header = Buffer.alloc(FRAME_HEADER_BYTES);
  #headerBytes = 0;
  #type = 0;
  /** Of the payload, still to come. */
  #remaining = 0;
  #control: Buffer | undefined;

  constructor(onFrame: (type: number, payload: Buffer) => void) {
    this.#onFrame = onFrame;
  }

  /** Nothing of a frame is half here. */
  get atBoundary(): boolean {
    return this.#headerBytes === 0 && this.#remaining === 0;
  }

  /** Throws `ERR_ARCBOX_STREAM_PROTOCOL` at a frame that cannot be. */
  push(bytes: Buffer): void {
    let at = 0;
    while (at < bytes.length) {
      if (this.#remaining === 0) {
        const take = Math.min(FRAME_HEADER_BYTES - this.#headerBytes, bytes.length - at);
        bytes.copy(this.#header, this.#headerBytes, at, at + take);
        this.#headerBytes += take;
        at += take;
        if (this.#headerBytes < FRAME_HEADER_BYTES) return;
        this.#headerBytes = 0;
        this.#begin();
      } else {
        const piece = bytes.subarray(at, at + this.#remaining);
        at += piece.length;
        this.#take(piece);
      }
    }
  }

  #begin(): void {
    this.#type = this.#header.readUInt32LE(0);
    this.#remaining = this.#header.readUInt32BE(4);
    if (this.#type > 255) throw protocolError('a frame begins with what is no frame header');
    const limit = DATA_FRAMES.has(this.#type) ? FRAME_BYTES_MAX : CONTROL_FRAME_BYTES_MAX;
    if (this.#remaining > limit) {
      throw protocolError(
        `a frame of type ${this.#type} has ${this.#remaining} bytes; the limit is ${limit}`,
      );
    }
    if (this.#remaining === 0) this.#onFrame(this.#type, Buffer.alloc(0));
  }

  #take(piece: Buffer): void {
    if (DATA_FRAMES.has(this.#type)) {
      this.#remaining -= piece.length;
      this.#onFrame(this.#type, piece);
      return;
    }
    this.#control ??= Buffer.alloc(this.#remaining);
    piece.copy(this.#control, this.#control.length - this.#remaining);
    this.#remaining -= piece.length;
    if (this.#remaining > 0) return;
    const payload = this.#control;
    this.#control = undefined;
    this.#onFrame(this.#type, payload);
  }
}

function protocolError(message: string): ApiError {
  return new ApiError('ERR_ARCBOX_STREAM_PROTOCOL', message);
}
