/**
 * Places where a test lets the process die, as kill -9 would at that moment. A no-op unless the environment variable
 * `ARCBOX_FAULT_POINT` was the place's name when the process started.
 */
const WANTED: string | undefined = process.env.ARCBOX_FAULT_POINT;

/** Called right before a side effect: after a death here, what was recorded must be what is true. */
export function faultPoint(name: string): void {
  if (name === WANTED) process.kill(process.pid, 'SIGKILL');
}
