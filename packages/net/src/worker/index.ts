/** The stack in a thread of its own. */
export {
  type CapturedFrame,
  NetworkWorker,
  type NetworkWorkerOptions,
} from './network-worker.ts';
export type {
  AskedFlow,
  DeniedFlow,
  FlowFunction,
  LinkStats,
  NetworkSetup,
  NetworkStats,
  OwnedFlow,
  PolicyStats,
  PolicySubject,
  Publication,
  WorkerFlows,
  WorkerStats,
} from './protocol.ts';
export { type RunnerOptions, StackRunner } from './runner.ts';
