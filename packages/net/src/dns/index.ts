export { AnswerCache, type CacheLimits } from './cache.ts';
export {
  type DnsSource,
  type Endpoint,
  LOCAL_DOMAIN,
  type LocalNames,
  type LocalResult,
  NameTable,
} from './names.ts';
export type { Transport } from './query.ts';
export { HostResolvers, parseResolvConf, type Resolver, type ResolverSource } from './resolvers.ts';
export { type DnsCounters, DnsServer, type DnsServerOptions, type ResolvedName } from './server.ts';
export { type DnsSocketOptions, type DnsSockets, serveDnsSockets, serveDnsStream } from './sockets.ts';
export {
  ForwardingUpstream,
  type Upstream,
  type UpstreamPatience,
  type UpstreamQuestion,
} from './upstream.ts';
