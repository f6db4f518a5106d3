/**
 * Fills the holes of a sparse file with zeros: sqfstar finds blocks of zeros by itself and does not store them, while of
 * the forms that a sparse file has in a tar it understands some maps and stumbles over others.
 */
import type { SparseMap } from '../tar/header.ts';

/** Written again and again, so that a hole of any size takes no memory. */
const ZEROS = Buffer.alloc(1024 * 1024);

interface Sink {
  write(bytes: Buffer): void;
}

export class SparseFill {
  readonly #map: SparseMap;
  /** Index of the piece whose data comes now. */
  #piece = 0;
  /** How much of it has come. */
  #done = 0;
  #position = 0;

  constructor(map: SparseMap) {
    this.#map = map;
  }

  /** The next stored bytes; the map has been checked, so there is a piece for each of them. */
  data(bytes: Buffer, sink: Sink): void {
    const { pieces } = this.#map;
    for (let at = 0; at < bytes.length; ) {
      const offset = pieces[this.#piece] ?? this.#position;
      const length = pieces[this.#piece + 1] ?? bytes.length - at;
      if (this.#done === length) {
        this.#piece += 2;
        this.#done = 0;
        continue;
      }
      this.#fillTo(offset + this.#done, sink);
      const take = Math.min(length - this.#done, bytes.length - at);
      sink.write(bytes.subarray(at, at + take));
      this.#position += take;
      this.#done += take;
      at += take;
    }
  }

  end(sink: Sink): void {
    this.#fillTo(this.#map.realBytes, sink);
  }

  #fillTo(position: number, sink: Sink): void {
    while (this.#position < position) {
      const take = Math.min(position - this.#position, ZEROS.length);
      sink.write(ZEROS.subarray(0, take));
      this.#position += take;
    }
  }
}
