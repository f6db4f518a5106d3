/** Networks and endpoints in the state database. */
import type { SQLOutputValue } from 'node:sqlite';
import type { EndpointRecord, NetworkRecord } from '../network/network-record.ts';

/** How a table reaches its database. */
export interface Statements {
  all(sql: string, ...parameters: (string | number)[]): Record<string, SQLOutputValue>[];
  /** The ROWID of what was inserted last. */
  run(sql: string, ...parameters: (string | number | null)[]): number;
}

export class NetworkTable {
  readonly #statements: Statements;

  constructor(statements: Statements) {
    this.#statements = statements;
  }

  networks(): NetworkRecord[] {
    return this.#statements.all('SELECT * FROM networks ORDER BY created_ms, vlan').map((row) => ({
      id: String(row.id),
      name: String(row.name),
      vlan: Number(row.vlan),
      subnet: String(row.subnet),
      gateway: String(row.gateway),
      range: textOf(row.range),
      subnet6: textOf(row.subnet6),
      gateway6: textOf(row.gateway6),
      range6: textOf(row.range6),
      internal: row.internal === 1,
      labels: JSON.parse(String(row.labels)) as Record<string, string>,
      createdMs: Number(row.created_ms),
    }));
  }

  insertNetwork(record: NetworkRecord): void {
    this.#statements.run(
      `INSERT INTO networks (id, name, vlan, subnet, gateway, range, internal, labels, created_ms,
         subnet6, gateway6, range6) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      record.id,
      record.name,
      record.vlan,
      record.subnet,
      record.gateway,
      record.range ?? null,
      record.internal ? 1 : 0,
      JSON.stringify(record.labels),
      record.createdMs,
      record.subnet6 ?? null,
      record.gateway6 ?? null,
      record.range6 ?? null,
    );
  }

  deleteNetwork(id: string): void {
    this.#statements.run('DELETE FROM networks WHERE id = ?', id);
  }

  endpoints(): EndpointRecord[] {
    return this.#statements.all('SELECT * FROM endpoints ORDER BY number').map((row) => ({
      number: Number(row.number),
      networkId: String(row.network_id),
      containerId: String(row.container_id),
      position: Number(row.position),
      address: String(row.address),
      address6: textOf(row.address6),
      mac: String(row.mac),
      aliases: JSON.parse(String(row.aliases)) as string[],
    }));
  }

  /** The record, with the number it was given. */
  insertEndpoint(record: Omit<EndpointRecord, 'number'>): EndpointRecord {
    const number = this.#statements.run(
      `INSERT INTO endpoints (network_id, container_id, position, address, mac, aliases, address6)
         VALUES (?, ?, ?, ?, ?, ?, ?)`,
      record.networkId,
      record.containerId,
      record.position,
      record.address,
      record.mac,
      JSON.stringify(record.aliases),
      record.address6 ?? null,
    );
    return { ...record, number };
  }

  deleteEndpoint(number: number): void {
    this.#statements.run('DELETE FROM endpoints WHERE number = ?', number);
  }
}

function textOf(value: SQLOutputValue | undefined): string | undefined {
  return typeof value === 'string' ? value : undefined;
}
