/**
 * The memory that frames go through: one WebAssembly memory of a fixed size, so that the kernels reach all of it.
 *
 *   0 scratch │ ports: receive and send buffers, one block each │ chunks
 *
 * Memory is reserved by the machine's virtual memory and takes RAM once it is written. Blocks and chunks come back to
 * a stack, so the one used last, which is in the cache, is the next to be used.
 */
import { NetError } from '../errors.ts';
import {
  ARENA_CHUNK_BYTES,
  ARENA_CHUNKS,
  FRAME_BYTES_MAX,
  HOST_READ_BYTES,
  LINK_RECEIVE_BYTES,
  LINK_SEND_BYTES,
  PORTS_MAX,
} from '../limits.ts';
import { type Kernels, loadKernels } from './kernels.ts';
import { wasm } from './webassembly.ts';

const PAGE_BYTES = 65_536;
const pages = (bytes: number): number => Math.ceil(bytes / PAGE_BYTES);

/** A frame of our own that is being put together, or a datagram that is being reassembled. */
const SCRATCH_BYTES = pages(2 * FRAME_BYTES_MAX) * PAGE_BYTES;
export const PORT_BLOCK_BYTES: number =
  pages(LINK_RECEIVE_BYTES + FRAME_BYTES_MAX + 2 * LINK_SEND_BYTES + 64) * PAGE_BYTES;

export interface ArenaOptions {
  /** Links at a time. */
  readonly ports?: number;
  /** Chunks of 32 KiB for the data of connections. */
  readonly chunks?: number;
}

export class Arena {
  readonly bytes: Uint8Array;
  readonly kernels: Kernels;
  /** Where a packet may be put together; used within one call only. */
  readonly scratch = 0;
  /** Where host sockets read into. */
  readonly hostRead: number;
  readonly chunksTotal: number;
  /** One view for every chunk, so that handing one out makes no object. */
  readonly #views: readonly Uint8Array[];
  readonly #freeChunks: Int32Array;
  #freeChunkCount: number;
  readonly #freeBlocks: number[] = [];
  readonly #chunkBase: number;

  constructor(options: ArenaOptions = {}) {
    const ports = options.ports ?? PORTS_MAX;
    const chunks = options.chunks ?? ARENA_CHUNKS;
    this.hostRead = SCRATCH_BYTES;
    const portBase = SCRATCH_BYTES + pages(HOST_READ_BYTES) * PAGE_BYTES;
    this.#chunkBase = portBase + ports * PORT_BLOCK_BYTES;
    const total = pages(this.#chunkBase + chunks * ARENA_CHUNK_BYTES);
    const memory = new wasm.Memory({ initial: total, maximum: total });
    this.bytes = new Uint8Array(memory.buffer);
    this.kernels = loadKernels(memory, total);
    this.chunksTotal = chunks;
    this.#freeChunks = new Int32Array(chunks);
    for (let i = 0; i < chunks; i += 1) this.#freeChunks[i] = chunks - 1 - i;
    this.#freeChunkCount = chunks;
    this.#views = Array.from({ length: chunks }, (_, i) => this.view(this.chunkAt(i), ARENA_CHUNK_BYTES));
    for (let i = ports - 1; i >= 0; i -= 1) this.#freeBlocks.push(portBase + i * PORT_BLOCK_BYTES);
  }

  view(at: number, length: number): Uint8Array {
    return this.bytes.subarray(at, at + length);
  }

  get freeChunks(): number {
    return this.#freeChunkCount;
  }

  /** The offset of a chunk. */
  chunkAt(chunk: number): number {
    return this.#chunkBase + chunk * ARENA_CHUNK_BYTES;
  }

  /** The bytes `[from, to)` of a chunk. */
  chunkView(chunk: number, from: number, to: number): Uint8Array {
    const whole = this.#views[chunk] as Uint8Array;
    return from === 0 && to === ARENA_CHUNK_BYTES ? whole : whole.subarray(from, to);
  }

  /** A chunk's number, or -1 when there is none. */
  takeChunk(): number {
    if (this.#freeChunkCount === 0) return -1;
    this.#freeChunkCount -= 1;
    return this.#freeChunks[this.#freeChunkCount] as number;
  }

  giveChunk(chunk: number): void {
    this.#freeChunks[this.#freeChunkCount] = chunk;
    this.#freeChunkCount += 1;
  }

  /** The buffers of a link. @throws {NetError} ERR_ARCBOX_NET_EXHAUSTED */
  takePortBlock(): number {
    const block = this.#freeBlocks.pop();
    if (block === undefined) {
      throw new NetError(
        'ERR_ARCBOX_NET_EXHAUSTED',
        'All links of this network worker are in use: stop a machine, or raise PORTS_MAX',
      );
    }
    return block;
  }

  givePortBlock(block: number): void {
    this.#freeBlocks.push(block);
  }
}
