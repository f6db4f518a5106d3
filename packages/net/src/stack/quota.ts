/** How much of a table that all machines of a network share each of them has, by MAC address. */
import { u16, u32 } from '../wire/bytes.ts';

/** A MAC address as a number of 48 bits. */
export function macKey(bytes: Uint8Array, at: number): number {
  return u16(bytes, at) * 0x1_0000_0000 + u32(bytes, at + 2);
}

export class Quota {
  readonly #max: number;
  /** Only of those that have something. */
  readonly #held = new Map<number, number>();

  constructor(max: number) {
    this.#max = max;
  }

  /** One more. False: it has its share. */
  take(mac: number): boolean {
    const held = this.#held.get(mac) ?? 0;
    if (held >= this.#max) return false;
    this.#held.set(mac, held + 1);
    return true;
  }

  give(mac: number): void {
    const left = (this.#held.get(mac) ?? 1) - 1;
    if (left <= 0) this.#held.delete(mac);
    else this.#held.set(mac, left);
  }
}
