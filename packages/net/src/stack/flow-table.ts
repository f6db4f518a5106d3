/**
 * Finds the flow of a packet: a hash table with open addressing over the five-tuple, keyed by words, so that looking
 * one up makes no object. The hash is keyed with a secret, for the other side chooses addresses and ports.
 *
 * The key is from the guest's point of view: local is the guest's address and port, remote the other's.
 */
import type { FlowKey } from './packet.ts';

const KEY_WORDS = 10;
const EMPTY = -1;
const GONE = -2;
const SLOTS_MIN = 64;

export class FlowTable<T> {
  readonly #max: number;
  readonly #secret: number;
  /** Index into `#values`, `EMPTY` or `GONE`. */
  #slots: Int32Array = new Int32Array(SLOTS_MIN).fill(EMPTY);
  #keys: Int32Array = new Int32Array(SLOTS_MIN * KEY_WORDS);
  #values: (T | undefined)[] = new Array<T | undefined>(SLOTS_MIN).fill(undefined);
  #size = 0;
  #gone = 0;
  /** The flow found last: packets come in trains. */
  #lastSlot = -1;

  constructor(max: number, secret: number) {
    this.#max = max;
    this.#secret = secret | 0;
  }

  get size(): number {
    return this.#size;
  }

  get full(): boolean {
    return this.#size >= this.#max;
  }

  /** The flow of a packet that the guest sent; `ports` is source port · 65536 + destination port, as a signed number. */
  find(packet: FlowKey, ports: number): T | undefined {
    const slot = this.#slotOf(packet, ports);
    return slot < 0 ? undefined : this.#values[slot];
  }

  /** Adds the flow of `packet`, which must not be there. False when the table is full. */
  add(packet: FlowKey, ports: number, value: T): boolean {
    if (this.full) return false;
    if ((this.#size + this.#gone) * 2 >= this.#slots.length) this.#rehash();
    const mask = this.#slots.length - 1;
    let slot = hashOf(packet, ports, this.#secret) & mask;
    while ((this.#slots[slot] as number) >= 0) slot = (slot + 1) & mask;
    if (this.#slots[slot] === GONE) this.#gone -= 1;
    this.#slots[slot] = slot;
    const key = slot * KEY_WORDS;
    const keys = this.#keys;
    keys[key] = packet.source0;
    keys[key + 1] = packet.source1;
    keys[key + 2] = packet.source2;
    keys[key + 3] = packet.source3;
    keys[key + 4] = packet.destination0;
    keys[key + 5] = packet.destination1;
    keys[key + 6] = packet.destination2;
    keys[key + 7] = packet.destination3;
    keys[key + 8] = ports;
    this.#values[slot] = value;
    this.#size += 1;
    return true;
  }

  /** Removes a flow by its key, which `packet` and `ports` give. */
  remove(packet: FlowKey, ports: number): void {
    const slot = this.#slotOf(packet, ports);
    if (slot < 0) return;
    this.#slots[slot] = GONE;
    this.#values[slot] = undefined;
    this.#lastSlot = -1;
    this.#size -= 1;
    this.#gone += 1;
  }

  *values(): IterableIterator<T> {
    for (const value of this.#values) if (value !== undefined) yield value;
  }

  #slotOf(packet: FlowKey, ports: number): number {
    const last = this.#lastSlot;
    if (last >= 0 && this.#is(last, packet, ports)) return last;
    const mask = this.#slots.length - 1;
    for (let slot = hashOf(packet, ports, this.#secret) & mask; ; slot = (slot + 1) & mask) {
      const state = this.#slots[slot] as number;
      if (state === EMPTY) return -1;
      if (state >= 0 && this.#is(slot, packet, ports)) {
        this.#lastSlot = slot;
        return slot;
      }
    }
  }

  #is(slot: number, packet: FlowKey, ports: number): boolean {
    const keys = this.#keys;
    const key = slot * KEY_WORDS;
    return (
      keys[key + 8] === ports &&
      keys[key + 3] === packet.source3 &&
      keys[key + 7] === packet.destination3 &&
      keys[key] === packet.source0 &&
      keys[key + 1] === packet.source1 &&
      keys[key + 2] === packet.source2 &&
      keys[key + 4] === packet.destination0 &&
      keys[key + 5] === packet.destination1 &&
      keys[key + 6] === packet.destination2
    );
  }

  /** Into a table that is twice as large when it is really full, and of the same size when it is full of what is gone. */
  #rehash(): void {
    const old = { slots: this.#slots, keys: this.#keys, values: this.#values };
    const size = this.#size * 4 >= old.slots.length ? old.slots.length * 2 : old.slots.length;
    this.#slots = new Int32Array(size).fill(EMPTY);
    this.#keys = new Int32Array(size * KEY_WORDS);
    this.#values = new Array<T | undefined>(size).fill(undefined);
    this.#gone = 0;
    this.#lastSlot = -1;
    for (let from = 0; from < old.slots.length; from += 1) {
      if ((old.slots[from] as number) < 0) continue;
      const key = old.keys.subarray(from * KEY_WORDS, from * KEY_WORDS + KEY_WORDS);
      let slot = hashKey(key, this.#secret) & (size - 1);
      while ((this.#slots[slot] as number) >= 0) slot = (slot + 1) & (size - 1);
      this.#slots[slot] = slot;
      this.#keys.set(key, slot * KEY_WORDS);
      this.#values[slot] = old.values[from];
    }
  }
}

/** One round of murmur3's mixing. */
function mix(hash: number, word: number): number {
  const k = Math.imul(word, 0xcc9e2d51);
  const h = hash ^ Math.imul((k << 15) | (k >>> 17), 0x1b873593);
  return (Math.imul((h << 13) | (h >>> 19), 5) + 0xe6546b64) | 0;
}

function finishHash(hash: number): number {
  let h = hash;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return h ^ (h >>> 16);
}

function hashOf(packet: FlowKey, ports: number, secret: number): number {
  let hash = mix(secret, packet.source3);
  hash = mix(hash, packet.destination3);
  hash = mix(hash, ports);
  if (packet.version === 6) {
    hash = mix(hash, packet.source0);
    hash = mix(hash, packet.source1);
    hash = mix(hash, packet.source2);
    hash = mix(hash, packet.destination0);
    hash = mix(hash, packet.destination1);
    hash = mix(hash, packet.destination2);
  }
  return finishHash(hash);
}

function hashKey(key: Int32Array, secret: number): number {
  let hash = mix(secret, key[3] as number);
  hash = mix(hash, key[7] as number);
  hash = mix(hash, key[8] as number);
  // An IPv4 address is ::ffff:a.b.c.d here; no IPv6 packet is let in that claims one.
  if (key[0] !== 0 || key[1] !== 0 || key[2] !== 0xffff) {
    for (const i of [0, 1, 2, 4, 5, 6]) hash = mix(hash, key[i] as number);
  }
  return finishHash(hash);
}
