import type { HotDisk, Snapshot, VmHandle } from '../contract.ts';
import { VmError } from '../errors.ts';
import type { FaultHook } from '../faults.ts';
import type { QmpClient } from '../qmp.ts';

export interface SnapshotInput {
  readonly qmp: QmpClient;
  readonly handle: VmHandle;
  readonly hotDisks: readonly HotDisk[];
  readonly paused: boolean;
  readonly privateMemoryPath: string | undefined;
  readonly directory: string;
  readonly fault: FaultHook;
}

export async function writeSnapshot(_input: SnapshotInput): Promise<Snapshot> {
  throw new VmError('ERR_ARCBOX_VM_SNAPSHOT', 'not yet');
}
