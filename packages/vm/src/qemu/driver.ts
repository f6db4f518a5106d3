/** The QEMU driver: one QEMU process and one guardian for each machine. */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import type {
  Capabilities,
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
import { validateConfig, validateName } from '../validate.ts';
import { buildLaunch, kernelCommandLine, type LaunchInput, type Memory, type Start } from './command-line.ts';
import { OpenFiles } from './files.ts';
import { launchMachine, openMonitor } from './launch.ts';
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
  /** Where to look for QEMU; by default /usr/bin. */
  readonly qemuDirectory?: string;
  /** Size of the cache of translated code under TCG, MiB. */
  readonly tcgCacheMib?: number;
  /** For tests. */
  readonly fault?: FaultHook;
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
  readonly #options: QemuDriverOptions;
  readonly #fault: FaultHook;

  constructor(options: QemuDriverOptions) {
    this.#options = options;
    this.#fault = options.fault ?? (() => undefined);
  }

  async create(config: VmConfig): Promise<PreparedVm> {
    const machineType = this.#check(config);
    const runDir = makeRunDir(this.#options.runRoot);
    return new QemuPreparedVm(config, runDir, (signal) => this.#boot(config, machineType, runDir, signal));
  }

  async restore(_snapshot: Snapshot, options: RestoreOptions): Promise<RunningVm> {
    validateName(options.name);
    throw new VmError('ERR_ARCBOX_VM_SNAPSHOT', 'not yet');
  }

  async adopt(handle: VmHandle): Promise<RunningVm> {
    const lease = await Lease.connect(path.join(handle.runDir, LEASE_SOCKET));
    try {
      const process = await lease.waitUntilUp();
      if (process.pid !== handle.pid || process.startTime !== handle.startTime) {
        throw new VmError(
          'ERR_ARCBOX_VM_GONE',
          `In ${handle.runDir} there is another machine than ${handle.config.name}`,
        );
      }
      const qmp = await openMonitor(handle);
      const { running } = await qmp.execute('query-status');
      const machineType = MACHINE_TYPES[handle.config.architecture];
      return new QemuVm(
        {
          handle,
          machineType,
          accelerator: this.#options.accelerator,
          cgroups: [],
          hotDisks: [],
          state: running === true ? 'running' : 'paused',
          privateMemoryPath: undefined,
          fault: this.#fault,
        },
        { lease, process, qmp, agent: undefined },
      );
    } catch (error) {
      lease.close();
      throw error;
    }
  }

  async #boot(
    config: VmConfig,
    machineType: MachineType,
    runDir: string,
    signal: AbortSignal | undefined,
  ): Promise<RunningVm> {
    using files = new OpenFiles();
    let input: LaunchInput;
    try {
      await this.#fault('boot:open-files');
      const start: Start = {
        kind: 'boot',
        kernelFd: await files.openShared('The kernel', config.kernel),
        initramfsFd: await files.openShared('The initramfs', config.initramfs),
      };
      const memory: Memory =
        config.memory.kind === 'memfd'
          ? { kind: 'memfd' }
          : { kind: 'shared', fd: openTemplateMemory(files, config.memory.path, config.memoryMib) };
      input = this.#launchInput(config, machineType, runDir, memory, start, files);
    } catch (error) {
      removeRunDir(runDir);
      throw error;
    }
    const secret = randomBytes(SECRET_BYTES);
    const launched = await launchMachine(buildLaunch(input), {
      guardian: this.#options.guardian,
      runDir,
      cgroups: [],
      secret,
      name: config.name,
      timeoutMs: config.bootTimeoutMs,
      signal,
      fault: this.#fault,
    });
    const { pid, startTime } = launched.process;
    const handle = { driver: this.name, runDir, pid, startTime, config, agentSecret: secret.toString('hex') };
    const { accelerator } = this.#options;
    return new QemuVm(
      {
        handle,
        machineType,
        accelerator,
        cgroups: [],
        hotDisks: [],
        state: 'running',
        privateMemoryPath: undefined,
        fault: this.#fault,
      },
      launched,
    );
  }

  #launchInput(
    config: VmConfig,
    machineType: MachineType,
    runDir: string,
    memory: Memory,
    start: Start,
    files: OpenFiles,
  ): LaunchInput {
    const { accelerator, tcgCacheMib, qemuDirectory } = this.#options;
    return {
      config,
      machineType,
      accelerator,
      qemu: path.join(qemuDirectory ?? QEMU_DIRECTORY, machineType.binary),
      tcgCacheMib: tcgCacheMib ?? TCG_CACHE_MIB,
      runDir,
      uid: process.getuid?.() === 0 ? vmUid(runDir) : undefined,
      cgroupArgs: [],
      memory,
      disks: config.disks.map((disk) => ({ disk, fd: files.openDisk(disk) })),
      hotDisks: [],
      kvmFd: accelerator === 'kvm' ? files.open('The device', '/dev/kvm', fs.constants.O_RDWR) : undefined,
      start,
    };
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
    if (kernelCommandLine(machineType, config).length > KERNEL_COMMAND_LINE_BYTES_MAX) {
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

/** The file that becomes a template's memory; it must be new, since a guest writes all over it. */
function openTemplateMemory(files: OpenFiles, memoryPath: string, memoryMib: number): number {
  const { O_RDWR, O_CREAT, O_EXCL } = fs.constants;
  const fd = files.open("The template's memory", memoryPath, O_RDWR | O_CREAT | O_EXCL);
  fs.ftruncateSync(fd, memoryMib * 1024 * 1024);
  return fd;
}
