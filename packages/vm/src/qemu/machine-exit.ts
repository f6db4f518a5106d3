/** What the end of a VMM means, in the contract's words. */
import type { VmExit } from '../contract.ts';
import type { LeaseEnd } from './lease.ts';
import { CONSOLE_LOG, VMM_LOG } from './run-dir.ts';

const LINES_MAX = 8;
const PANIC = 'Kernel panic';

export interface Intentions {
  /** We asked the guest to shut down. */
  readonly stopAsked: boolean;
}

export function toVmExit(end: LeaseEnd, intentions: Intentions): VmExit {
  if (end.kind !== 'exit') {
    return { reason: 'crashed', detail: "The machine's guardian was killed, and the machine with it" };
  }
  const detail = describeEnd(end);
  if (end.by !== 'itself') return { reason: 'killed', detail };
  if (end.code !== 0 || isPanic(end)) return { reason: 'crashed', detail };
  return { reason: intentions.stopAsked ? 'stopped' : 'guest-shutdown', detail };
}

/** One sentence and, when it ended badly, the last lines of its logs. */
export function describeEnd(end: LeaseEnd): string {
  if (end.kind !== 'exit') return "the machine's guardian was killed";
  const how = end.signal !== 0 ? `signal ${end.signal}` : `exit status ${end.code}`;
  const parts = [ENDED_BY[end.by] + (end.by === 'itself' ? ` (${how})` : '')];
  if (end.by !== 'itself' || end.code !== 0 || isPanic(end)) {
    for (const name of [VMM_LOG, CONSOLE_LOG]) {
      const lines = lastLines(end.logs.get(name) ?? '');
      if (lines !== '') parts.push(`${name}: ${lines}`);
    }
  }
  return parts.join('; ');
}

const ENDED_BY = {
  itself: 'QEMU ended',
  owner: 'it was killed by its owner',
  lease: 'it was killed because its owner was gone',
  grace: 'it was killed because nobody adopted it in time',
  signal: 'it was killed because its guardian was told to end',
  guardian: 'its guardian could not go on',
  cgroup: 'it could not be put into its cgroup',
} as const;

function isPanic(end: LeaseEnd & { kind: 'exit' }): boolean {
  return end.logs.get(CONSOLE_LOG)?.includes(PANIC) ?? false;
}

/** The last lines, or those from a panic on, which come before a long trace. */
function lastLines(text: string): string {
  const lines = text
    .split('\n')
    .map((line) => line.trimEnd())
    .filter((line) => line !== '');
  const panic = lines.findIndex((line) => line.includes(PANIC));
  const chosen = panic < 0 ? lines.slice(-LINES_MAX) : lines.slice(panic, panic + LINES_MAX);
  return chosen.join(' | ');
}
