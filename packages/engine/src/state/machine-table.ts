/** Machines in the state database: what they are made of, and where to find one that runs or has idled down. */
import type { VmHandle } from '@arcbox/vm';
import type { MachineOptions, MachineRecord } from '../machine/machine-record.ts';
import type { SavedMachine } from '../machine/saved-machine.ts';
import type { Statements } from './network-table.ts';

export class MachineTable {
  readonly #statements: Statements;

  constructor(statements: Statements) {
    this.#statements = statements;
  }

  /** All that there are, in order of their names. */
  records(): MachineRecord[] {
    return this.#statements.all('SELECT * FROM machines ORDER BY name').map((row) => ({
      name: String(row.name),
      removing: row.removing === 1,
      createdMs: Number(row.created_ms),
      ...(row.cpus === null ? {} : { cpus: Number(row.cpus) }),
      ...(row.memory_mib === null ? {} : { memoryMib: Number(row.memory_mib) }),
      ...(row.disk_bytes === null ? {} : { diskBytes: Number(row.disk_bytes) }),
    }));
  }

  /** Its record; one that is there already stays as it is. */
  insert(name: string, { cpus, memoryMib, diskBytes }: MachineOptions): MachineRecord {
    this.#statements.run(
      `INSERT INTO machines (name, cpus, memory_mib, disk_bytes, created_ms) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT (name) DO NOTHING`,
      name,
      cpus ?? null,
      memoryMib ?? null,
      diskBytes ?? null,
      Date.now(),
    );
    const found = this.records().find((record) => record.name === name);
    if (found === undefined) throw new Error(`the machine ${name} was not stored`);
    return found;
  }

  setRemoving(name: string): void {
    this.#statements.run('UPDATE machines SET removing = 1 WHERE name = ?', name);
  }

  delete(name: string): void {
    this.#statements.run('DELETE FROM machines WHERE name = ?', name);
  }

  /** What `VmDriver.adopt` needs; undefined while it does not run. */
  handle(name: string): VmHandle | undefined {
    return this.#json<VmHandle>('handle', name);
  }

  setHandle(name: string, handle: VmHandle | undefined): void {
    this.#statements.run('UPDATE machines SET handle = ? WHERE name = ?', toJson(handle), name);
  }

  /** What an idle machine goes on from; undefined when it has not idled down. */
  saved(name: string): SavedMachine | undefined {
    return this.#json<SavedMachine>('saved', name);
  }

  /** The machine has idled down: from now on it is what was saved, and no process. With undefined: it is not any more. */
  setSaved(name: string, saved: SavedMachine | undefined): void {
    const forgetProcess = saved === undefined ? '' : ', handle = NULL';
    this.#statements.run(`UPDATE machines SET saved = ?${forgetProcess} WHERE name = ?`, toJson(saved), name);
  }

  #json<T>(column: 'handle' | 'saved', name: string): T | undefined {
    const [row] = this.#statements.all(`SELECT ${column} AS json FROM machines WHERE name = ?`, name);
    return typeof row?.json === 'string' ? (JSON.parse(row.json, reviveInfinity) as T) : undefined;
  }
}

function toJson(value: unknown): string | null {
  return value === undefined ? null : JSON.stringify(value, keepInfinity);
}

/** JSON has no infinity, and a machine's grace time may be that. */
function keepInfinity(_key: string, value: unknown): unknown {
  return value === Number.POSITIVE_INFINITY ? '∞' : value;
}
function reviveInfinity(_key: string, value: unknown): unknown {
  return value === '∞' ? Number.POSITIVE_INFINITY : value;
}
