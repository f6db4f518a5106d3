/** Flags of `run` and `create` about what becomes of a container: restarts, health, how much log is kept. */
import type { LifeOptionsJson } from '@arcbox/api/client';
import { type Command, Option } from 'commander';
import { CliError } from './errors.ts';
import { parseSize } from './size.ts';
import { parseDuration } from './time.ts';

export interface LifeFlags {
  readonly restart?: string;
  readonly healthCmd?: string;
  readonly healthInterval?: string;
  readonly healthTimeout?: string;
  readonly healthRetries?: string;
  readonly healthStartPeriod?: string;
  readonly healthStartInterval?: string;
  /** Commander's name for `--no-healthcheck`. */
  readonly healthcheck?: boolean;
  readonly logOpt?: readonly string[];
}

const collect = (value: string, before: string[] | undefined): string[] => [...(before ?? []), value];

export function restartOption(): Option {
  return new Option('--restart <policy>', 'no, always, unless-stopped or on-failure[:n]');
}

export function addLifeFlags(command: Command): Command {
  return command
    .addOption(restartOption())
    .option('--health-cmd <script>', 'what finds out whether it is healthy')
    .option('--health-interval <duration>', 'from one check to the next (30s)')
    .option('--health-timeout <duration>', 'how long one check may take (30s)')
    .option('--health-retries <n>', 'so many failures in a row make it unhealthy (3)')
    .option('--health-start-period <duration>', 'failures do not count for so long after its start (0s)')
    .option('--health-start-interval <duration>', 'from one check to the next until then')
    .option('--no-healthcheck', "leave the image's check out")
    .option(
      '--log-opt <KEY=VALUE>',
      'max-size (64m) and max-file (2): how much of its output is kept',
      collect,
    );
}

/** Throws `CliError` naming the flag that is wrong. */
export function lifeOptions(flags: LifeFlags): LifeOptionsJson {
  const health = {
    test:
      flags.healthcheck === false
        ? ['NONE']
        : flags.healthCmd === undefined
          ? []
          : ['CMD-SHELL', flags.healthCmd],
    intervalMs: duration('--health-interval', flags.healthInterval),
    timeoutMs: duration('--health-timeout', flags.healthTimeout),
    retries: count('--health-retries', flags.healthRetries),
    startPeriodMs: duration('--health-start-period', flags.healthStartPeriod),
    startIntervalMs: duration('--health-start-interval', flags.healthStartInterval),
  };
  if (flags.healthcheck === false && flags.healthCmd !== undefined)
    throw new CliError('--no-healthcheck and --health-cmd exclude each other');
  const log: { logMaxSizeBytes?: string; logMaxFiles?: number } = {};
  for (const entry of flags.logOpt ?? []) {
    const [key, value = ''] = entry.split(/=(.*)/s);
    if (key === 'max-size') {
      const bytes = parseSize(value);
      if (bytes === undefined) throw new CliError(`--log-opt max-size: ${JSON.stringify(value)} is no size`);
      log.logMaxSizeBytes = String(bytes);
    } else if (key === 'max-file') {
      log.logMaxFiles = count('--log-opt max-file', value);
    } else {
      throw new CliError(`--log-opt ${key} is not known; there are max-size and max-file`);
    }
  }
  return { restart: flags.restart ?? '', health, ...log };
}

function duration(flag: string, text: string | undefined): string {
  if (text === undefined || text === '0') return '0';
  const ms = parseDuration(text);
  if (ms === undefined) throw new CliError(`${flag}: ${JSON.stringify(text)} is no duration such as 30s`);
  return String(ms);
}

function count(flag: string, text: string | undefined): number {
  if (text === undefined) return 0;
  if (!/^\d{1,6}$/.test(text)) throw new CliError(`${flag}: ${JSON.stringify(text)} is no number`);
  return Number(text);
}
