/**
 * Keeps what has been read from host sockets within the arena: when chunks run out every relay stops reading at once,
 * and they go on when enough have come back.
 */
import { ARENA_CHUNKS_RESERVED } from '../limits.ts';
import type { Arena } from '../memory/arena.ts';

export interface GatedReader {
  stopReading(): void;
  maybeRead(): void;
}

export class ReadGate {
  readonly #arena: Arena;
  readonly #readers = new Set<GatedReader>();
  #closed = false;

  constructor(arena: Arena) {
    this.#arena = arena;
  }

  add(reader: GatedReader): void {
    this.#readers.add(reader);
  }

  remove(reader: GatedReader): void {
    this.#readers.delete(reader);
    this.check();
  }

  /** Whether reading is allowed; to be asked after every read. */
  check(): boolean {
    const free = this.#arena.freeChunks;
    if (!this.#closed) {
      if (free >= ARENA_CHUNKS_RESERVED) return true;
      this.#closed = true;
      for (const reader of this.#readers) reader.stopReading();
      return false;
    }
    if (free < 2 * ARENA_CHUNKS_RESERVED) return false;
    this.#closed = false;
    for (const reader of [...this.#readers]) reader.maybeRead();
    return !this.#closed;
  }
}
