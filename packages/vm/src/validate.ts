/** A machine's configuration is checked before anything is claimed for it. */
import fs from 'node:fs';
import type { DiskConfig, VmConfig } from './contract.ts';
import { VmError } from './errors.ts';
import {
  BOOT_TIMEOUT_MS_MAX,
  DISK_ID_PATTERN,
  MAC_PATTERN,
  MEMORY_MIB_MAX,
  MEMORY_MIB_MIN,
  MTU_MAX,
  MTU_MIN,
  NAME_BYTES_MAX,
  VCPUS_MAX,
} from './limits.ts';

/** @throws {VmError} `ERR_ARCBOX_VM_CONFIG`. */
export function validateConfig(config: VmConfig): void {
  validateName(config.name);
  inRange('vcpus', config.vcpus, 1, VCPUS_MAX);
  inRange('memoryMib', config.memoryMib, MEMORY_MIB_MIN, MEMORY_MIB_MAX);
  inRange('bootTimeoutMs', config.bootTimeoutMs, 1, BOOT_TIMEOUT_MS_MAX);
  mustBeFile('The kernel', config.kernel);
  mustBeFile('The initramfs', config.initramfs);
  for (const arg of config.kernelArgs) {
    // Printable ASCII without blanks: one argument stays one.
    if (!/^[\x21-\x7e]+$/.test(arg))
      throw wrong(`The kernel argument ${JSON.stringify(arg)} is not one word`);
  }
  for (const disk of config.disks) validateDisk(disk);
  unique(
    'disk',
    config.disks.map((disk) => disk.id),
  );
  for (const nic of config.nics) {
    if (!MAC_PATTERN.test(nic.mac))
      throw wrong(`The MAC address ${JSON.stringify(nic.mac)} is not six lower-case hex bytes`);
    inRange('mtu', nic.mtu, MTU_MIN, MTU_MAX);
  }
  unique(
    'MAC address',
    config.nics.map((nic) => nic.mac),
  );
  const { lifetime } = config;
  if (lifetime.kind === 'adoptable' && !(lifetime.orphanGraceMs >= 0)) {
    throw wrong(`orphanGraceMs is ${lifetime.orphanGraceMs}; it must be 0 or more`);
  }
}

/** @throws {VmError} `ERR_ARCBOX_VM_CONFIG`. */
export function validateDisk(disk: DiskConfig): void {
  if (!DISK_ID_PATTERN.test(disk.id)) {
    throw wrong(`The disk id ${JSON.stringify(disk.id)} is not 1 to 20 of a-z, 0-9 and the hyphen`);
  }
  mustBeFile(`The disk ${disk.id}`, disk.path);
}

/** @throws {VmError} `ERR_ARCBOX_VM_CONFIG`. */
export function validateName(name: string): void {
  const bytes = Buffer.byteLength(name);
  if (bytes === 0 || bytes > NAME_BYTES_MAX || name.includes('\0')) {
    throw wrong(
      `A machine's name has 1 to ${NAME_BYTES_MAX} bytes; ${JSON.stringify(name.slice(0, NAME_BYTES_MAX))} does not`,
    );
  }
}

function inRange(what: string, value: number, min: number, max: number): void {
  if (!Number.isInteger(value) || value < min || value > max) {
    throw wrong(`${what} is ${value}; it must be a whole number from ${min} to ${max}`);
  }
}

function mustBeFile(what: string, path: string): void {
  const stat = fs.statSync(path, { throwIfNoEntry: false });
  if (stat === undefined) throw wrong(`${what} ${path} does not exist`);
  if (!stat.isFile() && !stat.isBlockDevice()) throw wrong(`${what} ${path} is no file`);
}

function unique(what: string, values: readonly string[]): void {
  const twice = values.find((value, index) => values.indexOf(value) !== index);
  if (twice !== undefined) throw wrong(`The ${what} ${twice} is used twice`);
}

function wrong(message: string): VmError {
  return new VmError('ERR_ARCBOX_VM_CONFIG', message);
}
