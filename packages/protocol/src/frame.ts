/**
 * ttrpc frames.
 *
 * A frame is a ten-byte header (u32 data length, u32 stream id, u8 type, u8 flags; big endian) and the data. A stream
 * is one call: a request opens it, a response ends it, and between them a streaming call has data frames both ways.
 * Streams that the client opens have odd ids which only grow.
 *
 * The decoder takes the channel's bytes in whatever pieces they come. A frame that lies within one piece is handed on
 * as a view of it. One that does not is put together in a buffer which is used again for the next: so the data is
 * valid only until the handler returns.
 */
import { violation } from './errors.ts';
import { FRAME_DATA_BYTES_MAX } from './limits.ts';

export const FRAME_HEADER_BYTES = 10;

export const FrameType = { request: 1, response: 2, data: 3 } as const;

export const FrameFlag = {
  /** The sender sends no more on this stream. */
  remoteClosed: 1,
  /** The sender goes on sending on this stream. */
  remoteOpen: 2,
  /** There is no message in the frame (as opposed to an empty one). */
  noData: 4,
} as const;

const FLAGS_KNOWN = FrameFlag.remoteClosed | FrameFlag.remoteOpen | FrameFlag.noData;

/** Assembly buffers up to this size are kept; a chunk of the largest size fits. */
const ASSEMBLY_KEEP_BYTES = 128 * 1024;

/** Called with each frame, in order. `data` is valid until it returns. It may throw: then decoding ends. */
export type FrameHandler = (streamId: number, type: number, flags: number, data: Uint8Array) => void;

/** Writes a header at `at`. */
export function putFrameHeader(
  target: Uint8Array,
  at: number,
  dataBytes: number,
  streamId: number,
  type: number,
  flags: number,
): void {
  target[at] = dataBytes >>> 24;
  target[at + 1] = dataBytes >>> 16;
  target[at + 2] = dataBytes >>> 8;
  target[at + 3] = dataBytes;
  target[at + 4] = streamId >>> 24;
  target[at + 5] = streamId >>> 16;
  target[at + 6] = streamId >>> 8;
  target[at + 7] = streamId;
  target[at + 8] = type;
  target[at + 9] = flags;
}

/** A whole frame in one buffer. */
export function encodeFrame(streamId: number, type: number, flags: number, data: Uint8Array): Uint8Array {
  const frame = new Uint8Array(FRAME_HEADER_BYTES + data.length);
  putFrameHeader(frame, 0, data.length, streamId, type, flags);
  frame.set(data, FRAME_HEADER_BYTES);
  return frame;
}

export function readUint32(source: Uint8Array, at: number): number {
  const [a = 0, b = 0, c = 0, d = 0] = [source[at], source[at + 1], source[at + 2], source[at + 3]];
  return ((a << 24) | (b << 16) | (c << 8) | d) >>> 0;
}

export class FrameDecoder {
  readonly #onFrame: FrameHandler;
  readonly #header = new Uint8Array(FRAME_HEADER_BYTES);
  #headerFill = 0;
  #kept = new Uint8Array(0);
  /** Where the frame that began in an earlier piece is put together. */
  #assembly: Uint8Array | undefined;
  #assemblyFill = 0;
  #dataBytes = 0;
  #streamId = 0;
  #type = 0;
  #flags = 0;
  #stopped = false;

  constructor(onFrame: FrameHandler) {
    this.#onFrame = onFrame;
  }

  /** The decoder ignores everything from now on, also the rest of the piece it is in. */
  stop(): void {
    this.#stopped = true;
  }

  /** Throws `ERR_ARCBOX_AGENT_PROTOCOL` on a malformed header, and whatever the handler throws. */
  push(piece: Uint8Array): void {
    let at = 0;
    while (!this.#stopped) {
      if (this.#assembly !== undefined) {
        at = this.#assemble(this.#assembly, piece, at);
        if (this.#assemblyFill < this.#dataBytes) return;
        const data = this.#assembly.subarray(0, this.#dataBytes);
        this.#assembly = undefined;
        this.#headerFill = 0;
        this.#onFrame(this.#streamId, this.#type, this.#flags, data);
        continue;
      }
      if (this.#headerFill === 0 && piece.length - at >= FRAME_HEADER_BYTES) {
        this.#readHeader(piece, at);
        at += FRAME_HEADER_BYTES;
      } else {
        while (at < piece.length && this.#headerFill < FRAME_HEADER_BYTES) {
          this.#header[this.#headerFill++] = piece[at++] ?? 0;
        }
        if (this.#headerFill < FRAME_HEADER_BYTES) return;
        this.#readHeader(this.#header, 0);
      }
      if (piece.length - at >= this.#dataBytes) {
        const data = piece.subarray(at, at + this.#dataBytes);
        at += this.#dataBytes;
        this.#headerFill = 0;
        this.#onFrame(this.#streamId, this.#type, this.#flags, data);
      } else {
        this.#assembly = this.#allocate(this.#dataBytes);
        this.#assemblyFill = 0;
      }
    }
  }

  /** Whether the bytes so far end between two frames. */
  get atBoundary(): boolean {
    return this.#assembly === undefined && this.#headerFill === 0;
  }

  #assemble(assembly: Uint8Array, piece: Uint8Array, at: number): number {
    const bytes = Math.min(piece.length - at, this.#dataBytes - this.#assemblyFill);
    assembly.set(
      at === 0 && bytes === piece.length ? piece : piece.subarray(at, at + bytes),
      this.#assemblyFill,
    );
    this.#assemblyFill += bytes;
    return at + bytes;
  }

  #allocate(bytes: number): Uint8Array {
    if (bytes > ASSEMBLY_KEEP_BYTES) return new Uint8Array(bytes);
    if (this.#kept.length < bytes) this.#kept = new Uint8Array(ASSEMBLY_KEEP_BYTES);
    return this.#kept;
  }

  #readHeader(source: Uint8Array, at: number): void {
    this.#dataBytes = readUint32(source, at);
    this.#streamId = readUint32(source, at + 4);
    this.#type = source[at + 8] ?? 0;
    this.#flags = source[at + 9] ?? 0;
    if (this.#dataBytes > FRAME_DATA_BYTES_MAX) {
      throw violation(`A frame announces ${this.#dataBytes} bytes; the limit is ${FRAME_DATA_BYTES_MAX}`);
    }
    if (this.#type < FrameType.request || this.#type > FrameType.data) {
      throw violation(`A frame has the unknown type ${this.#type}`);
    }
    if ((this.#flags & ~FLAGS_KNOWN) !== 0) {
      throw violation(`A frame has the unknown flags 0x${this.#flags.toString(16)}`);
    }
  }
}
