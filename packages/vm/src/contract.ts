/**
 * The contract every VM driver keeps (QEMU, the fake; later Firecracker and our own VMM).
 *
 * A machine goes through two types. A `PreparedVm` holds resources on the host (a run directory,
 * sockets' names, a memory file) but no process; it can be booted once, or disposed. A `RunningVm`
 * has a process and an agent that answered. What a machine *can* do is data (`Capabilities`), so
 * callers ask instead of knowing the driver.
 */
import type { Duplex } from 'node:stream';
import type { AgentClient } from '@arcbox/protocol';

export type Architecture = 'x86_64' | 'aarch64';

/** What a driver can do on this host. Data, so that it can be printed and tested. */
export interface Capabilities {
  /** Memory snapshots: `RunningVm.snapshot` and `VmDriver.restore`. */
  readonly snapshot: boolean;
  /** Disks that come and go while the machine runs. */
  readonly diskHotplug: boolean;
  /** Guest pages that the guest freed go back to the host. */
  readonly freePageReporting: boolean;
  readonly vsock: boolean;
  readonly virtiofs: boolean;
}

export interface DiskConfig {
  /** Names the disk within its machine: `[a-z0-9-]{1,20}`; the guest sees it as the serial. */
  readonly id: string;
  /** Path on the host. */
  readonly path: string;
  readonly format: 'raw' | 'qcow2';
  readonly readOnly: boolean;
}

/** A network card whose frames go over a Unix stream socket (4-byte big-endian length prefix). */
export interface NicConfig {
  readonly mac: string;
  readonly mtu: number;
}

export type MemoryBacking =
  /** Anonymous shared memory: a machine of its own. */
  | { readonly kind: 'memfd' }
  /** A file that becomes a template's memory (put it on tmpfs). */
  | { readonly kind: 'template'; readonly path: string };

export interface VmConfig {
  /** Names the machine in messages; not a path. */
  readonly name: string;
  readonly architecture: Architecture;
  readonly vcpus: number;
  /** Guest RAM in MiB. */
  readonly memoryMib: number;
  readonly memory: MemoryBacking;
  /** Paths of the boot assets on the host. */
  readonly kernel: string;
  readonly initramfs: string;
  /** Appended to the kernel command line of the driver. */
  readonly kernelArgs: readonly string[];
  /** Attached from the start (virtio-blk). */
  readonly disks: readonly DiskConfig[];
  readonly nics: readonly NicConfig[];
  readonly lifetime: Lifetime;
  /** How long until the agent must have answered, in ms. */
  readonly bootTimeoutMs: number;
}

/**
 * Who keeps the machine alive. Ephemeral: when this process is gone, however it went, the machine
 * is killed at once. Adoptable: it goes on for `orphanGraceMs` (`Infinity`: for ever) after its owner is gone, and
 * `VmDriver.adopt` takes it over.
 */
export type Lifetime =
  | { readonly kind: 'ephemeral' }
  | { readonly kind: 'adoptable'; readonly orphanGraceMs: number };

/** A snapshot on disk, as plain data: it can be stored and given to `VmDriver.restore` later. */
export interface Snapshot {
  readonly driver: string;
  /** Device state. */
  readonly statePath: string;
  /** Guest memory; clones map it privately, so it must stay as it is while one of them lives. */
  readonly memoryPath: string;
  /** The configuration the machine had; a clone has the same devices. */
  readonly config: VmConfig;
  /** Disks that were hot-plugged when the snapshot was taken. */
  readonly hotDisks: readonly HotDisk[];
  /** 32 hex digits. The agent in the memory knows its machine's secret, so every clone has it too. */
  readonly agentSecret: string;
  /** What ran the guest's code; another one may not have the same CPU, so it cannot go on there. */
  readonly accelerator: string;
}

export interface HotDisk extends DiskConfig {
  /** LUN on the machine's virtio-scsi controller. */
  readonly lun: number;
}

/** What must be remembered to adopt a machine after a crash: plain data, as JSON (`Infinity` may come back as null). */
export interface VmHandle {
  readonly driver: string;
  readonly runDir: string;
  readonly pid: number;
  /** Field 22 of /proc/PID/stat: with the pid it names a process for good. */
  readonly startTime: string;
  readonly config: VmConfig;
  /** 32 hex digits: what `Hello` proves itself with. */
  readonly agentSecret: string;
  /** What runs the guest's code: `kvm`, `hvf`, `tcg`. */
  readonly accelerator: string;
  /** Directories of the machine's cgroup; empty when it has none. */
  readonly cgroups: readonly string[];
  /** Of a clone: the snapshot's memory, which it maps. */
  readonly privateMemoryPath?: string;
  /** Of a machine that took a snapshot's memory over: the name that the memory's file had. */
  readonly takenMemoryPath?: string;
}

export interface VmExit {
  readonly reason: 'stopped' | 'killed' | 'guest-shutdown' | 'crashed';
  /** One sentence, with the last lines of the VMM's stderr when it crashed. */
  readonly detail: string;
}

export interface VmDriver {
  readonly name: string;
  readonly capabilities: Capabilities;
  /** Claims what the machine needs on the host. Throws VmError; then nothing is left behind. */
  create(config: VmConfig): Promise<PreparedVm>;
  /** A clone of a snapshot, running, its agent answered. */
  restore(snapshot: Snapshot, options: RestoreOptions): Promise<RunningVm>;
  /**
   * Takes over a machine that outlived its owner. Throws VmError `gone` when there is none. When it fails for another
   * reason the machine is ended: it has no owner, and it may hold disks that the next one needs.
   */
  adopt(handle: VmHandle): Promise<RunningVm>;
}

export interface RestoreOptions {
  readonly name: string;
  readonly lifetime: Lifetime;
  /** How long until the agent must have answered, in ms. */
  readonly timeoutMs: number;
  /**
   * Paths for disks of the snapshot, by id: a disk that is written must be each clone's own. The others keep
   * the path that the snapshot has.
   */
  readonly diskPaths?: Readonly<Record<string, string>>;
  /**
   * The machine takes the snapshot's memory over instead of mapping it privately: no page is there twice. The memory
   * file is removed as soon as it is open, so the snapshot can be used once, whether or not this call succeeds.
   */
  readonly takeMemory?: boolean;
}

export interface PreparedVm extends AsyncDisposable {
  readonly config: VmConfig;
  /**
   * Starts the machine; answered when the guest's agent answered. Can be called once. When it
   * rejects nothing is left behind.
   */
  boot(options?: { signal?: AbortSignal }): Promise<RunningVm>;
}

/** `running ⇄ paused → stopped`; `running → stopped`. `stopped` is final. */
export type VmState = 'running' | 'paused' | 'stopped';

export interface RunningVm extends AsyncDisposable {
  readonly name: string;
  readonly config: VmConfig;
  readonly state: VmState;
  /** For `VmDriver.adopt`, later and in another process. */
  readonly handle: VmHandle;
  /** Settles once, when the machine is gone and everything of it is released. Never rejects. */
  readonly exited: Promise<VmExit>;
  readonly hotDisks: readonly HotDisk[];

  /**
   * The agent's client: the one that was greeted when the machine got ready, for as long as it is open; then a new
   * connection, which is a new epoch. Every caller shares it, and it ends with the machine.
   */
  openAgent(): Promise<AgentClient>;
  /** Connects to the frames of network card `index`. */
  openNic(index: number): Promise<Duplex>;
  /** The Unix socket behind `openNic`, for who connects in another thread; undefined when there is none. */
  nicPath(index: number): string | undefined;

  pause(): Promise<void>;
  resume(): Promise<void>;
  /**
   * Writes a snapshot into `directory` (made by the caller; best on tmpfs, where clones share its pages). The machine
   * is left paused when it is a template (its memory file is the snapshot), otherwise as it was. To have disks as of the
   * same moment: pause, snapshot, copy them, resume.
   */
  snapshot(directory: string): Promise<Snapshot>;
  attachDisk(disk: DiskConfig): Promise<HotDisk>;
  detachDisk(id: string): Promise<void>;
  inspect(): Promise<VmInspect>;

  /** Asks the agent to shut down, kills after `timeoutMs`. Resolves when all is released. */
  stop(options?: { timeoutMs?: number }): Promise<VmExit>;
  /** Ends the machine now. Resolves when all is released. */
  kill(): Promise<VmExit>;
  /** Forgets the machine without ending it (adoptable ones only): closes our connections. */
  disown(): Promise<void>;
}

export interface VmInspect {
  readonly pid: number;
  readonly accelerator: string;
  readonly vmmVersion: string;
  /** Proportional set size of the VMM process, bytes; and of the guest's RAM mapping in it. */
  readonly pssBytes: number;
  readonly guestRamPssBytes: number;
  /** Directories of the cgroup that limits the VMM; empty when the host offers none. */
  readonly cgroups: readonly string[];
}
