/** Host files that a machine is given as descriptors, since its own user may not open them by path. */
import fs from 'node:fs';
import { closeFd, copySparse, memfdCreate } from '@arcbox/sys';
import type { DiskConfig } from '../contract.ts';
import { reasonOf, VmError } from '../errors.ts';

const OTHERS_READ = 0o004;
const QCOW2_MAGIC = 0x514649fb;
const QCOW2_HEADER_BYTES = 80;
/** "External data file": the image's bytes are in another file, which it names. */
const QCOW2_INCOMPATIBLE_EXTERNAL = 4n;

/** Descriptors that are closed together. */
export class OpenFiles implements Disposable {
  readonly #fds: number[] = [];
  readonly #created: string[] = [];

  add(fd: number): number {
    this.#fds.push(fd);
    return fd;
  }

  /** @throws {VmError} `ERR_ARCBOX_VM_CONFIG`. */
  open(what: string, path: string, flags: number, mode = 0o600): number {
    try {
      return this.add(fs.openSync(path, flags, mode));
    } catch (cause) {
      throw new VmError('ERR_ARCBOX_VM_CONFIG', `${what} ${path} cannot be opened: ${reasonOf(cause)}`, {
        cause,
      });
    }
  }

  /** A new file, for reading and writing. */
  create(what: string, path: string): number {
    const { O_RDWR, O_CREAT, O_EXCL } = fs.constants;
    const fd = this.open(what, path, O_RDWR | O_CREAT | O_EXCL);
    this.#created.push(path);
    return fd;
  }

  /** After a failure: takes the new files away again. */
  removeCreated(): void {
    for (const path of this.#created.splice(0)) fs.rmSync(path, { force: true });
  }

  /** A file that another user is to open again through /proc/self/fd, for which the file's own mode counts. */
  async openShared(what: string, path: string): Promise<number> {
    const fd = this.open(what, path, fs.constants.O_RDONLY);
    if ((fs.fstatSync(fd).mode & OTHERS_READ) !== 0) return fd;
    const copy = this.add(memfdCreate('arcbox-boot'));
    await copySparse(fd, copy);
    // A hole at the end is part of the file too.
    fs.ftruncateSync(copy, fs.fstatSync(fd).size);
    return copy;
  }

  openDisk(disk: DiskConfig): number {
    const fd = this.open(
      `The disk ${disk.id}`,
      disk.path,
      disk.readOnly ? fs.constants.O_RDONLY : fs.constants.O_RDWR,
    );
    if (disk.format === 'qcow2') checkQcow2(disk, fd);
    return fd;
  }

  [Symbol.dispose](): void {
    for (const fd of this.#fds.splice(0)) closeFd(fd);
  }
}

/** An image that names other files would have them opened on the host: it is refused. */
function checkQcow2(disk: DiskConfig, fd: number): void {
  const header = Buffer.alloc(QCOW2_HEADER_BYTES);
  fs.readSync(fd, header, 0, QCOW2_HEADER_BYTES, 0);
  if (header.readUInt32BE(0) !== QCOW2_MAGIC) {
    throw new VmError('ERR_ARCBOX_VM_CONFIG', `The disk ${disk.id} (${disk.path}) is no qcow2 image`);
  }
  const version = header.readUInt32BE(4);
  const external = version >= 3 && (header.readBigUInt64BE(72) & QCOW2_INCOMPATIBLE_EXTERNAL) !== 0n;
  if (header.readBigUInt64BE(8) !== 0n || external) {
    throw new VmError(
      'ERR_ARCBOX_VM_CONFIG',
      `The disk ${disk.id} (${disk.path}) names a backing or data file, which is not supported; flatten it first`,
    );
  }
}
