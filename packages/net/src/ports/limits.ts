/** Ports of one specification. */
export const PORTS_PER_SPEC_MAX = 1024;
/** Connections of one published port; one more is reset. */
export const CONNECTIONS_PER_PORT_MAX = 4096;
/** How long we wait for the other side of a connection inside. */
export const DIAL_MS = 10_000;
/** UDP clients of one published port; the one that was silent longest goes. */
export const DATAGRAM_CLIENTS_MAX = 1024;
/** A UDP client that is silent for so long is forgotten (RFC 4787 §4.3 asks for two minutes at least). */
export const DATAGRAM_IDLE_MS = 180_000;
/** How often another random port is tried when the first is free for one address only. */
export const RANDOM_PORT_TRIES_MAX = 16;
