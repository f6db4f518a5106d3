/**
 * `--network`, once or more often, as docker has it: a name, or `name=NET,alias=NAME,ip=ADDRESS,ip6=ADDRESS,mac-address=MAC`.
 * The first is the container's network mode, and what `--ip`, `--ip6`, `--mac-address` and `--network-alias` are about; it
 * is in the others besides from the beginning on.
 */
import type { HostOptionsJson, NetworkJoinJson } from '@arcbox/api/client';
import { CliError } from './errors.ts';

export interface NetworkFlags {
  readonly network?: readonly string[];
  readonly networkAlias?: readonly string[];
  readonly ip?: string;
  readonly ip6?: string;
  readonly macAddress?: string;
}

type NetworkOptions = Pick<
  HostOptionsJson,
  'networkMode' | 'networkAliases' | 'ipAddress' | 'ip6Address' | 'macAddress' | 'networks'
>;

/** In none of these can a container be besides another network. */
const ALONE = /^(?:none$|host$|container:)/;

/** Throws `CliError` naming what cannot be. */
export function networkOptions(flags: NetworkFlags): NetworkOptions {
  const joins = (flags.network ?? []).map(networkJoin);
  const [first = { network: '' }, ...others] = joins;
  const alone = joins.find(({ network = '' }) => ALONE.test(network));
  if (alone !== undefined && others.length > 0)
    throw new CliError(`--network ${alone.network} cannot be together with another --network`);
  const names = joins.map(({ network }) => network);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) throw new CliError(`--network ${twice} is there twice`);
  const once = (flag: string, given: string | undefined, own: string | undefined): string => {
    if (given !== undefined && own !== undefined)
      throw new CliError(`${flag} and --network ${first.network} each say an address; leave one out`);
    return given ?? own ?? '';
  };
  if (flags.networkAlias !== undefined && first.aliases !== undefined)
    throw new CliError(
      `--network-alias and --network ${first.network},alias=… say the same thing; leave one out`,
    );
  return {
    networkMode: first.network ?? '',
    networkAliases: [...(flags.networkAlias ?? first.aliases ?? [])],
    ipAddress: once('--ip', flags.ip, first.address),
    ip6Address: once('--ip6', flags.ip6, first.address6),
    macAddress: once('--mac-address', flags.macAddress, first.mac),
    networks: others,
  };
}

function networkJoin(text: string): NetworkJoinJson {
  if (text === '') throw new CliError('--network needs the name of a network');
  if (!text.includes('=')) return { network: text };
  const wrong = (why: string): CliError => new CliError(`--network ${text}: ${why}`);
  const join: NetworkJoinJson = {};
  const set = (key: 'network' | 'address' | 'address6' | 'mac', name: string, value: string): void => {
    if (join[key] !== undefined) throw wrong(`${name} is there twice`);
    join[key] = value;
  };
  for (const field of text.split(',')) {
    const [name = '', value = ''] = field.split(/=(.*)/s);
    if (value === '') throw wrong(`${name} has no value`);
    if (name === 'name') set('network', name, value);
    else if (name === 'ip') set('address', name, value);
    else if (name === 'ip6') set('address6', name, value);
    else if (name === 'mac-address') set('mac', name, value);
    else if (name === 'alias') join.aliases = [...(join.aliases ?? []), value];
    else throw wrong(`${JSON.stringify(name)} is not known; there are name, alias, ip, ip6 and mac-address`);
  }
  if (join.network === undefined) throw wrong('there is no name=');
  return join;
}
