/** A policy that is a function of the daemon's, through the thread that carries the frames. */
import assert from 'node:assert/strict';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { test } from 'node:test';
import { DECISION_MS } from '../src/policy/limits.ts';
import { type AskedFlow, type DeniedFlow, type FlowFunction, NetworkWorker } from '../src/worker/index.ts';
import { PolicyFunctions } from '../src/worker/policy-functions.ts';
import { Card } from './support/card.ts';
import { parse, udp } from './support/frames.ts';

const GATEWAY = '10.7.0.1';
const GATEWAY_MAC = Uint8Array.of(2, 0xac, 10, 7, 0, 1);
const GUEST = '10.7.0.2';
const SUBJECT = { kind: 'owner', name: 'c' } as const;
const FLOW: AskedFlow = {
  ...{ protocol: 'tcp', network: 'n', source: GUEST, sourcePort: 1, names: [], public: true },
  ...{ destination: '192.0.2.1', destinationPort: 80 },
};

/** Answers with its name and what it was sent. */
async function service(name: string): Promise<{ socket: Socket; port: number }> {
  const socket = createSocket('udp4');
  socket.on('message', (message, { port, address }) => socket.send(`${name} ${message}`, port, address));
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  return { socket, port: socket.address().port };
}

test('each flow is asked about, and allowed, denied or redirected, by another function from one moment on', async () => {
  await using card = await Card.create();
  const denied: DeniedFlow[] = [];
  await using worker = await NetworkWorker.start({ denied: (flow) => denied.push(flow) });
  const right = await service('right');
  const other = await service('other');
  try {
    const network = { name: 'n', mtu: 1500, subnet: '10.7.0.0/24', gateway: GATEWAY };
    await worker.addNetwork({ ...network, internal: false, asks: false });
    await worker.plug('vm', card.path);
    await worker.attach('vm', 0, 'n');
    await worker.addEndpoint({ owner: 'c', network: 'n', addresses: [GUEST], names: ['one'] });
    let fromPort = 5000;
    /** What a datagram of a new flow is answered with. */
    const ask = async (): Promise<string> => {
      fromPort += 1;
      const ends = { from: GUEST, to: GATEWAY, toMac: GATEWAY_MAC };
      card.send(udp(fromPort, right.port, Buffer.from('hello'), ends));
      for (;;) {
        const { protocol, data, toPort } = parse(await card.next());
        if (protocol === 1) return 'refused';
        if (protocol === 17 && toPort === fromPort) return Buffer.from(data).toString();
      }
    };
    const asked: AskedFlow[] = [];
    const set = (policy: FlowFunction): Promise<void> =>
      worker.setPolicy(SUBJECT, (flow) => {
        asked.push(flow);
        return policy(flow);
      });
    await set(() => 'allow');
    assert.equal(await ask(), 'right hello');
    assert.deepEqual(asked, [
      {
        ...{ protocol: 'udp', network: 'n', names: [], public: false },
        ...{ source: GUEST, sourcePort: 5001, destination: GATEWAY, destinationPort: right.port },
      },
    ]);
    await set(async () => ({ action: 'redirect', address: '127.0.0.1', port: other.port }));
    assert.equal(await ask(), 'other hello');
    await set(() => 'deny');
    assert.equal(await ask(), 'refused');
    await set(() => {
      throw new Error('out of ideas');
    });
    assert.equal(await ask(), 'refused');
    await set((() => ({ action: 'perhaps', more: () => {} })) as unknown as FlowFunction);
    assert.equal(await ask(), 'refused');
    assert.equal(asked.length, 5);
    assert.deepEqual(
      denied.map(({ kind, name, destinationPort, reason }) => ({ kind, name, destinationPort, reason })),
      [
        'the policy function denies it',
        'the policy function failed: out of ideas',
        'the policy function answered neither allow, deny nor redirect',
      ].map((reason) => ({ ...SUBJECT, destinationPort: right.port, reason })),
    );
    const { policies } = await worker.stats();
    const counters = { allowed: 1, redirected: 1, denied: 3, failed: 2, untold: 0 };
    assert.deepEqual(policies, [{ ...SUBJECT, counters }]);
    // Rules in its place, and nothing: nobody is asked any more.
    await worker.setPolicy(SUBJECT, { default: 'deny' });
    assert.equal(await ask(), 'refused');
    await worker.setPolicy(SUBJECT, undefined);
    assert.equal(await ask(), 'right hello');
    assert.equal(asked.length, 5);
    // All of it was flows, which are seen with their owner.
    const { flows } = await worker.flows();
    const states = flows.map(({ owner, state }) => `${owner} ${state}`).sort();
    assert.deepEqual(states, [...Array<string>(4).fill('c denied'), ...Array<string>(3).fill('c open')]);
  } finally {
    right.socket.close();
    other.socket.close();
  }
});

test('a function that never answers is answered for, when its time is over', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const functions = new PolicyFunctions();
  functions.set(SUBJECT, () => new Promise(() => {}));
  const answer = functions.answer(SUBJECT, FLOW);
  t.mock.timers.tick(DECISION_MS);
  assert.deepEqual(await answer, { failure: `no answer in ${DECISION_MS} ms` });
});

test('a question for a function that was taken away is a failure, and one machine’s is not another’s', async () => {
  const functions = new PolicyFunctions();
  functions.set(SUBJECT, () => 'allow');
  assert.deepEqual(await functions.answer({ kind: 'link', name: 'c' }, FLOW), {
    failure: 'it is not there any more',
  });
  assert.deepEqual(await functions.answer(SUBJECT, FLOW), { answer: 'allow' });
  functions.set(SUBJECT, undefined);
  assert.deepEqual(await functions.answer(SUBJECT, FLOW), { failure: 'it is not there any more' });
});
