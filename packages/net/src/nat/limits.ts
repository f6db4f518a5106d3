/** Connections that are tracked at once. */
export const ENTRIES_MAX = 65_536;
/** The same for one machine, so that one cannot take them all. */
export const ENTRIES_PER_HOST_MAX = 16_384;
/** Slots of each direction's fast path. */
export const FAST_SLOTS = 256;
/** Datagrams in fragments that are under way, and how long the rest of one may take. */
export const FRAGMENT_SLOTS = 256;
export const FRAGMENT_S = 30;
/** Outside ports that are given out. What is below is for published ports. */
export const PORT_MIN = 16_384;
export const PORT_MAX = 65_535;
/** Seconds without a packet after which a connection is forgotten, by state. */
export const TIMEOUT_S = {
  /** SYN seen, no answer yet (RFC 5382 §5, transitory). */
  opening: 240,
  /** RFC 5382 REQ-5: two hours and four minutes, longer than keep-alives are apart. */
  established: 7440,
  /** One side has ended. */
  halfClosed: 240,
  /** Both have; retransmissions may still come. */
  closing: 60,
  /** After a reset. */
  closed: 10,
  /** A datagram that nobody has answered. */
  datagram: 30,
  /** RFC 4787 REQ-5: two minutes at least. */
  datagrams: 120,
  /** RFC 5508 REQ-2: one minute at least. */
  echo: 60,
} as const;
/** How many entries one look for expired ones passes over; with a look a second the table is seen in 8 s. */
export const SWEEP_ENTRIES = 8192;
/** How far a full table is searched for an entry that can go. */
export const EVICT_SEARCH_MAX = 256;
/** Errors and resets of our own, each second (RFC 1812 §4.3.2.8). */
export const REPLIES_PER_SECOND_MAX = 1000;
/** Packets that one wake-up reads from one device before it looks at the other. */
export const BATCH_PACKETS_MAX = 64;
/** Largest packet of a device. */
export const PACKET_BYTES_MAX = 65_535;
