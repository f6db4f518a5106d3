/** Ports of one specification. */
export const PORTS_PER_SPEC_MAX = 1024;
