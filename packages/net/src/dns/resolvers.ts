/** The host's resolvers: what `resolv.conf` names, read again when it has changed. */
import { open } from 'node:fs/promises';
import { isIP } from 'node:net';
import { RESOLV_CONF_BYTES_MAX, RESOLV_CONF_CHECK_MS, RESOLVERS_MAX } from './limits.ts';

export interface Resolver {
  readonly address: string;
  readonly port: number;
}

/** Where questions go that we cannot answer. */
export interface ResolverSource {
  resolvers(): Promise<readonly Resolver[]>;
}

const DNS_PORT = 53;
/** What the C library asks when nobody is named (resolv.conf(5)). */
const LOCAL: readonly Resolver[] = [{ address: '127.0.0.1', port: DNS_PORT }];

/** The resolvers that a `resolv.conf` names, in order. */
export function parseResolvConf(text: string): readonly Resolver[] {
  const list: Resolver[] = [];
  for (const line of text.split('\n')) {
    const address = /^nameserver[ \t]+([^ \t#;]+)/.exec(line)?.[1];
    if (address === undefined || isIP(address) === 0 || list.length === RESOLVERS_MAX) continue;
    list.push({ address, port: DNS_PORT });
  }
  return list.length === 0 ? LOCAL : list;
}

export class HostResolvers implements ResolverSource {
  readonly #path: string;
  readonly #nowMs: () => number;
  #known: readonly Resolver[] = LOCAL;
  #version = '';
  #checkedAtMs = -Infinity;
  #reading: Promise<void> | undefined;

  constructor(path = '/etc/resolv.conf', nowMs: () => number = () => performance.now()) {
    this.#path = path;
    this.#nowMs = nowMs;
  }

  async resolvers(): Promise<readonly Resolver[]> {
    if (this.#nowMs() - this.#checkedAtMs >= RESOLV_CONF_CHECK_MS) {
      this.#reading ??= this.#read().finally(() => {
        this.#reading = undefined;
      });
      await this.#reading;
    }
    return this.#known;
  }

  /** Keeps what it knew when the file cannot be read: it may be being written. */
  async #read(): Promise<void> {
    this.#checkedAtMs = this.#nowMs();
    try {
      await using file = await open(this.#path);
      const stat = await file.stat({ bigint: true });
      const version = `${stat.dev}/${stat.ino}/${stat.mtimeNs}/${stat.size}`;
      if (version === this.#version) return;
      const buffer = Buffer.alloc(
        Number(stat.size) > RESOLV_CONF_BYTES_MAX ? RESOLV_CONF_BYTES_MAX : Number(stat.size),
      );
      const { bytesRead } = await file.read(buffer, 0, buffer.length, 0);
      this.#known = parseResolvConf(buffer.toString('latin1', 0, bytesRead));
      this.#version = version;
    } catch {
      // What was known stays.
    }
  }
}
