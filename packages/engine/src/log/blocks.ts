/**
 * Memory for records on their way: small blocks are made as they are needed, large ones, which only a container at full
 * speed fills, are used again. Allocating them anew costs as much as writing them.
 */
import { LOG_BLOCK_BYTES, LOG_BLOCK_BYTES_MIN, LOG_POOL_BLOCKS, LOG_POOL_IDLE_MS } from '../limits.ts';
import type { RunState } from './record.ts';

/** Complete records, being collected or already in the log. */
export class Block {
  readonly buffer: Buffer;
  used = 0;
  /** Position in the log; set when the block is written. */
  position = -1;
  /** Offsets, per channel, that may be acknowledged once the block is written. */
  readonly after: [number, number];
  /** The state before its first record, as a checkpoint would say it. */
  readonly before: RunState;
  #uses = 1;

  constructor(buffer: Buffer, state: RunState) {
    this.buffer = buffer;
    const [one, two] = state.channels;
    this.after = [one.next, two.next];
    this.before = { run: state.run, channels: [{ ...one }, { ...two }] };
  }

  /** Somebody else looks at it, too. */
  retain(): this {
    this.#uses += 1;
    return this;
  }

  /** One of them has done with it. */
  release(): void {
    this.#uses -= 1;
    if (this.#uses === 0) giveBack(this.buffer);
  }
}

let free: Buffer[] = [];
let idle: NodeJS.Timeout | undefined;

/** A block with room for `bytes`; a large one when `bulk`. */
export function takeBlock(bytes: number, bulk: boolean, state: RunState): Block {
  if (!bulk || bytes > LOG_BLOCK_BYTES) {
    return new Block(Buffer.allocUnsafeSlow(Math.max(bytes, LOG_BLOCK_BYTES_MIN)), state);
  }
  return new Block(free.pop() ?? Buffer.allocUnsafeSlow(LOG_BLOCK_BYTES), state);
}

function giveBack(buffer: Buffer): void {
  if (buffer.length !== LOG_BLOCK_BYTES || free.length >= LOG_POOL_BLOCKS) return;
  free.push(buffer);
  if (idle !== undefined) return;
  idle = setTimeout(() => {
    idle = undefined;
    free = [];
  }, LOG_POOL_IDLE_MS).unref();
}
