/**
 * Places where a test may end the process as a power cut would, each right before a side effect.
 *
 * `faultPoint('image.pull.commit')` does nothing, unless the environment variable `ARCBOX_FAULT_POINT` is that name when
 * the process starts: then the process kills itself there with SIGKILL, so that nothing is flushed, closed or
 * caught. A number after a colon says at which time: `ARCBOX_FAULT_POINT=image.pull.commit:3` is the third. What the
 * next process finds is what a test looks at.
 */
const [wanted, times = '1'] = (process.env.ARCBOX_FAULT_POINT ?? '').split(':');
let left = Number(times);

export function faultPoint(name: string): void {
  if (name !== wanted) return;
  left -= 1;
  if (left > 0) return;
  process.kill(process.pid, 'SIGKILL');
  // The signal may take a moment; nothing of ours may happen after it.
  for (;;) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
}
