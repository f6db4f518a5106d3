/** Signals by name and number, as Linux on x86-64 and arm64 has them. */
import { constants } from 'node:os';
import { EngineError } from './errors.ts';

const SIGRTMIN = 34;
const SIGRTMAX = 64;

/** `TERM`, `SIGTERM`, `15`, `RTMIN+3`. Throws `ERR_ARCBOX_INVALID_ARGUMENT`. */
export function signalNumber(text: string): number {
  const name = text.toUpperCase().replace(/^SIG/, '');
  const known = (constants.signals as Readonly<Record<string, number>>)[`SIG${name}`];
  if (known !== undefined) return known;
  const realTime = /^RTM(?:IN(?:\+(\d+))?|AX(?:-(\d+))?)$/.exec(name);
  let number = Number.NaN;
  if (realTime !== null) {
    number = name.startsWith('RTMIN')
      ? SIGRTMIN + Number(realTime[1] ?? 0)
      : SIGRTMAX - Number(realTime[2] ?? 0);
    if (number < SIGRTMIN) number = Number.NaN;
  } else if (/^\d+$/.test(name)) {
    number = Number(name);
  }
  if (number >= 1 && number <= SIGRTMAX) return number;
  throw new EngineError('ERR_ARCBOX_INVALID_ARGUMENT', `${JSON.stringify(text)} is not a signal`);
}
