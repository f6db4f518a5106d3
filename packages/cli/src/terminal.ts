/** The user's terminal: raw while a container has it, and given back however we end. */
import { execFileSync } from 'node:child_process';
import { constants } from 'node:os';

/** Sent to us (the keys go to the container), these end us: the terminal is given back first. */
const DEADLY = ['SIGINT', 'SIGTERM', 'SIGQUIT', 'SIGHUP'] as const;

/**
 * Makes our terminal raw until `restore` is called; also when the process exits by itself, or is asked to end. Through
 * `stty`, since Node's own raw mode goes on turning the container's line ends into line ends once more.
 */
export function rawMode(): { restore(): void } {
  const before = stty('-g').trim();
  const leave = (name: NodeJS.Signals): void => process.exit(128 + constants.signals[name]);
  const restore = (): void => {
    process.off('exit', restore);
    for (const name of DEADLY) process.off(name, leave);
    try {
      stty(before);
    } catch {
      // The terminal itself has gone.
    }
  };
  process.on('exit', restore);
  for (const name of DEADLY) process.on(name, leave);
  stty('raw', '-echo');
  return { restore };
}

function stty(...args: readonly string[]): string {
  return execFileSync('stty', args, { stdio: ['inherit', 'pipe', 'inherit'], encoding: 'utf8' });
}

/** Signals that are passed on to the container, when a person or a service manager sends them to us. */
const PROXIED = [
  'SIGINT',
  'SIGTERM',
  'SIGHUP',
  'SIGQUIT',
  'SIGUSR1',
  'SIGUSR2',
  'SIGCONT',
  'SIGALRM',
] as const;
/** So many of them, and nobody listens: we leave. */
const IMPATIENCE = 3;

/** Passes signals on until `stop` is called; the third SIGINT or SIGTERM in a row ends us. */
export function proxySignals(pass: (signal: number) => void): { stop(): void } {
  let asked = 0;
  const handlers = PROXIED.map((name) => {
    const number = constants.signals[name];
    const handler = (): void => {
      if (name === 'SIGINT' || name === 'SIGTERM') asked += 1;
      if (asked >= IMPATIENCE) process.exit(128 + number);
      pass(number);
    };
    process.on(name, handler);
    return { name, handler };
  });
  return {
    stop() {
      for (const { name, handler } of handlers) process.off(name, handler);
    },
  };
}
