/** `-v` and `--mount`, as docker writes them. What is wrong with a mount itself, the engine says. */
import type { MountJson } from '@arcbox/api/client';
import type { Command } from 'commander';
import { CliError } from './errors.ts';
import { parseSize } from './size.ts';

export interface MountFlags {
  readonly volume?: readonly string[];
  readonly mount?: readonly string[];
}

const collect = (value: string, before: string[] | undefined): string[] => [...(before ?? []), value];

export function addMountFlags(command: Command): Command {
  return command
    .option('-v, --volume <[name:]path[:options]>', 'mount a volume; options: ro, nocopy', collect)
    .option('--mount <options>', 'type=volume|tmpfs,source=…,target=…[,readonly]', collect)
    .option('--volumes-from <container[:ro]>', 'mount the volumes that this container has', collect);
}

/** Throws `CliError` naming what cannot be read. */
export function mounts(flags: MountFlags): MountJson[] {
  return [...(flags.volume ?? []).map(fromVolumeFlag), ...(flags.mount ?? []).map(fromMountFlag)];
}

/** `/path`, `name:/path`, `name:/path:ro,nocopy`. */
export function fromVolumeFlag(text: string): MountJson {
  const parts = text.split(':');
  if (parts.length > 3 || parts.some((part) => part === ''))
    throw new CliError(`-v ${JSON.stringify(text)} is not [name:]path[:options]`);
  const [first = '', second, third] = parts;
  const options = (third ?? '').split(',').filter((option) => option !== '');
  const unknown = options.find((option) => !['ro', 'rw', 'nocopy'].includes(option));
  if (unknown !== undefined) throw new CliError(`-v ${text}: the option ${unknown} is not known`);
  const source = second === undefined ? '' : first;
  return {
    type: source.startsWith('/') || source.startsWith('.') || source.startsWith('~') ? 'bind' : 'volume',
    source,
    target: second ?? first,
    readOnly: options.includes('ro'),
    noCopy: options.includes('nocopy'),
  };
}

/** `type=volume,source=name,target=/path,readonly`. */
export function fromMountFlag(text: string): MountJson {
  const mount: MountJson = { type: 'volume' };
  for (const field of text.split(',')) {
    const [key = '', value] = field.split(/=(.*)/s);
    const wrong = (why: string): CliError => new CliError(`--mount ${text}: ${why}`);
    const flag = (): boolean => {
      if (value === undefined || value === 'true' || value === '1') return true;
      if (value === 'false' || value === '0') return false;
      throw wrong(`${key} is true or false, not ${JSON.stringify(value)}`);
    };
    switch (key) {
      case 'type':
        mount.type = value ?? '';
        break;
      case 'source':
      case 'src':
        mount.source = value ?? '';
        break;
      case 'target':
      case 'dst':
      case 'destination':
        mount.target = value ?? '';
        break;
      case 'readonly':
      case 'ro':
        mount.readOnly = flag();
        break;
      case 'volume-nocopy':
        mount.noCopy = flag();
        break;
      case 'tmpfs-size': {
        const bytes = parseSize(value ?? '');
        if (bytes === undefined) throw wrong(`${JSON.stringify(value)} is no size`);
        mount.tmpfsBytes = String(bytes);
        break;
      }
      case 'tmpfs-mode':
        if (!/^[0-7]{1,4}$/.test(value ?? '')) throw wrong(`${JSON.stringify(value)} is no octal mode`);
        mount.tmpfsMode = Number.parseInt(value ?? '', 8);
        break;
      default:
        throw wrong(`the key ${JSON.stringify(key)} is not known`);
    }
  }
  if (mount.target === undefined || mount.target === '')
    throw new CliError(`--mount ${text}: there is no target`);
  return mount;
}
