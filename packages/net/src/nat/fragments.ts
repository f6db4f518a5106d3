/** Which connection the later fragments of a datagram belong to: only the first one has the ports. */
import { FRAGMENT_S, FRAGMENT_SLOTS } from './limits.ts';
import { mix } from './table.ts';

export class FragmentCache {
  readonly #source = new Int32Array(FRAGMENT_SLOTS);
  readonly #destination = new Int32Array(FRAGMENT_SLOTS);
  /** Identification above, protocol below; 0 with protocol 0: empty. */
  readonly #id = new Int32Array(FRAGMENT_SLOTS);
  readonly #entry = new Int32Array(FRAGMENT_SLOTS);
  readonly #sinceS = new Uint32Array(FRAGMENT_SLOTS);

  put(source: number, destination: number, id: number, protocol: number, entry: number, nowS: number): void {
    const key = (id << 8) | protocol;
    const slot = mix(source, destination, key) & (FRAGMENT_SLOTS - 1);
    this.#source[slot] = source;
    this.#destination[slot] = destination;
    this.#id[slot] = key;
    this.#entry[slot] = entry;
    this.#sinceS[slot] = nowS;
  }

  /** The connection, or -1. The caller checks that the entry still is one of these addresses. */
  get(source: number, destination: number, id: number, protocol: number, nowS: number): number {
    const key = (id << 8) | protocol;
    const slot = mix(source, destination, key) & (FRAGMENT_SLOTS - 1);
    const known =
      this.#id[slot] === key && this.#source[slot] === source && this.#destination[slot] === destination;
    return known && nowS - (this.#sinceS[slot] as number) < FRAGMENT_S ? (this.#entry[slot] as number) : -1;
  }
}
