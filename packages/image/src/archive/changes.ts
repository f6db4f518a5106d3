/**
 * `--change` of import and commit: single Dockerfile instructions applied to the `config` object of an image
 * configuration (image-spec, config.md). Words are split as Docker splits them: quotes and backslashes as in a shell,
 * without any expansion.
 */
import { ImageError } from '../errors.ts';

type Config = Record<string, unknown>;
type Apply = (config: Config, rest: string) => void;

const SHELL = ['/bin/sh', '-c'];

/** Answers with a changed copy. Throws `ERR_ARCBOX_IMAGE_CHANGE` naming the instruction. */
export function applyChanges(config: Readonly<Config>, changes: readonly string[]): Config {
  const result = structuredClone(config);
  for (const change of changes) {
    const [, word = '', rest = ''] = /^\s*(\S+)\s*([\s\S]*)$/.exec(change) ?? [];
    const apply = INSTRUCTIONS[word.toUpperCase()];
    if (apply === undefined) {
      throw refused(change, `there are ${Object.keys(INSTRUCTIONS).join(', ')}`);
    }
    try {
      apply(result, rest.trim());
    } catch (error) {
      throw refused(change, error instanceof Error ? error.message : String(error));
    }
  }
  return result;
}

const INSTRUCTIONS: Readonly<Record<string, Apply>> = {
  CMD: (config, rest) => {
    config.Cmd = command(rest);
  },
  ENTRYPOINT: (config, rest) => {
    config.Entrypoint = command(rest);
  },
  ENV: (config, rest) => {
    const env = new Map(texts(config.Env).map((entry) => [entry.split('=', 1)[0] ?? '', entry]));
    for (const [key, value] of pairs(rest)) env.set(key, `${key}=${value}`);
    config.Env = [...env.values()];
  },
  LABEL: (config, rest) => {
    config.Labels = { ...record(config.Labels), ...Object.fromEntries(pairs(rest)) };
  },
  EXPOSE: (config, rest) => {
    const ports = words(rest).flatMap(exposedPorts);
    if (ports.length === 0) throw new Error('a port is missing');
    config.ExposedPorts = {
      ...record(config.ExposedPorts),
      ...Object.fromEntries(ports.map((port) => [port, {}])),
    };
  },
  USER: (config, rest) => {
    config.User = one(rest, 'a user');
  },
  WORKDIR: (config, rest) => {
    const path = one(rest, 'a directory');
    const before = typeof config.WorkingDir === 'string' ? config.WorkingDir : '';
    config.WorkingDir = path.startsWith('/') ? path : `${before.replace(/\/+$/, '')}/${path}`;
  },
  VOLUME: (config, rest) => {
    const paths = json(rest) ?? words(rest);
    if (paths.length === 0) throw new Error('a path is missing');
    config.Volumes = { ...record(config.Volumes), ...Object.fromEntries(paths.map((path) => [path, {}])) };
  },
  STOPSIGNAL: (config, rest) => {
    config.StopSignal = one(rest, 'a signal');
  },
  ONBUILD: (config, rest) => {
    if (rest === '') throw new Error('an instruction is missing');
    config.OnBuild = [...texts(config.OnBuild), rest];
  },
  HEALTHCHECK: (config, rest) => {
    config.Healthcheck = healthCheck(rest);
  },
};

/** The exec form is a JSON list; everything else is a line for the shell. */
function command(rest: string): string[] {
  return json(rest) ?? (rest === '' ? [] : [...SHELL, rest]);
}

function json(rest: string): string[] | undefined {
  if (!rest.startsWith('[')) return undefined;
  try {
    const list: unknown = JSON.parse(rest);
    if (Array.isArray(list) && list.every((item) => typeof item === 'string')) return list;
  } catch {
    // As Docker: what is no JSON is for the shell.
  }
  return undefined;
}

function pairs(rest: string): [string, string][] {
  const list = words(rest);
  const [first] = list;
  if (first === undefined) throw new Error('KEY=VALUE is missing');
  if (!first.includes('=')) {
    // The old form, one variable: KEY VALUE.
    const value = rest.slice(first.length).trim();
    if (value === '') throw new Error('KEY=VALUE is missing');
    return [[first, value]];
  }
  return list.map((word) => {
    const equals = word.indexOf('=');
    if (equals < 1) throw new Error(`${JSON.stringify(word)} is not of the form KEY=VALUE`);
    return [word.slice(0, equals), word.slice(equals + 1)];
  });
}

/** Words, with quotes and backslashes taken off. */
function words(text: string): string[] {
  const found: string[] = [];
  let word: string | undefined;
  let quote = '';
  for (let at = 0; at < text.length; at += 1) {
    const char = text[at] ?? '';
    if (quote === '' && /\s/.test(char)) {
      if (word !== undefined) found.push(word);
      word = undefined;
    } else if (char === quote) {
      quote = '';
    } else if (quote === '' && (char === '"' || char === "'")) {
      quote = char;
      word ??= '';
    } else if (char === '\\' && quote !== "'" && at + 1 < text.length) {
      at += 1;
      word = (word ?? '') + (text[at] ?? '');
    } else {
      word = (word ?? '') + char;
    }
  }
  if (quote !== '') throw new Error('a quote is not closed');
  if (word !== undefined) found.push(word);
  return found;
}

function one(rest: string, what: string): string {
  const [word, ...more] = words(rest);
  if (word === undefined || word === '' || more.length > 0) throw new Error(`it takes exactly ${what}`);
  return word;
}

/** `80`, `80/udp`, `8000-8002/tcp`. */
function exposedPorts(word: string): string[] {
  const match = /^(\d{1,5})(?:-(\d{1,5}))?(?:\/(tcp|udp|sctp))?$/i.exec(word);
  const first = Number(match?.[1]);
  const last = Number(match?.[2] ?? match?.[1]);
  if (match === null || first < 1 || last > 65535 || last < first) {
    throw new Error(`${JSON.stringify(word)} is not a port such as 80/tcp`);
  }
  const protocol = (match[3] ?? 'tcp').toLowerCase();
  return Array.from({ length: last - first + 1 }, (_, index) => `${first + index}/${protocol}`);
}

const NANOSECONDS: Readonly<Record<string, number>> = { ns: 1, us: 1e3, ms: 1e6, s: 1e9, m: 60e9, h: 3600e9 };

function healthCheck(rest: string): Config {
  const check: Config = {};
  let left = rest;
  for (;;) {
    const match = /^--([a-z-]+)=(\S+)\s*/.exec(left);
    if (match === null) break;
    const [all, name = '', value = ''] = match;
    left = left.slice(all.length);
    const field = {
      interval: 'Interval',
      timeout: 'Timeout',
      'start-period': 'StartPeriod',
      'start-interval': 'StartInterval',
    }[name];
    if (field !== undefined) check[field] = duration(value);
    else if (name === 'retries' && /^\d{1,6}$/.test(value)) check.Retries = Number(value);
    else throw new Error(`--${name} is no option of HEALTHCHECK`);
  }
  if (left.toUpperCase() === 'NONE') return { Test: ['NONE'] };
  const [, kind = '', text = ''] = /^(\S+)\s*([\s\S]*)$/.exec(left) ?? [];
  if (kind.toUpperCase() !== 'CMD' || text === '') throw new Error('CMD or NONE is missing');
  const list = json(text);
  return { ...check, Test: list === undefined ? ['CMD-SHELL', text] : ['CMD', ...list] };
}

/** As Go writes durations: `1m30s`. */
function duration(text: string): number {
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)(ns|us|ms|s|m|h)/g)];
  if (parts.map(([part]) => part).join('') !== text || text === '') {
    throw new Error(`${JSON.stringify(text)} is not a duration such as 30s`);
  }
  return parts.reduce((sum, [, count, unit]) => sum + Number(count) * (NANOSECONDS[unit ?? ''] ?? 0), 0);
}

function texts(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((item): item is string => typeof item === 'string') : [];
}

function record(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}

function refused(change: string, why: string): ImageError {
  return new ImageError(
    'ERR_ARCBOX_IMAGE_CHANGE',
    `the change ${JSON.stringify(change)} cannot be made: ${why}`,
  );
}
