/** Sequence numbers: arithmetic modulo 2³² (RFC 9293 section 3.4) on signed 32-bit numbers, which stay small integers. */

/** a - b, in -2³¹ … 2³¹-1. */
export function distance(a: number, b: number): number {
  return (a - b) | 0;
}

export function before(a: number, b: number): boolean {
  return ((a - b) | 0) < 0;
}

export function after(a: number, b: number): boolean {
  return ((a - b) | 0) > 0;
}

export function add(a: number, count: number): number {
  return (a + count) | 0;
}
