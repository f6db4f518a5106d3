/** Our end of a lease on a machine: what the guardian (native/guardian.c) tells its owners. */
import { spawn } from 'node:child_process';
import type { Duplex } from 'node:stream';
import { reasonOf, VmError } from '../errors.ts';
import { GUARDIAN_TIMEOUT_MS, LEASE_BYTES_MAX } from '../limits.ts';
import { connectUnix } from './connect-unix.ts';

export interface VmmProcess {
  readonly pid: number;
  /** Field 22 of /proc/PID/stat. */
  readonly startTime: string;
}

/** Who ended the VMM: it did, we asked, the last owner left, the grace time or a signal to the guardian did. */
export type EndedBy = 'itself' | 'owner' | 'lease' | 'grace' | 'signal' | 'guardian' | 'cgroup';

export type LeaseEnd =
  | {
      readonly kind: 'exit';
      /** Exit status of the VMM, -1 when a signal ended it. */
      readonly code: number;
      readonly signal: number;
      readonly by: EndedBy;
      /** The last 4 KiB of every log, by its name. */
      readonly logs: ReadonlyMap<string, string>;
    }
  /** The guardian was killed: it did not clean up, and the VMM dies with it. */
  | { readonly kind: 'lost' }
  /** We closed our end. */
  | { readonly kind: 'closed' };

export class Lease {
  /** Settles when the VMM runs. Rejects (`ERR_ARCBOX_VM_HOST`, `ERR_ARCBOX_VM_GONE`) when it does not. */
  readonly up: Promise<VmmProcess>;
  /** Settles when everything was released by the guardian, or it cannot do it any more. Never rejects. */
  readonly ended: Promise<LeaseEnd>;
  /** Of a guardian that we started; it is the process group's leader. */
  readonly guardianPid: number | undefined;
  readonly #stream: Duplex;
  #closed = false;

  private constructor(stream: Duplex, guardianPid: number | undefined) {
    this.#stream = stream;
    this.guardianPid = guardianPid;
    const up = Promise.withResolvers<VmmProcess>();
    const ended = Promise.withResolvers<LeaseEnd>();
    this.up = up.promise;
    this.ended = ended.promise;
    this.up.catch(() => undefined);
    const parts: Buffer[] = [];
    let length = 0;
    let isUp = false;
    stream.on('data', (data: Buffer) => {
      length += data.length;
      if (length > LEASE_BYTES_MAX) {
        stream.destroy(new Error('the guardian said more than it may'));
        return;
      }
      parts.push(data);
      if (isUp) return;
      const match = /^up pid=([0-9]+) start=([0-9]+)$/m.exec(Buffer.concat(parts).toString('latin1'));
      if (match?.[1] === undefined || match[2] === undefined) return;
      isUp = true;
      up.resolve({ pid: Number(match[1]), startTime: match[2] });
    });
    // The close that follows tells all there is to tell.
    stream.on('error', () => undefined);
    stream.on('end', () => stream.destroy());
    stream.once('close', () => {
      const text = Buffer.concat(parts);
      const end: LeaseEnd = this.#closed ? { kind: 'closed' } : parseEnd(text);
      if (!isUp) up.reject(startFailure(text.toString('utf8')));
      ended.resolve(end);
    });
  }

  /** Starts a guardian. `fds` become its descriptors from 4 on, those of ours stay ours. */
  static spawn(guardian: string, args: readonly string[], fds: readonly number[]): Lease {
    const child = spawn(guardian, args, {
      cwd: '/',
      detached: true,
      env: {},
      stdio: ['ignore', 'ignore', 'ignore', 'pipe', ...fds],
    });
    const stream = child.stdio[3];
    if (!isDuplex(stream))
      throw new VmError('ERR_ARCBOX_VM_HOST', `The guardian ${guardian} got no connection`);
    child.once('error', (cause) => stream.destroy(cause));
    // The lease tells when it is over; the process as such need not keep us alive.
    child.unref();
    const lease = new Lease(stream, child.pid);
    if (child.pid === undefined) stream.destroy();
    return lease;
  }

  /**
   * Takes up a lease of a machine whose guardian runs.
   *
   * @throws {VmError} `ERR_ARCBOX_VM_GONE`.
   */
  static async connect(path: string): Promise<Lease> {
    const socket = await connectUnix(path).catch((cause: unknown) => {
      throw new VmError('ERR_ARCBOX_VM_GONE', `No guardian listens on ${path}: ${reasonOf(cause)}`, {
        cause,
      });
    });
    return new Lease(socket, undefined);
  }

  /** `up`, in time. */
  async waitUntilUp(): Promise<VmmProcess> {
    const timer = setTimeout(() => this.#stream.destroy(new Error('timed out')), GUARDIAN_TIMEOUT_MS);
    try {
      return await this.up;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Has the guardian kill the VMM now. */
  kill(): void {
    if (!this.#stream.destroyed) this.#stream.write('kill\n');
  }

  /** Gives the lease up. What then happens is the machine's lifetime. */
  close(): void {
    this.#closed = true;
    this.#stream.destroy();
  }
}

function isDuplex(stream: unknown): stream is Duplex {
  return typeof stream === 'object' && stream !== null && 'write' in stream && 'read' in stream;
}

function startFailure(text: string): VmError {
  const match = /^fail errno=([0-9]+) step=(.*)$/m.exec(text);
  if (match?.[2] !== undefined) {
    return new VmError('ERR_ARCBOX_VM_HOST', `The guardian could not ${match[2]} (errno ${match[1]})`);
  }
  return new VmError(
    'ERR_ARCBOX_VM_HOST',
    'The guardian ended before it had started the machine; is its file executable?',
  );
}

function parseEnd(text: Buffer): LeaseEnd {
  const head = text.toString('latin1');
  const match = /^exit code=(-?[0-9]+) signal=([0-9]+) by=(\w+)((?: [\w.]+=[0-9]+)*)\n/m.exec(head);
  if (match === null)
    return head.startsWith('fail ') || head.includes('\nfail ') ? failed() : { kind: 'lost' };
  const logs = new Map<string, string>();
  let at = match.index + match[0].length;
  for (const entry of (match[4] ?? '').trim().split(' ')) {
    const [name, length] = entry.split('=');
    if (name === undefined || length === undefined) continue;
    logs.set(name, text.toString('utf8', at, at + Number(length)));
    at += Number(length);
  }
  return { kind: 'exit', code: Number(match[1]), signal: Number(match[2]), by: endedBy(match[3]), logs };
}

function failed(): LeaseEnd {
  return { kind: 'exit', code: -1, signal: 0, by: 'guardian', logs: new Map() };
}

function endedBy(text: string | undefined): EndedBy {
  for (const by of ['owner', 'lease', 'grace', 'signal', 'guardian', 'cgroup'] as const) {
    if (by === text) return by;
  }
  return 'itself';
}
