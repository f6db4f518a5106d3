/** Policies on the stack: what a connection says first decides whether any of it leaves. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NameTable } from '../src/dns/index.ts';
import type { RulePolicy } from '../src/policy/index.ts';
import { WorkerPolicies } from '../src/worker/policies.ts';
import type { DeniedFlow } from '../src/worker/protocol.ts';
import { type Program, TwoStacks } from './support/two-stacks.ts';

const NOT_ASKED = (): Promise<never> => Promise.reject(new Error('nobody has a function'));

const SERVER = '198.41.0.4';
const request = (host: string): Buffer => Buffer.from(`GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`);

function bench(policy: RulePolicy): { pair: TwoStacks; denied: DeniedFlow[]; policies: WorkerPolicies } {
  const pair = new TwoStacks();
  const names = new NameTable();
  names.addNetwork('lab', { subnet: '10.0.0.0/24', gateway: ['10.0.0.1'] });
  names.add({ owner: 'c1', network: 'lab', addresses: ['10.0.0.2'], names: ['one'] });
  const denied: DeniedFlow[] = [];
  const policies = new WorkerPolicies(names, (flow) => denied.push(flow), NOT_ASKED);
  policies.set({ kind: 'owner', name: 'c1' }, policy);
  pair.gateway.stack.setPolicy((flow) => policies.judge({ ...flow, network: 'lab' }));
  const source = { vm: 'any', network: 'lab', address: '10.0.0.2' };
  policies.resolved({ source, name: 'good.test', addresses: [SERVER], ttlS: 60, local: false });
  return { pair, denied, policies };
}

const ONE_DOMAIN: RulePolicy = { default: 'deny', rules: [{ action: 'allow', domains: ['good.test'] }] };

async function talk(pair: TwoStacks, bytes: Uint8Array, finish: boolean): Promise<Program> {
  const program = pair.connect(SERVER, 80);
  program.send(bytes, finish);
  await pair.run(() => program.end !== undefined, 2000);
  return program;
}

test('a request for the domain passes whole; one for another is reset, and none of it leaves', async () => {
  const { pair, denied } = bench(ONE_DOMAIN);
  await talk(pair, request('good.test'), false);
  assert.deepEqual(Buffer.concat(pair.gateway.host.streams[0]?.received ?? []), request('good.test'));
  const bad = await talk(pair, request('bad.test'), false);
  assert.equal(bad.end, 'reset');
  assert.equal(pair.gateway.host.streams[1]?.receivedBytes, 0);
  assert.deepEqual(
    denied.map(({ kind, name, names }) => ({ kind, name, names })),
    [{ kind: 'owner', name: 'c1', names: ['bad.test'] }],
  );
});

test('a request in two pieces is waited for; one that ends early passes', async () => {
  const { pair } = bench(ONE_DOMAIN);
  const program = pair.connect(SERVER, 80);
  program.send(request('good.test').subarray(0, 20), false);
  await pair.run(() => false, 500);
  assert.equal(pair.gateway.host.streams[0]?.receivedBytes, 0);
  program.send(request('good.test').subarray(20), false);
  await pair.run(() => (pair.gateway.host.streams[0]?.receivedBytes ?? 0) > 0, 500);
  assert.deepEqual(Buffer.concat(pair.gateway.host.streams[0]?.received ?? []), request('good.test'));
  await talk(pair, Buffer.from('GET'), true);
  assert.equal(Buffer.concat(pair.gateway.host.streams[1]?.received ?? []).toString(), 'GET');
});

test('an address that was not resolved is refused before anybody is dialled; the policy is replaced while it runs', async () => {
  const { pair, policies } = bench(ONE_DOMAIN);
  const program = pair.connect('198.41.0.5', 80);
  await pair.run(() => program.end !== undefined, 2000);
  assert.notEqual(program.end, 'closed');
  assert.equal(pair.gateway.host.streams.length, 0);
  policies.set({ kind: 'owner', name: 'c1' }, { default: 'allow' });
  const again = pair.connect('198.41.0.5', 80);
  again.send(Buffer.from('x'), false);
  await pair.run(() => (pair.gateway.host.streams[0]?.receivedBytes ?? 0) > 0, 2000);
  assert.equal(pair.gateway.host.streams[0]?.receivedBytes, 1);
  assert.equal(policies.stats()[0]?.counters.allowed, 1);
});
