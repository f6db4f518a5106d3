/** `arcbox network policy`, `stats` and `capture`: what containers may reach, what passes, and every frame of it. */
import { closeSync, openSync, writeSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { buffer } from 'node:stream/consumers';
import type {
  FlowTrafficJson,
  NetworkPolicyJson,
  NetworkRuleJson,
  NetworkSubjectJson,
} from '@arcbox/api/client';
import type { Context } from '../context.ts';
import { CliError } from '../errors.ts';
import { printList } from '../listing.ts';
import { complain, print } from '../output.ts';
import { decimalSize } from '../size.ts';
import { ago, type ListingOptions } from '../table.ts';

const STDOUT_FD = 1;
/** Of the machine that containers are in when nobody says. */
const DEFAULT_MACHINE = 'default';

export interface SubjectOptions {
  readonly machine?: string;
}

export interface PolicyOptions extends SubjectOptions {
  readonly default?: string;
  readonly clear?: boolean;
  readonly file?: string;
  /** Of `--allow` and `--deny`, in the order they were written. */
  readonly rules: readonly NetworkRuleJson[];
}

function subjectOf(container: string | undefined, { machine }: SubjectOptions): NetworkSubjectJson {
  if (container !== undefined && machine !== undefined) {
    throw new CliError('name a container or --machine, not both', 1);
  }
  return container === undefined ? { machine: machine ?? DEFAULT_MACHINE } : { container };
}

/** Without an option that changes it the policy is printed, as JSON that `--file` takes. */
export async function networkPolicy(
  context: Context,
  container: string | undefined,
  options: PolicyOptions,
): Promise<number> {
  const subject = subjectOf(container, options);
  const written = options.default !== undefined || options.rules.length > 0;
  const ways = [written, options.clear === true, options.file !== undefined].filter((given) => given).length;
  if (ways > 1) throw new CliError('--clear, --file, and rules with --default: choose one of the three', 1);
  if (ways === 0) {
    const { policy, function: decides } = await context.daemon.call('NetworkService/GetPolicy', { subject });
    if (decides === true) {
      complain(
        'a function of the program that runs the engine decides now; these rules count when it has ended',
      );
    }
    print(policy === undefined ? 'null' : JSON.stringify(policy, undefined, 2));
    return 0;
  }
  let policy: NetworkPolicyJson | undefined;
  if (options.file !== undefined) policy = await readPolicy(options.file);
  else if (written) {
    if (options.default === undefined) {
      throw new CliError('--default is missing: deny, public-only or allow, for what no rule decides', 1);
    }
    policy = { default: options.default, rules: [...options.rules] };
  }
  await context.daemon.call(
    'NetworkService/SetPolicy',
    policy === undefined ? { subject } : { subject, policy },
  );
  return 0;
}

async function readPolicy(file: string): Promise<NetworkPolicyJson> {
  const text = file === '-' ? await buffer(process.stdin) : await readFile(file);
  try {
    return JSON.parse(text.toString()) as NetworkPolicyJson;
  } catch (error) {
    throw new CliError(`${file} is not JSON: ${error instanceof Error ? error.message : String(error)}`, 1);
  }
}

/** `[TARGET][:PORTS][/PROTOCOL]`; a target is a domain, a block, `public`, `private` or `any`. */
export function parseRule(action: 'allow' | 'deny', text: string): NetworkRuleJson {
  const [, rest = text, protocol] = /^(.*?)\/(tcp|udp|icmp)$/.exec(text) ?? [];
  const match = /^(?:\[([^\]]*)\]|([^:]*))(?::([0-9-]+(?:,[0-9-]+)*))?$/.exec(rest);
  if (match === null) {
    throw new CliError(
      `${JSON.stringify(text)} is no rule; write example.com:443/tcp, 10.0.0.0/8, [fd00::/8]:80 or public`,
      1,
    );
  }
  const [, bracketed, plain = '', ports] = match;
  const target = bracketed ?? plain;
  const isBlock = bracketed !== undefined || /^[0-9.]+(\/[0-9]+)?$/.test(target);
  return {
    action,
    ...(target === 'any' || target === ''
      ? {}
      : isBlock || target === 'public' || target === 'private'
        ? { to: [target] }
        : { domains: [target] }),
    ...(ports === undefined ? {} : { ports: ports.split(',') }),
    ...(protocol === undefined ? {} : { protocol }),
  };
}

interface StatsRow {
  readonly kind: string;
  readonly name: string;
  readonly counters: Readonly<Record<string, string | number>>;
}

export interface StatsOptions extends ListingOptions {
  readonly flows?: boolean;
}

export async function networkStats(context: Context, options: StatsOptions): Promise<number> {
  if (options.flows === true) return networkFlows(context, options);
  const stats = await context.daemon.call('NetworkService/Stats', {});
  const rows: StatsRow[] = [];
  for (const { machine = '', ...counters } of stats.machines ?? []) {
    rows.push({ kind: 'machine', name: machine, counters });
  }
  for (const { network = '', ...counters } of stats.networks ?? []) {
    rows.push({ kind: 'network', name: network, counters });
  }
  for (const { kind = '', name = '', id: _, ...counters } of stats.policies ?? []) {
    rows.push({ kind: `policy of ${kind}`, name, counters });
  }
  if (stats.router !== undefined) rows.push({ kind: 'router', name: '', counters: { ...stats.router } });
  if (stats.names !== undefined) rows.push({ kind: 'names', name: '', counters: { ...stats.names } });
  printList(options, {
    rows,
    columns: ['Kind', 'Name', 'Counters'],
    id: (row) => row.name,
    fields: {
      Kind: (row) => row.kind,
      Name: (row) => row.name,
      Counters: (row) =>
        Object.entries(row.counters)
          .map(([name, value]) => `${name} ${name.endsWith('Bytes') ? decimalSize(Number(value)) : value}`)
          .join(', '),
    },
  });
  return 0;
}

/** What passes now, whoever has carried most first. */
async function networkFlows(context: Context, options: ListingOptions): Promise<number> {
  const { flows = [], flowsOmitted = '0' } = await context.daemon.call('NetworkService/Stats', {
    flows: true,
  });
  const carried = (flow: FlowTrafficJson): number =>
    Number(flow.sentBytes ?? 0) + Number(flow.receivedBytes ?? 0);
  printList<FlowTrafficJson>(options, {
    rows: [...flows].sort((a, b) => carried(b) - carried(a)),
    columns: ['Protocol', 'Whose', 'Source', 'Destination', 'State', 'Sent', 'Received', 'Age'],
    id: (flow) => `${flow.source} ${flow.destination}`,
    fields: {
      Protocol: (flow) => flow.protocol ?? '',
      Whose: (flow) => flow.containerName ?? `machine ${flow.machine ?? ''}`,
      Source: (flow) => flow.source ?? '',
      Destination: (flow) => flow.destination ?? '',
      State: (flow) => flow.state ?? '',
      Sent: (flow) => decimalSize(Number(flow.sentBytes ?? 0)),
      Received: (flow) => decimalSize(Number(flow.receivedBytes ?? 0)),
      Age: (flow) => ago(Date.now() - Number(flow.ageMs ?? 0)),
      Container: (flow) => flow.containerId ?? '',
      Machine: (flow) => flow.machine ?? '',
      Network: (flow) => flow.network ?? '',
      SentBytes: (flow) => Number(flow.sentBytes ?? 0),
      ReceivedBytes: (flow) => Number(flow.receivedBytes ?? 0),
      AgeMs: (flow) => Number(flow.ageMs ?? 0),
    },
  });
  if (flowsOmitted !== '0') complain(`${flowsOmitted} more flows, which have carried less, are not shown`);
  return 0;
}

export interface CaptureOptions extends SubjectOptions {
  readonly write: string;
  readonly snap?: string;
}

/** Captures until it is interrupted. The file is whole after every frame. */
export async function networkCapture(
  context: Context,
  container: string | undefined,
  options: CaptureOptions,
): Promise<number> {
  const subject = subjectOf(container, options);
  const snapBytes = Number(options.snap ?? 0);
  if (!Number.isInteger(snapBytes) || snapBytes < 0) {
    throw new CliError(`--snap ${options.snap} is no number of bytes`, 1);
  }
  const toFile = options.write !== '-';
  const fd = toFile ? openSync(options.write, 'w', 0o600) : STDOUT_FD;
  let bytes = 0;
  let dropped = '0';
  const finish = (): void => {
    if (toFile) closeSync(fd);
    complain(`${decimalSize(bytes)} captured${dropped === '0' ? '' : `, ${dropped} frames dropped`}`);
  };
  const interrupted = (): void => {
    finish();
    process.exit(0);
  };
  process.once('SIGINT', interrupted).once('SIGTERM', interrupted);
  try {
    const pieces = context.daemon.stream('NetworkService/Capture', { subject, snapBytes });
    for await (const piece of pieces) {
      const data = Buffer.from(piece.data ?? '', 'base64');
      for (let at = 0; at < data.length; ) at += writeSync(fd, data, at);
      if (bytes === 0) complain(`capturing to ${toFile ? options.write : 'standard output'}; ^C ends it`);
      bytes += data.length;
      dropped = piece.dropped ?? dropped;
    }
    return 0;
  } finally {
    process.off('SIGINT', interrupted).off('SIGTERM', interrupted);
    finish();
  }
}
