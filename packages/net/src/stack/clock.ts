/** Time and chance come from outside, so that a test can have a second pass, and every run is the same. */

export interface Clock {
  /** Milliseconds since some moment, never going back. */
  nowMs(): number;
}

export interface Randomness {
  /** An unpredictable unsigned 32-bit number. */
  u32(): number;
}
