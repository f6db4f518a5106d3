import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  type DhcpReply,
  DhcpServer,
  type DhcpServerOptions,
  type DhcpState,
  decodeMessage,
  MessageType,
  OptionCode,
} from '../src/dhcp/index.ts';
import { AddressPool, NetError } from '../src/index.ts';
import { formatIpv4, parseIpv4 } from '../src/wire/index.ts';

/** So that a failure can be repeated, and every run is the same. */
const SEED = 20_261_122;

interface ClientFields {
  readonly mac?: number;
  readonly type: number;
  readonly broadcast?: boolean;
  readonly clientAddress?: string;
  readonly relay?: string;
  readonly options?: readonly (readonly [number, readonly number[]])[];
}

function request(fields: ClientFields): Uint8Array {
  const packet = Buffer.alloc(576);
  packet.set([1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef]);
  if (fields.broadcast === true) packet.writeUInt16BE(0x8000, 10);
  if (fields.clientAddress !== undefined) packet.writeUInt32BE(parseIpv4(fields.clientAddress), 12);
  if (fields.relay !== undefined) packet.writeUInt32BE(parseIpv4(fields.relay), 24);
  packet.set([2, 0, 0, 0, 0, fields.mac ?? 1], 28);
  packet.writeUInt32BE(0x63825363, 236);
  let at = 240;
  for (const [code, value] of [[53, [fields.type]] as const, ...(fields.options ?? [])]) {
    packet.set([code, value.length, ...value], at);
    at += 2 + value.length;
  }
  packet[at] = 255;
  return packet;
}

const ip = (text: string): number[] => text.split('.').map(Number);
const MINE = [54, ip('10.5.0.1')] as const;

function make(options: Partial<DhcpServerOptions> = {}): { server: DhcpServer; pool: AddressPool } {
  const pool = options.pool ?? new AddressPool({ subnet: '10.5.0.0/29' });
  return { server: new DhcpServer({ pool, leaseS: 600, ...options }), pool };
}

function parsed(reply: DhcpReply | undefined) {
  assert.ok(reply);
  const message = decodeMessage(reply.payload);
  assert.ok(message);
  const type = message.options.get(OptionCode.messageType)?.[0];
  return { ...reply, message, type, address: reply.address, yours: formatIpv4(message.yourAddress) };
}

function obtain(server: DhcpServer, mac: number, nowMs: number): string | undefined {
  const offer = server.handle(request({ mac, type: MessageType.discover }), nowMs);
  if (offer === undefined) return undefined;
  const { yours } = parsed(offer);
  const options = [[50, ip(yours)], MINE] as const;
  const ack = parsed(server.handle(request({ mac, type: MessageType.request, options }), nowMs));
  assert.equal(ack.type, MessageType.ack);
  assert.equal(ack.yours, yours);
  return yours;
}

test('discover, offer, request, ack', () => {
  const { server, pool } = make({ mtu: 9000, domainSearch: ['a.test'] });
  const offer = parsed(server.handle(request({ type: MessageType.discover }), 0));
  assert.equal(offer.type, MessageType.offer);
  assert.equal(offer.yours, '10.5.0.2');
  assert.equal(offer.address, '10.5.0.2');
  assert.equal(offer.port, 68);
  assert.deepEqual([...(offer.hardwareAddress ?? [])], [2, 0, 0, 0, 0, 1]);
  assert.equal(offer.message.transactionId, 0xdeadbeef);
  assert.ok(offer.payload.length >= 300);
  const ack = parsed(
    server.handle(request({ type: MessageType.request, options: [[50, ip('10.5.0.2')], MINE] }), 1),
  );
  assert.equal(ack.type, MessageType.ack);
  const value = (code: number) => [...(ack.message.options.get(code) ?? [])];
  assert.deepEqual(value(OptionCode.serverId), ip('10.5.0.1'));
  assert.deepEqual(value(OptionCode.subnetMask), ip('255.255.255.248'));
  assert.deepEqual(value(OptionCode.broadcast), ip('10.5.0.7'));
  assert.deepEqual(value(OptionCode.router), ip('10.5.0.1'));
  assert.deepEqual(value(OptionCode.dnsServers), ip('10.5.0.1'));
  assert.deepEqual(value(OptionCode.leaseTime), [0, 0, 2, 88]);
  assert.deepEqual(value(OptionCode.renewalTime), [0, 0, 1, 44]);
  assert.deepEqual(value(OptionCode.rebindingTime), [0, 0, 2, 13]);
  assert.deepEqual(value(OptionCode.mtu), [35, 40]);
  assert.deepEqual(value(OptionCode.domainSearch), [1, 97, 4, 116, 101, 115, 116, 0]);
  assert.equal(pool.ownerOf('10.5.0.2'), 'dhcp/020000000001');
});

test('only what the client lists is sent, its identifier comes back, rapid commit saves a round', () => {
  const { server } = make({ mtu: 1400 });
  const options = [
    [55, [1, 3]],
    [61, [1, 9, 9, 9]],
    [80, []],
  ] as const;
  const ack = parsed(server.handle(request({ type: MessageType.discover, options }), 0));
  assert.equal(ack.type, MessageType.ack);
  assert.deepEqual(
    [...ack.message.options.keys()].toSorted((a, b) => a - b),
    [1, 3, 51, 53, 54, 58, 59, 61, 80],
  );
  assert.deepEqual([...(ack.message.options.get(61) ?? [])], [1, 9, 9, 9]);
});

test('where a reply goes: relay, broadcast flag, renewing client', () => {
  const { server } = make();
  const relayed = parsed(server.handle(request({ type: MessageType.discover, relay: '10.9.9.9' }), 0));
  assert.deepEqual([relayed.address, relayed.port], ['10.9.9.9', 67]);
  const flagged = parsed(server.handle(request({ type: MessageType.discover, broadcast: true }), 0));
  assert.deepEqual([flagged.address, flagged.hardwareAddress], ['255.255.255.255', undefined]);
  obtain(server, 1, 0);
  const renewed = parsed(
    server.handle(request({ type: MessageType.request, clientAddress: '10.5.0.2' }), 300_000),
  );
  assert.equal(renewed.type, MessageType.ack);
  assert.equal(renewed.address, '10.5.0.2');
  assert.equal([...server.bindings][0]?.expiresAtMs, 900_000);
});

test('a wrong address is refused at once, and refusing costs no address', () => {
  const { server, pool } = make();
  obtain(server, 1, 0);
  for (const address of ['10.5.0.2', '10.5.0.1', '192.168.1.1', '255.255.255.255', '0.0.0.1']) {
    const nak = parsed(
      server.handle(request({ mac: 2, type: MessageType.request, options: [[50, ip(address)]] }), 0),
    );
    assert.equal(nak.type, MessageType.nak, address);
    assert.equal(nak.address, '255.255.255.255');
  }
  assert.equal(pool.size, 1);
  // One that is free is given, remembered or not.
  const ack = parsed(
    server.handle(request({ mac: 2, type: MessageType.request, options: [[50, ip('10.5.0.5')]] }), 0),
  );
  assert.equal(ack.type, MessageType.ack);
});

test('a client that took another offer frees ours; one that is for another server is not answered', () => {
  const { server, pool } = make();
  server.handle(request({ type: MessageType.discover }), 0);
  assert.equal(pool.size, 1);
  const options = [
    [50, ip('10.5.0.99')],
    [54, ip('10.5.0.200')],
  ] as const;
  assert.equal(server.handle(request({ type: MessageType.request, options }), 0), undefined);
  assert.equal(pool.size, 0);
});

test('exhaustion, expired offers, and the return of an old client', () => {
  const { server } = make();
  const first = Array.from({ length: 5 }, (_, i) => obtain(server, i + 1, i));
  assert.equal(new Set(first).size, 5);
  assert.equal(obtain(server, 9, 10), undefined);
  assert.equal(server.counters.exhausted, 1);
  // All leases have expired. Whoever comes back has its address; a new client gets the one that expired first.
  assert.equal(obtain(server, 3, 700_000), first[2]);
  assert.equal(obtain(server, 9, 700_001), first[0]);
  assert.equal(obtain(server, 1, 700_002), first[1]);
});

test('release and decline', () => {
  const { server, pool } = make();
  assert.equal(obtain(server, 1, 0), '10.5.0.2');
  server.handle(request({ mac: 2, type: MessageType.release, clientAddress: '10.5.0.2' }), 0);
  assert.equal(pool.size, 1, 'nobody gives back the address of another');
  server.handle(request({ type: MessageType.release, clientAddress: '10.5.0.2' }), 0);
  assert.equal(pool.size, 0);
  const address = obtain(server, 1, 0) ?? '';
  server.handle(request({ type: MessageType.decline, options: [[50, ip(address)], MINE] }), 0);
  assert.notEqual(obtain(server, 1, 0), address);
  assert.equal(pool.isFree(address), false);
  obtain(server, 2, 700_000);
  assert.equal(pool.isFree(address), true);
});

test('inform gets options and no lease; a reservation is kept by who made it', () => {
  const { server, pool } = make({
    reservation: (mac) =>
      mac === '02:00:00:00:00:07' ? { address: '10.5.0.6', hostName: 'seven' } : undefined,
  });
  pool.lease('container seven', '10.5.0.6');
  const informed = parsed(server.handle(request({ type: MessageType.inform, clientAddress: '10.5.0.4' }), 0));
  assert.equal(informed.message.options.has(OptionCode.leaseTime), false);
  assert.equal(informed.yours, '0.0.0.0');
  assert.equal(obtain(server, 7, 0), '10.5.0.6');
  const ack = parsed(
    server.handle(request({ mac: 7, type: MessageType.request, clientAddress: '10.5.0.6' }), 0),
  );
  assert.equal(Buffer.from(ack.message.options.get(OptionCode.hostName) ?? []).toString(), 'seven');
  assert.deepEqual([...pool.leases()], [['container seven', '10.5.0.6']]);
});

test('where somebody else gives addresses out, only those that have one are answered', () => {
  const { server, pool } = make({
    reservedOnly: true,
    reservation: (mac) => (mac === '02:00:00:00:00:07' ? { address: '10.5.0.6' } : undefined),
  });
  assert.equal(obtain(server, 7, 0), '10.5.0.6');
  assert.equal(obtain(server, 8, 0), undefined);
  const wish = request({ mac: 8, type: MessageType.request, options: [[50, ip('10.5.0.4')]] });
  assert.equal(server.handle(wish, 0), undefined);
  assert.equal(server.counters.ignored, 2);
  assert.equal(pool.size, 0);
});

test('bindings survive a restart; what nobody is bound to goes back', () => {
  const { server, pool } = make();
  const address = obtain(server, 1, 0);
  obtain(server, 2, 0);
  const state = JSON.parse(JSON.stringify(server.toState())) as DhcpState;
  const poolState = pool.toState();
  const kept = { version: 1, bindings: state.bindings.slice(0, 1) } as const;
  const again = make({ pool: AddressPool.restore(poolState) });
  again.server.restore(kept);
  assert.equal(again.pool.size, 1);
  assert.equal(obtain(again.server, 1, 5), address);
  assert.throws(() => again.server.restore({ version: 2 as 1, bindings: [] }), NetError);
});

test('options that go on in other fields, and in pieces', () => {
  const packet = Buffer.from(request({ type: MessageType.discover, options: [[52, [1]]] }));
  packet.set([12, 3, 97, 98, 99, 12, 2, 100, 101, 255], 108);
  const message = decodeMessage(packet);
  assert.equal(Buffer.from(message?.options.get(12) ?? []).toString(), 'abcde');
});

test('malformed packets are dropped and counted; nothing throws', () => {
  const { server } = make();
  const good = request({ type: MessageType.discover });
  const cut = [Buffer.alloc(0), good.subarray(0, 239), good.subarray(0, 241)];
  const wrongMagic = Buffer.from(good);
  wrongMagic[236] = 0;
  const tokenRing = Buffer.from(good);
  tokenRing[1] = 6;
  const beyond = Buffer.from(good);
  beyond.set([12, 255], 572);
  beyond.fill(0, 243, 572);
  for (const packet of [...cut, wrongMagic, tokenRing, beyond]) server.handle(packet, 0);
  assert.equal(server.counters.malformed, 6);
  server.handle(Buffer.from([2, ...good.subarray(1)]), 0);
  assert.equal(server.counters.ignored, 1);
  const { server: fuzzed, pool } = make({ pool: new AddressPool({ subnet: '10.5.0.0/24' }) });
  const option = fc.tuple(
    fc.integer({ min: 0, max: 255 }),
    fc.array(fc.integer({ min: 0, max: 255 }), { maxLength: 20 }),
  );
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 10 }),
      fc.integer({ min: 0, max: 255 }),
      fc.array(option, { maxLength: 6 }),
      fc.array(fc.tuple(fc.nat(575), fc.integer({ min: 0, max: 255 })), { maxLength: 8 }),
      fc.nat(576),
      (type, mac, options, flips, length) => {
        const packet = Buffer.from(request({ type, mac, options }));
        for (const [at, byte] of flips) packet[at] = byte;
        const reply = fuzzed.handle(packet.subarray(0, length + 200), Date.now());
        if (reply !== undefined) {
          assert.ok(reply.payload.length >= 300 && reply.payload.length <= 1472);
          assert.ok(decodeMessage(reply.payload));
        }
      },
    ),
    { seed: SEED, numRuns: 3000 },
  );
  assert.ok(fuzzed.counters.acks > 0);
  assert.ok(pool.size <= 253);
});

test('what DHCP cannot say is refused at the start', () => {
  for (const options of [
    { dnsServers: ['::1'] },
    { leaseS: 5 },
    { mtu: 60 },
    { domainSearch: ['a..b'] },
    { domainSearch: [`${'x'.repeat(64)}.test`] },
    { routes: [{ destination: '10.0.0.1/8', gateway: '10.5.0.1' }] },
  ] satisfies Partial<DhcpServerOptions>[]) {
    assert.throws(() => make(options), NetError, JSON.stringify(options));
  }
});
