/** Largest UDP answer to a client without EDNS (RFC 1035 §4.2.1), in bytes. */
export const UDP_BYTES_PLAIN = 512;
/** Largest UDP answer, whatever a client says it takes. */
export const UDP_BYTES_MAX = 4096;
/** What we tell upstream resolvers that we take: fits every path unfragmented. */
export const UDP_BYTES_UPSTREAM = 1232;
/** Largest message at all: TCP's length prefix has 16 bits. */
export const MESSAGE_BYTES_MAX = 65_535;
/** Questions that wait for a resolver; more are answered SERVFAIL at once. */
export const FORWARDED_MAX = 512;
/** The same for one source. */
export const FORWARDED_PER_SOURCE_MAX = 128;
/** One question to one resolver, first and later rounds, in milliseconds. */
export const ATTEMPT_MS = [1000, 2000] as const;
/** A question to all resolvers; the clients' own limit is 5 s. */
export const FORWARD_MS = 4500;
/** A TCP exchange with a resolver. */
export const UPSTREAM_TCP_MS = 3000;
/** As many as the C library reads. */
export const RESOLVERS_MAX = 3;
/** How often, at most, we look whether `resolv.conf` has changed. */
export const RESOLV_CONF_CHECK_MS = 1000;
export const RESOLV_CONF_BYTES_MAX = 64 * 1024;
/** Answers kept. */
export const CACHE_ENTRIES_MAX = 10_000;
export const CACHE_BYTES_MAX = 8 * 1024 * 1024;
/** No answer is kept longer, whatever its TTL (RFC 8767 §4 advises days at most). */
export const CACHE_TTL_S_MAX = 86_400;
/** The same for "there is no such name" (RFC 2308 §5 advises one to three hours at most). */
export const CACHE_NEGATIVE_TTL_S_MAX = 900;
/** Of our own answers: names come and go with containers. */
export const LOCAL_TTL_S = 10;
/** A TCP client that says nothing for so long is closed (RFC 7766 §6.2.3). */
export const TCP_IDLE_MS = 10_000;
/** TCP clients of one server. */
export const TCP_CLIENTS_MAX = 64;
/** Questions of one TCP client that are being answered; then we stop reading. */
export const TCP_PIPELINE_MAX = 16;
/** Names of one endpoint. */
export const NAMES_PER_ENDPOINT_MAX = 64;
