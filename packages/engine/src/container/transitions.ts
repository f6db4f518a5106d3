/**
 * The states of a container and every way from one to another. Whoever changes a container's state goes through
 * `nextState`; there is no other table.
 *
 *   created ── start ─▶ starting ── started ─▶ running ── exit ─▶ exited ── start ─▶ starting
 *   starting ── startFailed ─▶ created        (the first start)
 *   starting ── exit ─▶ exited                (a later one failed, or its machine was lost)
 *   exited ── restart ─▶ restarting ── start ─▶ starting     (its policy wants it back)
 *   restarting ── cancelRestart ─▶ exited
 *   running ── pause ─▶ paused ── unpause ─▶ running
 *   paused ── exit ─▶ exited                  (it was killed)
 *   created, exited ── remove ─▶ removing ─▶ (gone)
 */
import { EngineError } from '../errors.ts';

export type ContainerState =
  | 'created'
  | 'starting'
  | 'running'
  | 'paused'
  | 'exited'
  | 'restarting'
  | 'removing';

export type ContainerEvent =
  /** A start was asked for. */
  | 'start'
  /** Its process runs. */
  | 'started'
  /** It could not be started; what there was of it is released. */
  | 'startFailed'
  /** Its process ended, or was lost with its machine. */
  | 'exit'
  /** It will be started again in a while. */
  | 'restart'
  | 'cancelRestart'
  /** Its processes stand still. */
  | 'pause'
  | 'unpause'
  | 'remove';

const TRANSITIONS: Readonly<Record<ContainerState, Partial<Record<ContainerEvent, ContainerState>>>> = {
  created: { start: 'starting', remove: 'removing' },
  starting: { started: 'running', startFailed: 'created', exit: 'exited' },
  running: { exit: 'exited', pause: 'paused' },
  paused: { exit: 'exited', unpause: 'running' },
  exited: { start: 'starting', remove: 'removing', restart: 'restarting' },
  restarting: { start: 'starting', cancelRestart: 'exited' },
  removing: { remove: 'removing' },
};

/** What is about to be done, in contrast to what has happened. */
export function isIntention(event: ContainerEvent): boolean {
  return event === 'start' || event === 'restart' || event === 'cancelRestart' || event === 'remove';
}

/** What an event's attempt is called in a refusal. */
const VERBS: Readonly<Record<ContainerEvent, string>> = {
  start: 'started',
  started: 'marked as running',
  startFailed: 'marked as not started',
  exit: 'marked as exited',
  restart: 'restarted',
  cancelRestart: 'left stopped',
  pause: 'paused',
  unpause: 'unpaused',
  remove: 'removed',
};

export function canApply(state: ContainerState, event: ContainerEvent): boolean {
  return TRANSITIONS[state][event] !== undefined;
}

/** Throws `ERR_ARCBOX_CONTAINER_STATE` when the table has no such way. */
export function nextState(name: string, state: ContainerState, event: ContainerEvent): ContainerState {
  const next = TRANSITIONS[state][event];
  if (next === undefined) {
    throw new EngineError(
      'ERR_ARCBOX_CONTAINER_STATE',
      `the container ${name} is ${state} and cannot be ${VERBS[event]}`,
    );
  }
  return next;
}
