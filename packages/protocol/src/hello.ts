/**
 * Finds the answer to `Hello` in a channel that may begin with anything.
 *
 * What comes first can be the rest of a frame, and whole frames, of an earlier connection. So the answer is searched
 * for by its nonce, the first field of `HelloResponse`: 0a 10 and sixteen random bytes. Before it stand, in the same
 * frame, the header and at most the tags around it. A candidate counts only when the whole frame decodes.
 */
import { fromBinary } from '@bufbuild/protobuf';
import { FRAME_HEADER_BYTES, FrameType, readUint32 } from './frame.ts';
import { type HelloResponse, HelloResponseSchema } from './gen/arcbox/agent/v1/agent_pb.ts';
import { ResponseSchema } from './gen/ttrpc/ttrpc_pb.ts';
import { HELLO_ANSWER_BYTES_MAX } from './limits.ts';

/** Bytes that can stand between the header and the nonce: an OK status, the tag and length of the payload. */
const BETWEEN_BYTES_MAX = 32;
const BEFORE_BYTES_MAX = FRAME_HEADER_BYTES + BETWEEN_BYTES_MAX;

export interface HelloAnswer {
  readonly hello: HelloResponse;
  /** What came after it. */
  readonly rest: Uint8Array;
}

export class HelloScanner {
  readonly #streamId: number;
  readonly #pattern: Buffer;
  #buffer: Buffer = Buffer.alloc(0);
  /** Bytes seen so far that were not part of the answer. */
  skippedBytes = 0;

  constructor(streamId: number, nonce: Uint8Array) {
    this.#streamId = streamId;
    this.#pattern = Buffer.concat([Buffer.from([0x0a, nonce.length]), nonce]);
  }

  push(piece: Uint8Array): HelloAnswer | undefined {
    this.#buffer = this.#buffer.length === 0 ? Buffer.from(piece) : Buffer.concat([this.#buffer, piece]);
    let from = 0;
    for (;;) {
      const found = this.#buffer.indexOf(this.#pattern, from);
      if (found < 0) {
        // The pattern may have begun at the very end; its header is before it.
        this.#drop(Math.max(from, this.#buffer.length - BEFORE_BYTES_MAX - this.#pattern.length));
        return undefined;
      }
      const answer = this.#answerAround(found);
      if (answer === 'incomplete') {
        this.#drop(Math.max(0, found - BEFORE_BYTES_MAX));
        return undefined;
      }
      if (answer !== undefined) return answer;
      from = found + 1;
    }
  }

  #drop(bytes: number): void {
    if (bytes <= 0) return;
    this.skippedBytes += bytes;
    this.#buffer = this.#buffer.subarray(bytes);
  }

  #answerAround(nonceAt: number): HelloAnswer | 'incomplete' | undefined {
    const first = Math.max(0, nonceAt - BEFORE_BYTES_MAX);
    for (let at = nonceAt - FRAME_HEADER_BYTES; at >= first; at--) {
      const dataBytes = readUint32(this.#buffer, at);
      if (dataBytes > HELLO_ANSWER_BYTES_MAX || readUint32(this.#buffer, at + 4) !== this.#streamId) continue;
      if (this.#buffer[at + 8] !== FrameType.response) continue;
      const end = at + FRAME_HEADER_BYTES + dataBytes;
      if (end < nonceAt + this.#pattern.length) continue;
      if (end > this.#buffer.length) return 'incomplete';
      // An answer that was cut off and then sent again: the second one counts.
      if (this.#buffer.subarray(nonceAt + 1, end).includes(this.#pattern)) continue;
      const hello = this.#decode(this.#buffer.subarray(at + FRAME_HEADER_BYTES, end));
      if (hello === undefined) continue;
      this.skippedBytes += at;
      return { hello, rest: this.#buffer.subarray(end) };
    }
    return undefined;
  }

  #decode(data: Uint8Array): HelloResponse | undefined {
    try {
      const response = fromBinary(ResponseSchema, data);
      const hello = fromBinary(HelloResponseSchema, response.payload);
      return this.#pattern.subarray(2).equals(hello.nonce) ? hello : undefined;
    } catch {
      // Not the answer after all: a nonce cut off in the middle of its frame.
      return undefined;
    }
  }
}
