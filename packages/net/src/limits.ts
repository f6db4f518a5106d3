/** Every limit of the stack, named. Each service's folder has its own. */

/** Memory of one stack worker, all connections and links together. It is reserved, and takes RAM once it is used. */
export const ARENA_CHUNK_BYTES: number = 32 * 1024;
/** What connections may hold between the two peers: 28 MiB. With it a thousand of them take less than 64 MB. */
export const ARENA_CHUNKS = 896;
/** Chunks that stay free for data which has been read from a host socket already. */
export const ARENA_CHUNKS_RESERVED = 64;
/** Virtual machines on one worker. */
export const PORTS_MAX = 64;

/** Largest frame: a 64 KiB packet with a tagged Ethernet header. */
export const FRAME_BYTES_MAX: number = 65_535 + 18;
export const FRAME_BYTES_MIN = 14;
/** What is read from a link at once. */
export const LINK_RECEIVE_BYTES: number = 512 * 1024;
/** Each of a link's two send buffers. */
export const LINK_SEND_BYTES: number = 512 * 1024;
/** What is read from a host socket at once. */
export const HOST_READ_BYTES: number = 64 * 1024;

export const MTU_MIN = 1280;
export const MTU_MAX = 65_520;

/** Networks (VLANs) of one worker. */
export const NETWORKS_MAX = 1024;
/** Addresses that the switch remembers for one network; one more forgets the oldest. */
export const SWITCH_ADDRESSES_MAX = 1024;
/** Neighbours (address to MAC) of one network; one more forgets the oldest. */
export const NEIGHBOURS_MAX = 1024;
/** Packets that wait for a neighbour's address, of one network. */
export const NEIGHBOUR_WAITERS_MAX = 256;
export const NEIGHBOUR_ASKS_MAX = 3;
export const NEIGHBOUR_ASK_MS = 1000;

/** Incomplete datagrams of one network, their memory and their patience (RFC 791 asks for 15 s at least). */
export const REASSEMBLY_DATAGRAMS_MAX = 32;
export const REASSEMBLY_BYTES_MAX: number = 2 * 1024 * 1024;
export const REASSEMBLY_FRAGMENTS_MAX = 64;
export const REASSEMBLY_TIMEOUT_MS = 30_000;

/** Flows of one network: connections, UDP pairs and echo identifiers. */
export const TCP_CONNECTIONS_MAX = 16_384;
/** Connections that are not established yet; a SYN beyond is dropped, and its sender tries again. */
export const TCP_EMBRYONIC_MAX = 4096;
/** Of those, connections that one machine or container begins: nobody can keep his neighbours from connecting. */
export const TCP_EMBRYONIC_PER_MAC_MAX = 1024;
export const TCP_TIME_WAIT_MAX = 2048;
/** Bytes that one connection may hold in each direction. */
export const TCP_SEND_BYTES_MAX: number = 3 * 1024 * 1024;
export const TCP_RECEIVE_BYTES_MAX: number = 3 * 1024 * 1024;
/** What a connection may hold when memory is short. */
export const TCP_QUEUE_BYTES_MIN: number = 64 * 1024;
/** Ranges of data beyond a gap that are kept. */
export const TCP_RANGES_MAX = 32;
/** Ranges in one SACK option (RFC 2018); with timestamps three fit. */
export const TCP_SACK_BLOCKS_MAX = 3;
export const TCP_WINDOW_SCALE = 7;
/** What a peer without the MSS option gets (RFC 9293 section 3.7.1). */
export const TCP_MSS_DEFAULT = 536;
export const TCP_MSS_DEFAULT_IPV6 = 1220;
/** A smaller MSS than this is taken for this (RFC 6691 asks for no such thing; it bounds the work per byte). */
export const TCP_MSS_MIN = 48;
/** RFC 6298; the floor is Linux's, for one-second floors are for networks that are not a socket away. */
export const TCP_RTO_INITIAL_MS = 1000;
export const TCP_RTO_MS_MIN = 200;
export const TCP_RTO_MS_MAX = 60_000;
/** Retransmissions of the same data, or of the SYN-ACK, before the connection is given up. */
export const TCP_RETRANSMITS_MAX = 12;
export const TCP_SYN_RETRANSMITS_MAX = 5;
export const TCP_DELAYED_ACK_MS = 40;
export const TCP_KEEP_ALIVE_MS: number = 2 * 60 * 60_000;
export const TCP_KEEP_ALIVE_INTERVAL_MS = 75_000;
export const TCP_KEEP_ALIVE_PROBES_MAX = 9;
/** Twice the maximum segment lifetime; a link is one hop long. */
export const TCP_TIME_WAIT_MS = 30_000;
/** Challenge acknowledgements a second, of one network (RFC 5961 section 7). */
export const TCP_CHALLENGE_ACKS_PER_SECOND = 100;
export const TCP_INITIAL_WINDOW_SEGMENTS = 10;

/** UDP pairs of one network. */
export const UDP_FLOWS_MAX = 4096;
/** Of those, one machine's or container's. */
export const UDP_FLOWS_PER_MAC_MAX = 1024;
export const UDP_IDLE_MS = 120_000;
/** Of a flow that has not been answered yet. */
export const UDP_UNANSWERED_IDLE_MS = 30_000;
/** Datagrams that wait while a flow is being decided on. */
export const UDP_PENDING_MAX = 16;
/** Bytes that wait in a host socket before datagrams are dropped. */
export const UDP_QUEUE_BYTES_MAX: number = 1024 * 1024;

/** Flows in one listing; of more, those that have carried most are in it. */
export const FLOWS_LISTED_MAX = 1000;

export const PING_FLOWS_MAX = 256;
export const PING_IDLE_MS = 30_000;
/** ICMP errors a second, of one network (RFC 1812 section 4.3.2.8). */
export const ICMP_ERRORS_PER_SECOND = 1000;
/** Of an offending packet an ICMP error carries at most this much (RFC 1812: 576 altogether; RFC 4443: 1280). */
export const ICMP_QUOTE_BYTES_MAX = 548;

export const ROUTER_ADVERTISEMENT_INTERVAL_MS = 200_000;
export const ROUTER_LIFETIME_S = 1800;

/** How long the host may take for a connection. */
export const DIAL_TIMEOUT_MS = 30_000;
/** How long a policy may think about a flow. */
export const POLICY_ANSWER_MS_MAX = 30_000;
