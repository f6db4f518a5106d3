/** What differs between architectures and machine types, as data. */
import type { Architecture } from '../contract.ts';

export type Accelerator = 'kvm' | 'hvf' | 'tcg';

export interface MachineType {
  readonly architecture: Architecture;
  /** QEMU's program for it. */
  readonly binary: string;
  /** Value of `-machine`, to which the memory backend is appended. */
  readonly machine: string;
  /** Value of `-cpu`, by accelerator. */
  readonly cpu: Readonly<Record<Accelerator, string>>;
  /** Suffix of virtio device models on this machine's bus. */
  readonly virtioSuffix: string;
  /** Virtio transports there are: the driver's own devices, disks and network cards share them. */
  readonly virtioDevicesMax: number;
  /** The driver's part of the kernel's command line. */
  readonly kernelArgs: readonly string[];
  /** The machine cannot power off, so a reset ends it (`-no-reboot`). */
  readonly endsByReset: boolean;
}

/** A panic resets at once, which ends the machine. No dummy network device before somebody makes one. */
const COMMON_KERNEL_ARGS = [
  'panic=-1',
  'quiet',
  'dummy.numdummies=0',
  // Not tmpfs: crun takes a program that lies there for a copy in memory that was not sealed, and copies it every time.
  'rootfstype=ramfs',
] as const;

export const MACHINE_TYPES: Readonly<Record<Architecture, MachineType>> = {
  x86_64: {
    architecture: 'x86_64',
    binary: 'qemu-system-x86_64',
    machine: 'microvm,x-option-roms=off,rtc=on,acpi=off,suppress-vmdesc=on',
    // TCG runs `rep movsb` a byte at a time, and Linux copies with it when the CPU says that it is fast. Without:
    // two to three times the bytes over the agent's port, and an eighth off the boot. Without SVM, which nothing here
    // can use, the kernel's KVM does not spend 70 ms on finding it.
    cpu: { kvm: 'host', hvf: 'host', tcg: 'max,-erms,-fsrm,-svm' },
    virtioSuffix: 'device',
    virtioDevicesMax: 8,
    kernelArgs: ['console=ttyS0', 'reboot=t', ...COMMON_KERNEL_ARGS],
    endsByReset: true,
  },
  aarch64: {
    architecture: 'aarch64',
    binary: 'qemu-system-aarch64',
    machine: 'virt,gic-version=3,acpi=off,suppress-vmdesc=on',
    cpu: { kvm: 'host', hvf: 'host', tcg: 'max' },
    virtioSuffix: 'device',
    virtioDevicesMax: 32,
    kernelArgs: ['console=ttyAMA0', ...COMMON_KERNEL_ARGS],
    endsByReset: false,
  },
};

/** Serial port, SCSI, entropy and balloon: what every machine has. */
export const OWN_VIRTIO_DEVICES = 4;
