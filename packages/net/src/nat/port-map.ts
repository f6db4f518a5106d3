/**
 * Which port outside stands for which endpoint inside, of one protocol. One endpoint has one port, whatever it talks to
 * (endpoint-independent mapping, RFC 4787 REQ-1), and keeps it while one of its connections lives; two endpoints never
 * share one. The endpoint's own port is kept when it is free, so that what is seen outside is what is meant.
 */
import { randomInt } from 'node:crypto';
import { mix } from './table.ts';

const PORTS = 65_536;
const HASH_MASK = PORTS - 1;

export class PortMap {
  readonly #inside = new Int32Array(PORTS);
  readonly #insidePort = new Uint16Array(PORTS);
  /** Connections of each port, and one more for a port that is published. */
  readonly #users = new Uint32Array(PORTS);
  readonly #heads = new Int32Array(PORTS).fill(-1);
  readonly #next = new Int32Array(PORTS).fill(-1);
  readonly #published = new Map<number, { readonly inside: number; readonly port: number }>();
  readonly #first: number;
  readonly #last: number;
  #free: number;

  constructor(first: number, last: number) {
    this.#first = first;
    this.#last = last;
    this.#free = last - first + 1;
  }

  get free(): number {
    return this.#free;
  }

  /** The port for an endpoint, one user more; -1 when all are taken. */
  take(inside: number, insidePort: number): number {
    const slot = mix(inside, insidePort, 0) & HASH_MASK;
    for (let port = this.#heads[slot] as number; port >= 0; port = this.#next[port] as number) {
      if (this.#inside[port] === inside && this.#insidePort[port] === insidePort) {
        this.#users[port] = (this.#users[port] as number) + 1;
        return port;
      }
    }
    const port = this.#findFree(insidePort);
    if (port >= 0) this.#link(port, inside, insidePort, slot);
    return port;
  }

  /** One user less of a port. */
  give(port: number): void {
    const left = (this.#users[port] as number) - 1;
    this.#users[port] = left;
    if (left === 0) this.#unlink(port);
  }

  /** The port stands for this endpoint until it is withdrawn. False when it stands for another one. */
  publish(port: number, inside: number, insidePort: number): boolean {
    if ((this.#users[port] as number) > 0) return false;
    this.#published.set(port, { inside, port: insidePort });
    this.#link(port, inside, insidePort, mix(inside, insidePort, 0) & HASH_MASK);
    return true;
  }

  withdraw(port: number): boolean {
    if (!this.#published.delete(port)) return false;
    this.give(port);
    return true;
  }

  published(port: number): { readonly inside: number; readonly port: number } | undefined {
    return this.#published.get(port);
  }

  /** One user more of a port that is in use. */
  share(port: number): void {
    this.#users[port] = (this.#users[port] as number) + 1;
  }

  #findFree(wanted: number): number {
    if (this.#free === 0) return -1;
    if (wanted >= this.#first && wanted <= this.#last && this.#users[wanted] === 0) return wanted;
    // From a port that nobody can guess (RFC 6056 §3.3.1).
    const count = this.#last - this.#first + 1;
    const offset = randomInt(count);
    for (let i = 0; i < count; i++) {
      const port = this.#first + ((offset + i) % count);
      if (this.#users[port] === 0) return port;
    }
    return -1;
  }

  #link(port: number, inside: number, insidePort: number, slot: number): void {
    this.#inside[port] = inside;
    this.#insidePort[port] = insidePort;
    this.#users[port] = 1;
    this.#next[port] = this.#heads[slot] as number;
    this.#heads[slot] = port;
    if (port >= this.#first && port <= this.#last) this.#free--;
  }

  #unlink(port: number): void {
    const slot = mix(this.#inside[port] as number, this.#insidePort[port] as number, 0) & HASH_MASK;
    if (this.#heads[slot] === port) this.#heads[slot] = this.#next[port] as number;
    else {
      let at = this.#heads[slot] as number;
      while (at >= 0 && this.#next[at] !== port) at = this.#next[at] as number;
      if (at >= 0) this.#next[at] = this.#next[port] as number;
    }
    if (port >= this.#first && port <= this.#last) this.#free++;
  }
}
