export {
  type AcceleratorChoice,
  type KvmProbe,
  type ProbeOptions,
  probeAccelerator,
  probeKvm,
} from './accelerator.ts';
export * from './contract.ts';
export { VmError, type VmErrorCode } from './errors.ts';
export { FakeDriver, type FakeDriverOptions } from './fake/driver.ts';
export { FakeGuest } from './fake/fake-guest.ts';
export { FakeHost, FakeMachine } from './fake/fake-host.ts';
export { FAULT_POINTS, type FaultHook, type FaultPoint } from './faults.ts';
export { type CgroupSupport, probeCgroups } from './qemu/cgroups.ts';
export { type DetectOptions, QemuDriver, type QemuDriverOptions } from './qemu/driver.ts';
export type { Accelerator } from './qemu/machine-types.ts';
export { sweepRunRoot } from './qemu/sweep.ts';
export { QmpClient, QmpError, type QmpEvent } from './qmp.ts';
