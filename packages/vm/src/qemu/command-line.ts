/** The command lines of QEMU and of its guardian, from a machine's configuration. */
import type { DiskConfig, HotDisk, VmConfig } from '../contract.ts';
import type { Accelerator, MachineType } from './machine-types.ts';
import { AGENT_SOCKET, CONSOLE_LOG, nicSocket, QMP_SOCKET, VMM_LOG } from './run-dir.ts';

/** The guardian gives the VMM descriptors from here on; what we pass comes before. */
const LISTENERS_FIRST_FD = 64;
const OWNER_FD = 3;
/** Never a file: the guardian answers the open of this path (native/notify.c). */
const RAM_PATH = '/arcbox/ram';
const KVM_PATH = '/dev/kvm';

export type Memory =
  | { readonly kind: 'memfd' }
  /** `fd` is open for reading and writing. */
  | { readonly kind: 'shared'; readonly fd: number }
  /** `fd` is open for reading; writes stay in the machine. */
  | { readonly kind: 'private'; readonly fd: number };

export interface DiskFd {
  readonly disk: DiskConfig;
  readonly fd: number;
}

export interface HotDiskFd extends DiskFd {
  readonly disk: HotDisk;
}

export interface LaunchInput {
  readonly config: VmConfig;
  readonly machineType: MachineType;
  readonly accelerator: Accelerator;
  /** Value of `-cpu`. */
  readonly cpu: string;
  readonly tscKhz: number | undefined;
  /** Absolute path of QEMU. */
  readonly qemu: string;
  readonly tcgCacheMib: number;
  readonly runDir: string;
  readonly uid: number | undefined;
  /** Options for the guardian. */
  readonly cgroupArgs: readonly string[];
  readonly memory: Memory;
  readonly disks: readonly DiskFd[];
  readonly hotDisks: readonly HotDiskFd[];
  readonly kvmFd: number | undefined;
  readonly start: Start;
}

export type Start =
  | { readonly kind: 'boot'; readonly kernelFd: number; readonly initramfsFd: number }
  | { readonly kind: 'restore'; readonly stateFd: number };

export interface Launch {
  readonly guardianArgs: string[];
  /** Descriptors of ours, in the order in which the guardian gets them from 4 on. */
  readonly fds: number[];
  /** What the monitor is to load before the machine runs; `undefined` when it boots. */
  readonly incoming: string | undefined;
}

export function buildLaunch(input: LaunchInput): Launch {
  const { config, machineType } = input;
  const fds: number[] = [];
  const pass = (fd: number): number => OWNER_FD + fds.push(fd);
  const guardian: string[] = ['--dir', input.runDir, '--owner-fd', String(OWNER_FD)];
  let listenerFd = LISTENERS_FIRST_FD;
  const listen = (name: string): number => {
    guardian.push('--listen', `${name}=${listenerFd}`);
    return listenerFd++;
  };
  const vmm: string[] = [
    ...['-name', `guest=${config.name.replaceAll(',', ',,')}`],
    ...['-machine', `${machineType.machine},memory-backend=ram`],
    ...['-accel', acceleratorValue(input)],
    ...['-cpu', input.cpu],
    ...['-smp', String(config.vcpus), '-m', `${config.memoryMib}M`],
    ...['-nodefaults', '-no-user-config', '-no-reboot', '-display', 'none'],
    ...['-sandbox', 'on,spawn=deny,elevateprivileges=deny,resourcecontrol=deny'],
    ...['-global', 'virtio-mmio.force-legacy=off'],
    // A saved device state has no configuration section, and a clone has nobody to announce itself to. (QEMU 7.2
    // crashes on a packet sent before its `stream` netdev has begun to listen; an announcement is one.)
    ...['-global', 'migration.send-configuration=off', '-global', 'migration.announce-rounds=0'],
    ...['-object', memoryObject(input, pass, guardian)],
    // The console's output goes through the guardian, which bounds it; there is no input.
    ...['-chardev', 'stdio,id=console,signal=off', '-serial', 'chardev:console'],
    ...['-chardev', `socket,id=qmp,server=on,wait=off,fd=${listen(QMP_SOCKET)}`, '-mon', 'qmp,mode=control'],
  ];
  const device = (model: string, properties: string): void => {
    vmm.push('-device', `${model}-${machineType.virtioSuffix}${properties}`);
  };
  device('virtio-serial', ',id=serial,max_ports=2');
  vmm.push('-chardev', `socket,id=agent,server=on,wait=off,fd=${listen(AGENT_SOCKET)}`);
  vmm.push('-device', 'virtserialport,bus=serial.0,chardev=agent,name=org.arcbox.agent');
  device('virtio-scsi', ',id=scsi,num_queues=1');
  device('virtio-rng', '');
  device('virtio-balloon', ',free-page-reporting=on');
  for (const [index, nic] of config.nics.entries()) {
    vmm.push('-netdev', `stream,id=net${index},server=on,addr.type=fd,addr.str=${listen(nicSocket(index))}`);
    device('virtio-net', `,netdev=net${index},mac=${nic.mac},host_mtu=${nic.mtu}`);
  }
  for (const { disk, fd } of input.disks) {
    vmm.push('-add-fd', `fd=${pass(fd)},set=${fds.length}`);
    vmm.push('-blockdev', JSON.stringify(blockNode(disk, fds.length)));
    device('virtio-blk', `,drive=${diskNode(disk.id)},serial=${disk.id}`);
  }
  for (const { disk, fd } of input.hotDisks) {
    vmm.push('-add-fd', `fd=${pass(fd)},set=${fds.length},opaque=${opaqueOf(disk).replaceAll(',', ',,')}`);
    vmm.push('-blockdev', JSON.stringify(blockNode(disk, fds.length)));
    vmm.push('-device', JSON.stringify(scsiDisk(disk)));
  }
  let incoming: string | undefined;
  if (input.kvmFd !== undefined) guardian.push('--inject', `${KVM_PATH}=${pass(input.kvmFd)}`);
  if (input.start.kind === 'boot') {
    vmm.push('-kernel', `/proc/self/fd/${pass(input.start.kernelFd)}`);
    vmm.push('-initrd', `/proc/self/fd/${pass(input.start.initramfsFd)}`);
    vmm.push('-append', kernelCommandLine(machineType, config, input));
  } else {
    incoming = `fd:${pass(input.start.stateFd)}`;
    vmm.push('-incoming', 'defer');
  }

  guardian.push('--keep-fd-max', String(OWNER_FD + fds.length));
  guardian.push('--log', `${VMM_LOG}=2`, '--log', `${CONSOLE_LOG}=1`);
  if (config.lifetime.kind === 'adoptable') {
    const { orphanGraceMs } = config.lifetime;
    guardian.push(
      '--orphan-ms',
      orphanGraceMs === Number.POSITIVE_INFINITY ? '-1' : String(Math.ceil(orphanGraceMs)),
    );
  }
  if (input.uid !== undefined) guardian.push('--uid', String(input.uid));
  guardian.push(...input.cgroupArgs);
  return { guardianArgs: [...guardian, '--', input.qemu, ...vmm], fds, incoming };
}

/**
 * An emulated x86 guest reads the host's time-stamp counter, and cannot measure its rate when the host is busy. Then it
 * would count time in jiffies, 4 ms each and some lost, and a KVM in it would wait for a rate for ever.
 */
export function kernelCommandLine(
  machineType: MachineType,
  config: VmConfig,
  host: { readonly accelerator: Accelerator; readonly tscKhz?: number | undefined },
): string {
  const knowsTsc =
    machineType.architecture === 'x86_64' && host.accelerator === 'tcg' && host.tscKhz !== undefined;
  const tsc = knowsTsc ? [`tsc_early_khz=${host.tscKhz}`, 'tsc=reliable'] : [];
  return [...machineType.kernelArgs, ...tsc, ...config.kernelArgs].join(' ');
}

/** The block node of a disk whose descriptor is in `fdset`; the format is never guessed. */
export function blockNode(disk: DiskConfig, fdset: number): Record<string, unknown> {
  return {
    driver: disk.format,
    'node-name': diskNode(disk.id),
    'read-only': disk.readOnly,
    discard: 'unmap',
    file: {
      driver: 'file',
      filename: `/dev/fdset/${fdset}`,
      'read-only': disk.readOnly,
      discard: 'unmap',
    },
  };
}

/** What we write beside a disk's descriptor in QEMU, to know the disk again after a crash of ours. */
export function opaqueOf(disk: HotDisk): string {
  return JSON.stringify(disk);
}

/** Arguments of the disk's device on the virtio-scsi controller. */
export function scsiDisk(disk: HotDisk): Record<string, unknown> {
  return {
    driver: 'scsi-hd',
    id: diskDevice(disk.id),
    bus: 'scsi.0',
    lun: disk.lun,
    drive: diskNode(disk.id),
    serial: disk.id,
  };
}

export function diskNode(id: string): string {
  return `disk-${id}`;
}

export function diskDevice(id: string): string {
  return `hot-${id}`;
}

function acceleratorValue(input: LaunchInput): string {
  return input.accelerator === 'tcg' ? `tcg,tb-size=${input.tcgCacheMib}` : input.accelerator;
}

function memoryObject(input: LaunchInput, pass: (fd: number) => number, guardian: string[]): string {
  const size = `size=${input.config.memoryMib}M`;
  const { memory } = input;
  if (memory.kind === 'memfd') return `memory-backend-memfd,id=ram,${size},share=on`;
  const fd = pass(memory.fd);
  guardian.push('--inject', `${RAM_PATH}=${fd}`);
  if (memory.kind === 'private') guardian.push('--private-ram-fd', String(fd));
  return `memory-backend-file,id=ram,${size},mem-path=${RAM_PATH},share=${memory.kind === 'shared' ? 'on' : 'off'}`;
}
