/** A network that leads nowhere, through the thread that carries it: its machines know each other, and nobody else hears of them. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { decode, encode } from 'dns-packet';
import { putU32, u32 } from '../src/wire/bytes.ts';
import { NetworkWorker } from '../src/worker/index.ts';
import { parse, udp } from './support/frames.ts';

const REFUSED = 5;

test('no name of the world is asked for from an internal network', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'arcbox-internal-'));
  const card = createServer();
  try {
    const path = join(directory, 'nic');
    card.listen(path);
    await once(card, 'listening');
    await using worker = await NetworkWorker.start();
    const gateway = '10.7.0.1';
    const network = { name: 'inner', mtu: 1500, subnet: '10.7.0.0/24', gateway, internal: true, asks: false };
    await worker.addNetwork(network);
    const accepted = once(card, 'connection') as Promise<[Socket]>;
    await worker.plug('vm', path);
    await worker.attach('vm', 0, 'inner');
    const [cable] = await accepted;
    await worker.addEndpoint({ owner: 'c', network: 'inner', addresses: ['10.7.0.2'], names: ['neighbour'] });
    const ask = async (name: string): Promise<{ code: number; answers: readonly unknown[] }> => {
      const question = encode({ type: 'query', id: 7, flags: 0x100, questions: [{ type: 'A', name }] });
      const toMac = Uint8Array.of(2, 0xac, 10, 7, 0, 1);
      const frame = udp(5000, 53, question, { from: '10.7.0.2', to: gateway, toMac });
      const prefix = new Uint8Array(4);
      putU32(prefix, 0, frame.length);
      cable.write(Buffer.concat([prefix, frame]));
      let bytes = Buffer.alloc(0);
      while (bytes.length < 4 || bytes.length < 4 + u32(bytes, 0)) {
        const [piece] = (await once(cable, 'data')) as [Buffer];
        bytes = Buffer.concat([bytes, piece]);
      }
      const answer = decode(Buffer.from(parse(bytes.subarray(4, 4 + u32(bytes, 0))).data));
      return { code: (answer.flags ?? 0) & 15, answers: answer.answers ?? [] };
    };
    assert.deepEqual(await ask('secret.attacker.test'), { code: REFUSED, answers: [] });
    const known = await ask('neighbour');
    assert.equal(known.code, 0);
    assert.equal(known.answers.length, 1);
    cable.destroy();
  } finally {
    card.close();
    rmSync(directory, { recursive: true });
  }
});
