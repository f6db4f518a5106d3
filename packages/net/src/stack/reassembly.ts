/**
 * Fragments of IP packets (RFC 791, RFC 8200 section 4.5) wait here until the rest has come. Everything is bounded:
 * datagrams, fragments, bytes, time; the oldest datagram gives way. A datagram with overlapping fragments is dropped
 * whole (RFC 5722): nobody sends such by mistake.
 */
import {
  REASSEMBLY_BYTES_MAX,
  REASSEMBLY_DATAGRAMS_MAX,
  REASSEMBLY_FRAGMENTS_MAX,
  REASSEMBLY_TIMEOUT_MS,
} from '../limits.ts';

const PAYLOAD_BYTES_MAX = 65_535;

interface Part {
  readonly offset: number;
  readonly data: Uint8Array;
}

interface Datagram {
  readonly expiresMs: number;
  readonly parts: Part[];
  bytes: number;
  /** Known once the last fragment has come. */
  total: number | undefined;
}

export class Reassembly {
  /** In the order in which their first fragments came. */
  readonly #datagrams = new Map<string, Datagram>();
  #bytes = 0;
  dropped = 0;

  get size(): number {
    return this.#datagrams.size;
  }

  /**
   * Takes a fragment: `offset` in bytes, `more` when others follow. Returns the whole payload when it is complete.
   * `key` names the datagram: addresses, protocol, identification.
   */
  add(key: string, offset: number, more: boolean, data: Uint8Array, nowMs: number): Uint8Array | undefined {
    this.#expire(nowMs);
    // All but the last are multiples of eight (RFC 8200 section 4.5), and none is empty.
    if (data.length === 0 || (more && data.length % 8 !== 0) || offset + data.length > PAYLOAD_BYTES_MAX) {
      this.#drop(key);
      return undefined;
    }
    let datagram = this.#datagrams.get(key);
    if (datagram === undefined) {
      datagram = { expiresMs: nowMs + REASSEMBLY_TIMEOUT_MS, parts: [], bytes: 0, total: undefined };
      this.#datagrams.set(key, datagram);
      if (this.#datagrams.size > REASSEMBLY_DATAGRAMS_MAX) this.#dropOldest();
    }
    if (!this.#fits(datagram, offset, more, data)) {
      // The same fragment twice is not an overlap.
      if (!datagram.parts.some((part) => part.offset === offset && part.data.length === data.length)) {
        this.#drop(key);
      }
      return undefined;
    }
    datagram.parts.push({ offset, data: data.slice() });
    datagram.bytes += data.length;
    this.#bytes += data.length;
    if (!more) datagram.total = offset + data.length;
    if (datagram.total === datagram.bytes) {
      this.#forget(key, datagram);
      const whole = new Uint8Array(datagram.bytes);
      for (const part of datagram.parts) whole.set(part.data, part.offset);
      return whole;
    }
    while (this.#bytes > REASSEMBLY_BYTES_MAX) this.#dropOldest();
    return undefined;
  }

  #fits(datagram: Datagram, offset: number, more: boolean, data: Uint8Array): boolean {
    const end = offset + data.length;
    if (datagram.parts.length >= REASSEMBLY_FRAGMENTS_MAX) return false;
    if (datagram.total !== undefined && (!more || end > datagram.total)) return false;
    for (const part of datagram.parts) {
      if (part.offset < end && offset < part.offset + part.data.length) return false;
      if (!more && part.offset + part.data.length > end) return false;
    }
    return true;
  }

  #expire(nowMs: number): void {
    for (const [key, datagram] of this.#datagrams) {
      if (datagram.expiresMs > nowMs) return;
      this.dropped += 1;
      this.#forget(key, datagram);
    }
  }

  #dropOldest(): void {
    for (const [key, datagram] of this.#datagrams) {
      this.dropped += 1;
      this.#forget(key, datagram);
      return;
    }
  }

  #drop(key: string): void {
    this.dropped += 1;
    const datagram = this.#datagrams.get(key);
    if (datagram !== undefined) this.#forget(key, datagram);
  }

  #forget(key: string, datagram: Datagram): void {
    this.#datagrams.delete(key);
    this.#bytes -= datagram.bytes;
  }
}
