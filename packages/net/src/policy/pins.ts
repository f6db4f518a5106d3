/** Which addresses a machine got from which names: what makes a domain a matter of addresses. */
import { NAMES_PER_PIN_MAX, PIN_S_MAX, PIN_S_MIN, PINS_PER_SUBJECT_MAX } from './limits.ts';

/** Names, and when each is forgotten. */
type Pin = Map<string, number>;

export class Pins {
  readonly #byAddress = new Map<string, Pin>();

  get size(): number {
    return this.#byAddress.size;
  }

  add(address: string, name: string, ttlS: number, nowMs: number): void {
    const endsAtMs = nowMs + Math.min(Math.max(ttlS, PIN_S_MIN), PIN_S_MAX) * 1000;
    const pin = this.#byAddress.get(address) ?? new Map<string, number>();
    // Again at the end: what was resolved longest ago is forgotten first.
    this.#byAddress.delete(address);
    this.#byAddress.set(address, pin);
    const before = pin.get(name) ?? 0;
    pin.delete(name);
    pin.set(name, Math.max(before, endsAtMs));
    forgetOldest(pin, NAMES_PER_PIN_MAX);
    forgetOldest(this.#byAddress, PINS_PER_SUBJECT_MAX);
  }

  namesOf(address: string, nowMs: number): readonly string[] {
    const pin = this.#byAddress.get(address);
    if (pin === undefined) return [];
    for (const [name, endsAtMs] of pin) {
      if (endsAtMs <= nowMs) pin.delete(name);
    }
    if (pin.size === 0) this.#byAddress.delete(address);
    return [...pin.keys()];
  }
}

function forgetOldest<V>(map: Map<string, V>, max: number): void {
  if (map.size <= max) return;
  const [oldest] = map.keys();
  if (oldest !== undefined) map.delete(oldest);
}
