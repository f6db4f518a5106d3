/** What passes now: every flow with its ends, its state and what it has carried. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { listFlows, type PlacedFlow } from '../src/stack/flow-list.ts';
import type { NetworkStack } from '../src/stack/network-stack.ts';
import { TCP_STATE_NAMES } from '../src/tcp/connection.ts';
import { ipBytes } from '../src/wire/address.ts';
import { TwoStacks } from './support/two-stacks.ts';

const SERVER = '198.41.0.4';

function placed(stack: NetworkStack): PlacedFlow[] {
  return Array.from(stack.flows(), (flow) => ({ network: stack.name, flow }));
}

test('a connection over a wire that loses: each byte counts once, both ways', async () => {
  const pair = new TwoStacks({ seed: 7, loss: 0.1, reorders: 0.1, duplicates: 0.1 });
  const beganMs = pair.time.ms;
  const program = pair.connect(SERVER, 80);
  program.send(new Uint8Array(300_000), false);
  await pair.run(() => pair.gateway.host.streams[0]?.receivedBytes === 300_000);
  pair.gateway.host.streams[0]?.send(new Uint8Array(200_000));
  await pair.run(() => program.receivedBytes === 200_000, 60_000);
  const { flows, omitted } = listFlows(placed(pair.gateway.stack), 10, pair.time.ms);
  assert.equal(omitted, 0);
  const [{ machinePort = 0, ageMs = 0, ...flow } = {}] = flows;
  assert.deepEqual(flow, {
    ...{ protocol: 'tcp', network: 'lab', link: 'vm', begun: 'machine', state: 'established' },
    ...{ machineAddress: '10.0.0.2', peerAddress: SERVER, peerPort: 80 },
    ...{ bytesFromMachine: 300_000, bytesToMachine: 200_000 },
  });
  assert.ok(machinePort >= 32_768);
  assert.ok(ageMs > 0 && ageMs <= pair.time.ms - beganMs);
  // The machine's side began it; it has sent the same bytes, some of them again.
  const [mirror] = listFlows(placed(pair.machine.stack), 10, pair.time.ms).flows;
  assert.equal(mirror?.begun, 'peer');
  assert.deepEqual([mirror?.bytesFromMachine, mirror?.bytesToMachine], [200_000, 300_000]);
});

test('everything is sent again after a timeout, and still counts once', async () => {
  const pair = new TwoStacks();
  const program = pair.connect(SERVER, 80);
  await pair.run(() => program.isOpen);
  let lost = 0;
  pair.filter = (frame, to) => {
    if (to !== pair.machine || frame.length < 1000) return true;
    lost += 1;
    return lost > 10;
  };
  pair.gateway.host.streams[0]?.send(new Uint8Array(100_000));
  await pair.run(() => program.receivedBytes === 100_000);
  assert.ok(lost > 10);
  assert.equal(listFlows(placed(pair.gateway.stack), 10, pair.time.ms).flows[0]?.bytesToMachine, 100_000);
});

test('a denied connection is gone; denied datagrams and echoes, and those that wait, say so', async () => {
  const pair = new TwoStacks();
  pair.gateway.stack.setPolicy(({ destination }) =>
    destination === SERVER ? { action: 'deny' } : new Promise(() => {}),
  );
  const { machine } = pair;
  const hop = { port: machine.port, vlan: 0, mac: pair.gateway.stack.mac };
  for (const to of [SERVER, '198.41.0.5']) {
    pair.connect(to, 80);
    const flow = machine.stack.udp.connect(hop, 4, ipBytes('10.0.0.2'), ipBytes(to), 53);
    flow?.datagram(Buffer.from('four'));
  }
  await pair.run(() => false, 100);
  const { flows } = listFlows(placed(pair.gateway.stack), 10, pair.time.ms);
  const seen = flows.map(({ protocol, peerAddress, peerPort, state, bytesFromMachine }) =>
    [protocol, peerAddress, peerPort, state, bytesFromMachine].join(' '),
  );
  assert.deepEqual(seen.sort(), [
    'tcp 198.41.0.5 80 dialing 0',
    'udp 198.41.0.4 53 denied 4',
    'udp 198.41.0.5 53 dialing 4',
  ]);
});

test('of more flows than there is room for, the busiest are listed', async () => {
  const pair = new TwoStacks();
  for (let i = 1; i <= 5; i += 1) {
    const program = pair.connect('fd00:1::1', 80 + i);
    program.send(new Uint8Array(i * 100), false);
  }
  const { streams } = pair.gateway.host;
  await pair.run(() => streams.reduce((sum, { receivedBytes }) => sum + receivedBytes, 0) === 1500);
  const { flows, omitted } = listFlows(placed(pair.gateway.stack), 2, pair.time.ms);
  assert.equal(omitted, 3);
  assert.deepEqual(
    flows.map(({ peerAddress, peerPort }) => `${peerAddress} ${peerPort}`),
    ['fd00:1::1 85', 'fd00:1::1 84'],
  );
});

test('each state has its name', () => {
  assert.deepEqual(
    [TCP_STATE_NAMES[0], TCP_STATE_NAMES[3], TCP_STATE_NAMES[9]],
    ['dialing', 'established', 'time-wait'],
  );
  assert.equal(TCP_STATE_NAMES.length, 11);
});
