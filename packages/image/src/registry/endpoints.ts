/** Where a registry is: its host, the mirrors before it, and whether plain http will do. */
import { DEFAULT_DOMAIN } from '../reference.ts';

export interface RegistryConfig {
  /** Base URLs that are asked before docker.io: `https://mirror.example.com`. */
  readonly mirrors: readonly string[];
  /** Hosts (`host`, `host:port`) that may be spoken to without TLS or with a certificate that nobody signed. */
  readonly insecure: readonly string[];
}

export const NO_REGISTRY_CONFIG: RegistryConfig = { mirrors: [], insecure: [] };

export interface Endpoint {
  /** `https://host[:port]`; tried in this order. */
  readonly bases: readonly string[];
  /** As credentials are filed under. */
  readonly host: string;
  /** Certificates are not checked. */
  readonly insecure: boolean;
  readonly mirror: boolean;
}

/** Docker Hub's images are not where its name says. */
const DOCKER_HUB_HOST = 'registry-1.docker.io';

/** In the order in which they are asked; pushes go to the last one only. */
export function endpointsOf(domain: string, config: RegistryConfig): Endpoint[] {
  const mirrors = domain === DEFAULT_DOMAIN ? config.mirrors : [];
  return [...mirrors.map((mirror) => mirrorEndpoint(mirror, config)), registryEndpoint(domain, config)];
}

function mirrorEndpoint(mirror: string, config: RegistryConfig): Endpoint {
  const { origin, host, hostname, protocol } = new URL(mirror);
  const insecure = isInsecure(host, hostname, config);
  return { bases: [origin], host, insecure: insecure || protocol === 'http:', mirror: true };
}

function registryEndpoint(domain: string, config: RegistryConfig): Endpoint {
  const host = domain === DEFAULT_DOMAIN ? DOCKER_HUB_HOST : domain;
  const insecure = isInsecure(domain, new URL(`https://${host}`).hostname, config);
  const bases = insecure ? [`https://${host}`, `http://${host}`] : [`https://${host}`];
  return { bases, host: domain, insecure, mirror: false };
}

function isInsecure(host: string, hostname: string, config: RegistryConfig): boolean {
  return isLoopback(hostname) || config.insecure.includes(host) || config.insecure.includes(hostname);
}

export function isLoopback(hostname: string): boolean {
  return hostname === 'localhost' || /^127(?:\.\d{1,3}){3}$/.test(hostname) || hostname === '[::1]';
}
