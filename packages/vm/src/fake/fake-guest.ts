/**
 * The inside of a fake machine: a flat file system in memory, disks that were attached, and an agent
 * that knows a few operations on them. Programs that need more give the driver handlers of their own.
 */
import { type AgentHandlers, type Op, type OpAnswer, OpFailure } from '@arcbox/protocol';
import type { HotDisk } from '../contract.ts';

const ENOENT = 2;
const ENOSYS = 38;
const ETIMEDOUT = 110;

/** What a snapshot of a fake machine keeps. */
export interface FakeMemory {
  /** File contents by path, base64. */
  readonly files: Readonly<Record<string, string>>;
  readonly epoch: number;
}

export class FakeGuest {
  readonly files = new Map<string, Uint8Array>();
  /** Connections since the agent started. */
  epoch = 0;
  disks: readonly HotDisk[] = [];
  /** Called when the guest has shut down. */
  onShutdown: (() => void) | undefined;

  save(): FakeMemory {
    const files = Object.fromEntries(
      [...this.files].map(([path, data]) => [path, Buffer.from(data).toString('base64')]),
    );
    return { files, epoch: this.epoch };
  }

  load(memory: FakeMemory): void {
    for (const [path, data] of Object.entries(memory.files))
      this.files.set(path, Buffer.from(data, 'base64'));
    this.epoch = memory.epoch;
  }

  /** The agent's behaviour. */
  handlers(): AgentHandlers {
    return {
      hello: () => ({
        epoch: BigInt(++this.epoch),
        agentVersion: 'fake',
        kernelRelease: 'fake',
        isInit: true,
      }),
      op: (op) => this.#run(op),
      object: () => undefined,
    };
  }

  #run(op: Op['op']): OpAnswer {
    switch (op.case) {
      case 'write': {
        const { path, data, append } = op.value;
        const old = append ? (this.files.get(path) ?? new Uint8Array()) : new Uint8Array();
        this.files.set(path, Buffer.concat([old, data]));
        return undefined;
      }
      case 'read': {
        const data = this.files.get(op.value.path);
        if (data === undefined) throw new OpFailure(ENOENT, `${op.value.path} does not exist`);
        return { case: 'data', value: { data, eof: true } };
      }
      case 'waitDevice': {
        const { match } = op.value;
        const disk = this.disks.find(({ id, lun }) =>
          match.case === 'scsiLun' ? lun === match.value : id === match.value,
        );
        if (disk === undefined) throw new OpFailure(ETIMEDOUT, 'the device did not appear');
        return { case: 'device', value: { path: `/dev/fake-${disk.lun}` } };
      }
      case 'shutdown':
        this.onShutdown?.();
        return undefined;
      case 'mkdir':
      case 'setTime':
      case 'reseed':
      case 'sync':
        return undefined;
      default:
        throw new OpFailure(ENOSYS, `the fake agent does not know ${op.case}`);
    }
  }
}
