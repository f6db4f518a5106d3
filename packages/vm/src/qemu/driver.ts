/** The QEMU driver: one QEMU process and one guardian for each machine. */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { type AcceleratorChoice, probeAccelerator } from '../accelerator.ts';
import type {
  Capabilities,
  DiskConfig,
  HotDisk,
  PreparedVm,
  RestoreOptions,
  RunningVm,
  Snapshot,
  VmConfig,
  VmDriver,
  VmHandle,
} from '../contract.ts';
import { VmError } from '../errors.ts';
import type { FaultHook } from '../faults.ts';
import { KERNEL_COMMAND_LINE_BYTES_MAX, TCG_CACHE_MIB } from '../limits.ts';
import type { QmpClient } from '../qmp.ts';
import { gone } from '../refusals.ts';
import { validateConfig, validateName } from '../validate.ts';
import { type CgroupSupport, machineCgroups, probeCgroups } from './cgroups.ts';
import { buildLaunch, kernelCommandLine, type Launch, type Memory, type Start } from './command-line.ts';
import { OpenFiles } from './files.ts';
import { findHotDisks } from './hot-disks.ts';
import { endUnowned, launchMachine, openMonitor } from './launch.ts';
import { Lease } from './lease.ts';
import { type Accelerator, MACHINE_TYPES, type MachineType, OWN_VIRTIO_DEVICES } from './machine-types.ts';
import { QemuVm } from './qemu-vm.ts';
import { LEASE_SOCKET, makeRunDir, removeRunDir, vmUid } from './run-dir.ts';

export interface QemuDriverOptions {
  /** An existing directory of ours; its path may have at most 87 bytes. */
  readonly runRoot: string;
  /** The guardian's program (native/). */
  readonly guardian: string;
  readonly accelerator: Accelerator;
  /** Rate of the host's time-stamp counter, for emulated guests (`AcceleratorChoice.tscKhz`). */
  readonly tscKhz?: number;
  /** Where to look for QEMU; by default /usr/bin. */
  readonly qemuDirectory?: string;
  /** Size of the cache of translated code under TCG, MiB. */
  readonly tcgCacheMib?: number;
  /** CPU model instead of the accelerator's own, as QEMU's `-cpu` takes it: for nested virtualization. */
  readonly cpu?: string;
  /** For tests. */
  readonly fault?: FaultHook;
}

export interface DetectOptions extends Omit<QemuDriverOptions, 'guardian' | 'accelerator' | 'tscKhz'> {
  /** Has `guardian` and `kvm-probe`. */
  readonly bootDirectory: string;
}

const PROBE_CACHE = 'kvm-probe.json';

/** What a boot and a restore differ in. */
interface LaunchPlan {
  readonly config: VmConfig;
  readonly machineType: MachineType;
  readonly runDir: string;
  readonly secret: Uint8Array;
  readonly hotDisks: readonly HotDisk[];
  readonly timeoutMs: number;
  readonly signal: AbortSignal | undefined;
  /** Of a restore: whose memory it has, and whether it is its alone. */
  readonly snapshotMemory: { readonly path: string; readonly taken: boolean } | undefined;
  open(files: OpenFiles): Promise<{ readonly memory: Memory; readonly start: Start }>;
}

const SECRET_BYTES = 16;
const QEMU_DIRECTORY = '/usr/bin';

export class QemuDriver implements VmDriver {
  readonly name = 'qemu';
  readonly capabilities: Capabilities = {
    snapshot: true,
    diskHotplug: true,
    freePageReporting: true,
    vsock: false,
    virtiofs: false,
  };
  /** What was found out about the host, for `arcbox doctor`. */
  readonly accelerator: AcceleratorChoice;
  readonly #options: QemuDriverOptions;
  readonly #fault: FaultHook;
  readonly #cgroups: CgroupSupport;

  /**
   * A driver for this host: the accelerator is probed (200 ms at most, and kept in the run root until the host boots
   * again), the programs are those of the boot directory.
   *
   * @throws {VmError} `ERR_ARCBOX_VM_CONFIG` when `ARCBOX_ACCEL` is wrong.
   */
  static async detect(options: DetectOptions): Promise<QemuDriver> {
    const { bootDirectory, ...rest } = options;
    const choice = await probeAccelerator({
      kvmProbe: path.join(bootDirectory, 'kvm-probe'),
      cachePath: path.join(options.runRoot, PROBE_CACHE),
    });
    return new QemuDriver(
      {
        ...rest,
        guardian: path.join(bootDirectory, 'guardian'),
        accelerator: choice.accelerator,
        ...(choice.tscKhz === undefined ? {} : { tscKhz: choice.tscKhz }),
      },
      choice.reason,
    );
  }

  constructor(options: QemuDriverOptions, reason = 'chosen by the caller') {
    this.#options = options;
    this.accelerator = { accelerator: options.accelerator, reason, tscKhz: options.tscKhz };
    this.#fault = options.fault ?? (() => undefined);
    this.#cgroups = probeCgroups();
  }

  async create(config: VmConfig): Promise<PreparedVm> {
    const machineType = this.#check(config);
    const runDir = makeRunDir(this.#options.runRoot);
    return new QemuPreparedVm(config, runDir, (signal) => this.#boot(config, machineType, runDir, signal));
  }

  async restore(snapshot: Snapshot, options: RestoreOptions): Promise<RunningVm> {
    validateName(options.name);
    if (snapshot.driver !== this.name) {
      throw new VmError(
        'ERR_ARCBOX_VM_SNAPSHOT',
        `The snapshot is one of the driver ${snapshot.driver}, not ${this.name}`,
      );
    }
    if (snapshot.accelerator !== this.#options.accelerator) {
      throw new VmError(
        'ERR_ARCBOX_VM_SNAPSHOT',
        `The snapshot was taken under ${snapshot.accelerator} and cannot go on under ${this.#options.accelerator}`,
      );
    }
    const taken = options.takeMemory === true;
    const withPath = <Disk extends DiskConfig>(disk: Disk): Disk => ({
      ...disk,
      path: options.diskPaths?.[disk.id] ?? disk.path,
    });
    const config: VmConfig = {
      ...snapshot.config,
      name: options.name,
      lifetime: options.lifetime,
      disks: snapshot.config.disks.map(withPath),
    };
    const hotDisks = snapshot.hotDisks.map(withPath);
    return this.#launch({
      config,
      machineType: MACHINE_TYPES[config.architecture],
      runDir: makeRunDir(this.#options.runRoot),
      secret: Buffer.from(snapshot.agentSecret, 'hex'),
      hotDisks,
      timeoutMs: options.timeoutMs,
      signal: undefined,
      snapshotMemory: { path: snapshot.memoryPath, taken },
      open: async (files) => {
        const { O_RDONLY, O_RDWR } = fs.constants;
        const fd = files.open('The memory', snapshot.memoryPath, taken ? O_RDWR : O_RDONLY);
        // Once the guest runs in it this is no snapshot any more, and nobody shall find it.
        if (taken) fs.rmSync(snapshot.memoryPath);
        return {
          memory: { kind: taken ? 'shared' : 'private', fd },
          start: {
            kind: 'restore',
            stateFd: files.open('The device state', snapshot.statePath, O_RDONLY),
          },
        };
      },
    });
  }

  async adopt(handle: VmHandle): Promise<RunningVm> {
    const lease = await Lease.connect(path.join(handle.runDir, LEASE_SOCKET));
    let qmp: QmpClient | undefined;
    try {
      const process = await lease.waitUntilUp();
      if (process.pid !== handle.pid || process.startTime !== handle.startTime)
        throw gone(handle.config.name);
      qmp = await openMonitor(handle);
      await this.#fault('adopt:monitor');
      const { running } = await qmp.execute('query-status');
      const machineType = MACHINE_TYPES[handle.config.architecture];
      return new QemuVm(
        {
          handle,
          machineType,
          hotDisks: await findHotDisks(qmp),
          state: running === true ? 'running' : 'paused',
          fault: this.#fault,
        },
        { lease, process, qmp, agent: undefined },
      );
    } catch (error) {
      qmp?.close();
      if (error instanceof VmError && error.code === 'ERR_ARCBOX_VM_GONE') lease.close();
      else await endUnowned(lease, handle);
      throw error;
    }
  }

  #boot(
    config: VmConfig,
    machineType: MachineType,
    runDir: string,
    signal: AbortSignal | undefined,
  ): Promise<RunningVm> {
    return this.#launch({
      config,
      machineType,
      runDir,
      secret: randomBytes(SECRET_BYTES),
      hotDisks: [],
      timeoutMs: config.bootTimeoutMs,
      signal,
      snapshotMemory: undefined,
      open: async (files) => ({
        memory: openMemory(files, config),
        start: {
          kind: 'boot',
          kernelFd: await files.openShared('The kernel', config.kernel),
          initramfsFd: await files.openShared('The initramfs', config.initramfs),
        },
      }),
    });
  }

  async #launch(plan: LaunchPlan): Promise<RunningVm> {
    const { config, machineType, runDir, hotDisks, snapshotMemory } = plan;
    const { accelerator, tcgCacheMib, tscKhz, qemuDirectory, cpu } = this.#options;
    const fault = this.#fault;
    const cgroups = machineCgroups(this.#cgroups, runDir, config.memoryMib, config.vcpus);
    using files = new OpenFiles();
    let launch: Launch;
    try {
      await fault('boot:open-files');
      launch = buildLaunch({
        ...(await plan.open(files)),
        config,
        machineType,
        accelerator,
        cpu: cpu ?? machineType.cpu[accelerator],
        tscKhz,
        qemu: path.join(qemuDirectory ?? QEMU_DIRECTORY, machineType.binary),
        tcgCacheMib: tcgCacheMib ?? TCG_CACHE_MIB,
        runDir,
        uid: process.getuid?.() === 0 ? vmUid(runDir) : undefined,
        cgroupArgs: cgroups.guardianArgs,
        disks: config.disks.map((disk) => ({ disk, fd: files.openDisk(disk) })),
        hotDisks: hotDisks.map((disk) => ({ disk, fd: files.openDisk(disk) })),
        kvmFd: accelerator === 'kvm' ? files.open('The device', '/dev/kvm', fs.constants.O_RDWR) : undefined,
      });
    } catch (error) {
      removeRunDir(runDir);
      files.removeCreated();
      throw error;
    }
    const launched = await launchMachine(launch, {
      guardian: this.#options.guardian,
      runDir,
      cgroups: cgroups.directories,
      secret: plan.secret,
      name: config.name,
      timeoutMs: plan.timeoutMs,
      signal: plan.signal,
      fault,
    }).catch((error: unknown) => {
      files.removeCreated();
      throw error;
    });
    const { pid, startTime } = launched.process;
    const agentSecret = Buffer.from(plan.secret).toString('hex');
    const handle: VmHandle = {
      driver: this.name,
      runDir,
      pid,
      startTime,
      config,
      agentSecret,
      accelerator,
      cgroups: cgroups.directories,
      ...(snapshotMemory === undefined
        ? {}
        : { [snapshotMemory.taken ? 'takenMemoryPath' : 'privateMemoryPath']: snapshotMemory.path }),
    };
    return new QemuVm({ handle, machineType, hotDisks, state: 'running', fault }, launched);
  }

  #check(config: VmConfig): MachineType {
    validateConfig(config);
    const machineType = MACHINE_TYPES[config.architecture];
    const devices = OWN_VIRTIO_DEVICES + config.disks.length + config.nics.length;
    if (devices > machineType.virtioDevicesMax) {
      throw new VmError(
        'ERR_ARCBOX_VM_CONFIG',
        `A ${config.architecture} machine has room for ${machineType.virtioDevicesMax - OWN_VIRTIO_DEVICES} disks and network cards in all; hot-plug the other disks`,
      );
    }
    if (kernelCommandLine(machineType, config, this.#options).length > KERNEL_COMMAND_LINE_BYTES_MAX) {
      throw new VmError(
        'ERR_ARCBOX_VM_CONFIG',
        `The kernel's command line is longer than ${KERNEL_COMMAND_LINE_BYTES_MAX} bytes`,
      );
    }
    return machineType;
  }
}

class QemuPreparedVm implements PreparedVm {
  readonly config: VmConfig;
  readonly #runDir: string;
  readonly #boot: (signal: AbortSignal | undefined) => Promise<RunningVm>;
  #used = false;

  constructor(
    config: VmConfig,
    runDir: string,
    boot: (signal: AbortSignal | undefined) => Promise<RunningVm>,
  ) {
    this.config = config;
    this.#runDir = runDir;
    this.#boot = boot;
  }

  async boot(options: { signal?: AbortSignal } = {}): Promise<RunningVm> {
    if (this.#used)
      throw new VmError(
        'ERR_ARCBOX_VM_STATE',
        `The machine ${this.config.name} was booted or disposed already`,
      );
    this.#used = true;
    return this.#boot(options.signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#used) return;
    this.#used = true;
    removeRunDir(this.#runDir);
  }
}

/** The file that becomes a template's memory must be new, since a guest writes all over it. */
function openMemory(files: OpenFiles, { memory, memoryMib }: VmConfig): Memory {
  if (memory.kind === 'memfd') return memory;
  const fd = files.create("The template's memory", memory.path);
  fs.ftruncateSync(fd, memoryMib * 1024 * 1024);
  return { kind: 'shared', fd };
}
