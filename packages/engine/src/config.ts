/**
 * Configuration: flags, then `ARCBOX_*`, then `config.toml`, then defaults; the first that says something counts.
 * A key that we do not know is an error that names it: a misspelt limit must not be silently no limit.
 */
import { readFile } from 'node:fs/promises';
import { availableParallelism, totalmem } from 'node:os';
import { formatCidr, PREFIX_MAX, PREFIX_MIN, parseCidr } from '@arcbox/net/ipam';
import { parse } from 'smol-toml';
import { EngineError, messageOf } from './errors.ts';
import {
  MACHINE_CPUS_MAX,
  MACHINE_DISK_BYTES,
  MACHINE_DISK_BYTES_MAX,
  MACHINE_DISK_BYTES_MIN,
  MACHINE_MEMORY_MIB_MAX,
  MACHINE_MEMORY_MIB_MIN,
} from './limits.ts';
import type { Reserves } from './room.ts';
import { parseSize } from './size.ts';

export interface Config {
  readonly machine: {
    /** Of a machine for which nobody said otherwise, as what follows. */
    readonly cpus: number;
    readonly memoryMib: number;
    /** Of a disk that is made. */
    readonly diskBytes: number;
    /** How long no container must have run until it idles down, in seconds; `Infinity`: never. */
    readonly idleS: number;
  };
  /** What must be left free of the host's disk and memory. */
  readonly reserves: Reserves;
  /** `host:port` on loopback where `GET /metrics` is answered besides the daemon's socket; empty: nowhere. */
  readonly metricsAddress: string;
  /** Mirrors that are asked before docker.io, and registries that may be spoken to without TLS. */
  readonly registries: { readonly mirrors: readonly string[]; readonly insecure: readonly string[] };
  /** The subnet of the network `bridge`, when it is made. */
  readonly networkCidr: string;
  /** `user`: connections to the world are sockets of the daemon; `tap`: packets are routed through a device. */
  readonly networkMode: 'user' | 'tap';
  /** Of that device: the host's address and ours are the first two of this block. */
  readonly networkUplink: string;
  /** How long a machine goes on without a daemon, in seconds; `Infinity`: for ever. */
  readonly orphanGraceS: number;
}

/** What a flag, a variable or the file may set; each value is checked the same way wherever it comes from. */
interface Setting {
  readonly key: string;
  readonly variable: string;
  parse(value: unknown): number | string | undefined;
  readonly expected: string;
}

const CPUS_DEFAULT_MAX = 4;
const MEMORY_MIB_DEFAULT_MAX = 2048;
const ORPHAN_GRACE_S_DEFAULT = 600;
const NETWORK_CIDR_DEFAULT = '172.20.0.0/16';
const NETWORK_UPLINK_DEFAULT = '172.19.255.0/30';
/** Two addresses besides the block's first and last. */
const UPLINK_PREFIX_MAX = 30;
const DISK_RESERVE_BYTES_DEFAULT = 512 * 1024 ** 2;
const MEMORY_RESERVE_BYTES_DEFAULT = 128 * 1024 ** 2;
/** Coming back costs a third of a second, so there is no reason to wait for long. */
const IDLE_S_DEFAULT = 60;
const IDLE_S_MAX = 7 * 86_400;

const SETTINGS: readonly Setting[] = [
  {
    key: 'machine.cpus',
    variable: 'ARCBOX_MACHINE_CPUS',
    parse: (value) => inRange(toNumber(value), 1, MACHINE_CPUS_MAX),
    expected: `a whole number from 1 to ${MACHINE_CPUS_MAX}`,
  },
  {
    key: 'machine.memory',
    variable: 'ARCBOX_MACHINE_MEMORY',
    parse: (value) => {
      const bytes = typeof value === 'string' ? parseSize(value) : undefined;
      return bytes === undefined
        ? undefined
        : inRange(Math.floor(bytes / 1024 ** 2), MACHINE_MEMORY_MIB_MIN, MACHINE_MEMORY_MIB_MAX);
    },
    expected: `a size such as "2g", at least ${MACHINE_MEMORY_MIB_MIN}m`,
  },
  {
    key: 'machine.disk',
    variable: 'ARCBOX_MACHINE_DISK',
    parse: (value) => {
      const bytes = typeof value === 'string' ? parseSize(value) : undefined;
      return bytes === undefined ? undefined : inRange(bytes, MACHINE_DISK_BYTES_MIN, MACHINE_DISK_BYTES_MAX);
    },
    expected: `a size such as "64g", at least ${MACHINE_DISK_BYTES_MIN / 1024 ** 2}m`,
  },
  {
    key: 'machine.idle_s',
    variable: 'ARCBOX_MACHINE_IDLE_S',
    parse: (value) =>
      value === 'never' || value === Infinity ? Infinity : inRange(toNumber(value), 1, IDLE_S_MAX),
    expected: `a whole number of seconds from 1 to ${IDLE_S_MAX}, or "never"`,
  },
  {
    key: 'disk.reserve',
    variable: 'ARCBOX_DISK_RESERVE',
    parse: (value) => (typeof value === 'string' ? parseSize(value) : undefined),
    expected: 'a size such as "512m"',
  },
  {
    key: 'memory.reserve',
    variable: 'ARCBOX_MEMORY_RESERVE',
    parse: (value) => (typeof value === 'string' ? parseSize(value) : undefined),
    expected: 'a size such as "128m"',
  },
  {
    key: 'metrics.address',
    variable: 'ARCBOX_METRICS_ADDRESS',
    parse: (value) =>
      typeof value === 'string' && /^(127\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[::1\]):\d{1,5}$/.test(value)
        ? value
        : undefined,
    expected: 'an address of the loopback interface and a port, such as "127.0.0.1:9464"',
  },
  {
    key: 'registry.mirrors',
    variable: 'ARCBOX_REGISTRY_MIRRORS',
    parse: (value) => listOf(value, /^https?:\/\/[^\s/,]+\/?$/),
    expected: 'URLs such as "https://mirror.example.com", separated by commas or as a list',
  },
  {
    key: 'registry.insecure',
    variable: 'ARCBOX_REGISTRY_INSECURE',
    parse: (value) => listOf(value, /^[^\s/,]+$/),
    expected: 'hosts such as "registry.example.com:5000", separated by commas or as a list',
  },
  {
    key: 'network.cidr',
    variable: 'ARCBOX_NETWORK_CIDR',
    parse: (value) => {
      const cidr = typeof value === 'string' ? parseCidr(value) : undefined;
      return cidr?.family === 4 && cidr.prefix >= PREFIX_MIN && cidr.prefix <= PREFIX_MAX
        ? formatCidr(cidr)
        : undefined;
    },
    expected: `an IPv4 subnet such as "172.20.0.0/16", with a prefix of ${PREFIX_MIN} to ${PREFIX_MAX}`,
  },
  {
    key: 'network.mode',
    variable: 'ARCBOX_NETWORK_MODE',
    parse: (value) => (value === 'user' || value === 'tap' ? value : undefined),
    expected: '"user" or "tap"',
  },
  {
    key: 'network.uplink',
    variable: 'ARCBOX_NETWORK_UPLINK',
    parse: (value) => {
      const cidr = typeof value === 'string' ? parseCidr(value) : undefined;
      return cidr?.family === 4 && cidr.prefix <= UPLINK_PREFIX_MAX ? formatCidr(cidr) : undefined;
    },
    expected: `an IPv4 block such as "${NETWORK_UPLINK_DEFAULT}", of four addresses at least`,
  },
  {
    key: 'orphan_grace_s',
    variable: 'ARCBOX_ORPHAN_GRACE_S',
    parse: (value) => {
      if (value === 'infinite' || value === Infinity) return Infinity;
      return inRange(toNumber(value), 0, 365 * 86_400);
    },
    expected: 'a whole number of seconds, or "infinite"',
  },
];

export interface ConfigSources {
  /** By key, for example `{ 'machine.cpus': '2' }`. */
  readonly flags?: Readonly<Record<string, unknown>>;
  readonly environment: NodeJS.ProcessEnv;
  /** Path of `config.toml`; it need not exist. */
  readonly file: string;
  /** CPUs of a machine when nobody says; default: the host's, up to a few. */
  readonly machineCpusDefault?: number;
}

/** Throws `EngineError` `ERR_ARCBOX_CONFIG`, naming the key and where it was set. */
export async function loadConfig(sources: ConfigSources): Promise<Config> {
  const fromFile = flatten(await readToml(sources.file));
  for (const key of [...fromFile.keys(), ...Object.keys(sources.flags ?? {})]) {
    if (!SETTINGS.some((setting) => setting.key === key)) {
      const known = SETTINGS.map((setting) => setting.key).join(', ');
      throw new EngineError('ERR_ARCBOX_CONFIG', `${sources.file}: unknown key ${key} (known: ${known})`);
    }
  }
  const value = <T extends number | string>(key: string, fallback: T): T => {
    const setting = SETTINGS.find((candidate) => candidate.key === key);
    if (setting === undefined) throw new EngineError('ERR_ARCBOX_CONFIG', `no setting ${key}`);
    const places: readonly [string, unknown][] = [
      [`the flag for ${key}`, sources.flags?.[key]],
      [setting.variable, sources.environment[setting.variable] || undefined],
      [`${key} in ${sources.file}`, fromFile.get(key)],
    ];
    for (const [place, given] of places) {
      if (given === undefined) continue;
      const parsed = setting.parse(given);
      if (parsed === undefined) {
        throw new EngineError(
          'ERR_ARCBOX_CONFIG',
          `${place} is ${JSON.stringify(given)}; it must be ${setting.expected}`,
        );
      }
      // A setting's values are of its fallback's type.
      return parsed as T;
    }
    return fallback;
  };
  const hostMib = Math.floor(totalmem() / 1024 ** 2);
  return {
    machine: {
      cpus: value(
        'machine.cpus',
        sources.machineCpusDefault ?? Math.min(availableParallelism(), CPUS_DEFAULT_MAX),
      ),
      memoryMib: value(
        'machine.memory',
        Math.max(MACHINE_MEMORY_MIB_MIN, Math.min(Math.floor(hostMib / 4), MEMORY_MIB_DEFAULT_MAX)),
      ),
      diskBytes: value('machine.disk', MACHINE_DISK_BYTES),
      idleS: value('machine.idle_s', IDLE_S_DEFAULT),
    },
    reserves: {
      diskBytes: value('disk.reserve', DISK_RESERVE_BYTES_DEFAULT),
      memoryBytes: value('memory.reserve', MEMORY_RESERVE_BYTES_DEFAULT),
    },
    metricsAddress: value('metrics.address', ''),
    registries: {
      mirrors: split(value('registry.mirrors', '')),
      insecure: split(value('registry.insecure', '')),
    },
    networkCidr: value('network.cidr', NETWORK_CIDR_DEFAULT),
    networkMode: value<Config['networkMode']>('network.mode', 'user'),
    networkUplink: value('network.uplink', NETWORK_UPLINK_DEFAULT),
    orphanGraceS: value('orphan_grace_s', ORPHAN_GRACE_S_DEFAULT),
  };
}

async function readToml(file: string): Promise<Record<string, unknown>> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return {};
    throw new EngineError('ERR_ARCBOX_CONFIG', `cannot read ${file}: ${messageOf(error)}`, { cause: error });
  }
  try {
    return parse(text);
  } catch (error) {
    throw new EngineError('ERR_ARCBOX_CONFIG', `${file} is not valid TOML: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

function flatten(table: Record<string, unknown>, prefix = ''): Map<string, unknown> {
  const flat = new Map<string, unknown>();
  for (const [key, value] of Object.entries(table)) {
    // TOML's dates are objects, too, and no tables.
    if (typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date)) {
      for (const [inner, leaf] of flatten(value as Record<string, unknown>, `${prefix}${key}.`)) {
        flat.set(inner, leaf);
      }
    } else {
      flat.set(prefix + key, value);
    }
  }
  return flat;
}

function toNumber(value: unknown): number {
  if (typeof value === 'number') return value;
  return typeof value === 'string' && /^\d+$/.test(value) ? Number(value) : Number.NaN;
}

function inRange(value: number, low: number, high: number): number | undefined {
  return Number.isInteger(value) && value >= low && value <= high ? value : undefined;
}

/** A list, or words separated by commas, each of which must look like that; as words separated by commas. */
function listOf(value: unknown, pattern: RegExp): string | undefined {
  const words: unknown = typeof value === 'string' ? split(value) : value;
  if (!Array.isArray(words)) return undefined;
  return words.every((word) => typeof word === 'string' && pattern.test(word)) ? words.join(',') : undefined;
}

function split(text: string): string[] {
  return text.split(',').flatMap((word) => (word.trim() === '' ? [] : [word.trim()]));
}
