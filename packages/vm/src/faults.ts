/** Steps that tests can make fail, to see that nothing is left behind after each. */
export const FAULT_POINTS = [
  'boot:open-files',
  'boot:spawn',
  'boot:started',
  'boot:monitor',
  'boot:agent',
  'boot:ready',
  'snapshot:paused',
  'snapshot:state',
  'snapshot:memory',
  'attach:open',
  'attach:node',
  'attach:device',
  'stop:asked',
  'adopt:monitor',
] as const;

export type FaultPoint = (typeof FAULT_POINTS)[number];

/** Called at every step that the driver reaches; what it throws is what the step fails with. */
export type FaultHook = (point: FaultPoint) => void | Promise<void>;
