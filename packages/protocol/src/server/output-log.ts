import { ProtocolError } from '../errors.ts';

/** What an object may have written and the host not acknowledged, for each channel. */
export const OUTPUT_LOG_BYTES = 4 * 1024 * 1024;

interface Piece {
  readonly offset: number;
  readonly data: Uint8Array;
}

/**
 * An output channel as the agent keeps it: written by the object, read by whichever stream is attached, forgotten up
 * to what the host acknowledged. It outlives connections.
 */
export class OutputLog {
  /** Called when there is more to read. One listener: a second attachment ends the first. */
  onMore: (() => void) | undefined;
  #pieces: Piece[] = [];
  #acked = 0;
  #end = 0;
  #finished = false;
  #room: PromiseWithResolvers<void> | undefined;

  get acked(): number {
    return this.#acked;
  }

  /** Offset after the last byte. */
  get end(): number {
    return this.#end;
  }

  get finished(): boolean {
    return this.#finished;
  }

  /** Takes the bytes (they may not be changed afterwards); answered when there is room for more. */
  write(data: Uint8Array): Promise<void> {
    if (this.#finished) {
      throw new ProtocolError(
        'ERR_ARCBOX_AGENT_STREAM_ENDED',
        'The output channel has already been finished',
      );
    }
    if (data.length > 0) {
      this.#pieces.push({ offset: this.#end, data });
      this.#end += data.length;
      this.onMore?.();
    }
    if (this.#end - this.#acked < OUTPUT_LOG_BYTES) return Promise.resolve();
    this.#room ??= Promise.withResolvers<void>();
    return this.#room.promise;
  }

  finish(): void {
    this.#finished = true;
    this.#room?.resolve();
    this.#room = undefined;
    this.onMore?.();
  }

  /** At most `bytes` bytes from `offset`, without crossing the bounds of a write; empty when there are none. */
  read(offset: number, bytes: number): Uint8Array {
    let low = 0;
    let high = this.#pieces.length - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      const piece = this.#pieces[middle];
      if (piece === undefined) break;
      if (offset < piece.offset) high = middle - 1;
      else if (offset >= piece.offset + piece.data.length) low = middle + 1;
      else return piece.data.subarray(offset - piece.offset, offset - piece.offset + bytes);
    }
    return new Uint8Array(0);
  }

  /** The host has everything before `offset`. */
  ack(offset: number): void {
    if (offset <= this.#acked) return;
    this.#acked = offset;
    let done = 0;
    while (done < this.#pieces.length) {
      const piece = this.#pieces[done];
      if (piece === undefined || piece.offset + piece.data.length > offset) break;
      done++;
    }
    if (done > 0) this.#pieces.splice(0, done);
    if (this.#end - this.#acked < OUTPUT_LOG_BYTES) {
      this.#room?.resolve();
      this.#room = undefined;
    }
  }
}
