/** Rules of one policy. */
export const RULES_MAX = 1000;
/** Blocks, domains or port ranges of one rule. */
export const RULE_VALUES_MAX = 1000;
/** Addresses that one machine is remembered to have resolved; the oldest go first. */
export const PINS_PER_SUBJECT_MAX = 4096;
/** Names of one address. */
export const NAMES_PER_PIN_MAX = 16;
/**
 * A resolved address is good for at least so long, whatever its TTL: a client resolves once and connects a little later,
 * or again.
 */
export const PIN_S_MIN = 60;
export const PIN_S_MAX = 86_400;
/** A policy function that takes longer has denied the flow. */
export const DECISION_MS = 5000;
/** Flows of one machine that wait for its function; one more is denied. */
export const DECISIONS_PENDING_MAX = 256;
/** Denials told one by one, for each machine and second; the rest is counted. */
export const DENIALS_PER_SECOND_MAX = 50;
/** What is looked at of a connection's first bytes. A TLS ClientHello with post-quantum keys takes 2 KiB. */
export const FIRST_BYTES_MAX = 16 * 1024;
