export * from './daemon.ts';
export { isOpenAs, JsonLogger, rotateDaemonLog } from './daemon-log.ts';
export { type Check, createDoctor, type Doctor, type Probe, probeQemu } from './doctor.ts';
export * from './errors.ts';
export { VERSION } from './version.ts';
