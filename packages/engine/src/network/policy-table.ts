/** Policies in the state database. They go with their container. */
import type { RulePolicy } from '@arcbox/net/policy';
import type { Statements } from '../state/network-table.ts';

/** Whose policy it is. A container's counts before that of the machine it is in. */
export interface PolicySubject {
  readonly kind: 'container' | 'machine';
  /** A container's ID, a machine's name. */
  readonly id: string;
}

export class PolicyTable {
  readonly #statements: Statements;

  constructor(statements: Statements) {
    this.#statements = statements;
  }

  get({ kind, id }: PolicySubject): RulePolicy | undefined {
    const [row] = this.#statements.all('SELECT policy FROM policies WHERE kind = ? AND id = ?', kind, id);
    return row === undefined ? undefined : (JSON.parse(String(row.policy)) as RulePolicy);
  }

  /** Whoever has one. */
  subjects(): PolicySubject[] {
    return this.#statements.all('SELECT kind, id FROM policies').map(({ kind, id }) => ({
      kind: kind === 'machine' ? 'machine' : 'container',
      id: String(id),
    }));
  }

  set({ kind, id }: PolicySubject, policy: RulePolicy | undefined): void {
    if (policy === undefined) {
      this.#statements.run('DELETE FROM policies WHERE kind = ? AND id = ?', kind, id);
      return;
    }
    this.#statements.run(
      'INSERT INTO policies (kind, id, policy) VALUES (?, ?, ?) ON CONFLICT (kind, id) DO UPDATE SET policy = excluded.policy',
      kind,
      id,
      JSON.stringify(policy),
    );
  }
}
