/**
 * The states of a machine and every way from one to another. `Machine` changes its state through `nextState` only; there
 * is no other table. docs/architecture.md has the same ways, and a test that they are the same.
 *
 *   stopped ── start ─▶ starting ── started ─▶ running ── stop ─▶ stopping ── exit ─▶ stopped
 *   starting ── startFailed ─▶ stopped
 *   starting ── absent ─▶ stopped             (none was left to be taken over)
 *   starting ── foundIdle ─▶ idle             (likewise, but its memory was)
 *   running ── exit ─▶ stopped                (it died)
 *   running ── idleDown ─▶ idling ── saved ─▶ idle
 *   idling ── resumed ─▶ running              (it could not be saved, and goes on)
 *   idling ── exit ─▶ stopped                 (it died, or could not go on)
 *   idle ── start ─▶ starting
 *   idle ── discard ─▶ stopped                (it was stopped: what was saved is forgotten)
 */
import { EngineError } from '../errors.ts';

export type MachineState = 'stopped' | 'starting' | 'running' | 'stopping' | 'idling' | 'idle';

export type MachineEvent =
  /** It is needed, or looked for by a daemon that has just come up. */
  | 'start'
  /** It is up, and containers and guest are together. */
  | 'started'
  | 'startFailed'
  | 'absent'
  | 'foundIdle'
  /** It was told to power off. */
  | 'stop'
  /** Its process ended. */
  | 'exit'
  /** Nobody sends anything to it any more. */
  | 'idleDown'
  /** Its process has ended, and its memory is kept. */
  | 'saved'
  | 'resumed'
  | 'discard';

export const TRANSITIONS: Readonly<Record<MachineState, Partial<Record<MachineEvent, MachineState>>>> = {
  stopped: { start: 'starting' },
  starting: { started: 'running', startFailed: 'stopped', absent: 'stopped', foundIdle: 'idle' },
  running: { stop: 'stopping', exit: 'stopped', idleDown: 'idling' },
  stopping: { exit: 'stopped' },
  idling: { saved: 'idle', resumed: 'running', exit: 'stopped' },
  idle: { start: 'starting', discard: 'stopped' },
};

/** What an event's attempt is called in a refusal. */
const VERBS: Readonly<Record<MachineEvent, string>> = {
  start: 'started',
  started: 'marked as running',
  startFailed: 'marked as not started',
  absent: 'marked as not found',
  foundIdle: 'marked as found idle',
  stop: 'stopped',
  exit: 'marked as exited',
  idleDown: 'idled down',
  saved: 'marked as idle',
  resumed: 'resumed',
  discard: 'discarded',
};

export function canApply(state: MachineState, event: MachineEvent): boolean {
  return TRANSITIONS[state][event] !== undefined;
}

/** Throws `ERR_ARCBOX_MACHINE_STATE` when the table has no such way. */
export function nextState(name: string, state: MachineState, event: MachineEvent): MachineState {
  const next = TRANSITIONS[state][event];
  if (next === undefined) {
    throw new EngineError(
      'ERR_ARCBOX_MACHINE_STATE',
      `the machine ${name} is ${state} and cannot be ${VERBS[event]}`,
    );
  }
  return next;
}
