import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { buffer } from 'node:stream/consumers';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { type Answer, decode, encode, type Packet, type Question } from 'dns-packet';
import fc from 'fast-check';
import {
  AnswerCache,
  DnsServer,
  type DnsServerOptions,
  type DnsSource,
  ForwardingUpstream,
  HostResolvers,
  NameTable,
  parseResolvConf,
  type ResolvedName,
  type Resolver,
  serveDnsSockets,
} from '../src/dns/index.ts';
import { type TestUpstream, type Told, testUpstream } from './support/dns-upstream.ts';

/** So that a failure can be repeated, and every run is the same. */
const SEED = 20_261_122;

/** A resolver of these tests that says something says it at once: no question is asked twice because we were slow. */
const PATIENT = { attemptMs: [600_000], forwardMs: 600_000 };
const SOURCE: DnsSource = { vm: 'vm1', network: 'front', address: '10.1.0.2' };
const a = (name: string, data: string, ttl = 60): Answer => ({ type: 'A', name, ttl, data });

function query(
  name: string,
  type: string,
  fields: Partial<Packet> & { edns?: number; dnssec?: boolean } = {},
): Buffer {
  const { edns, dnssec = false, ...packet } = fields;
  const opt: Answer = {
    type: 'OPT',
    name: '.',
    udpPayloadSize: edns ?? 0,
    extendedRcode: 0,
    ednsVersion: 0,
    flags: dnssec ? 0x8000 : 0,
    flag_do: dnssec,
    options: [],
  };
  return encode({
    type: 'query',
    id: 0x1234,
    flags: 0x0100,
    questions: [{ name, type } as Question],
    additionals: edns === undefined ? [] : [opt],
    ...packet,
  });
}

interface Decoded {
  readonly id: number;
  readonly rcode: string;
  readonly flag_aa: boolean;
  readonly flag_tc: boolean;
  readonly flag_ra: boolean;
  readonly answers: (Answer & { data?: unknown; ttl?: number })[];
  readonly authorities: Answer[];
  readonly additionals: Answer[];
  readonly questions: Question[];
}

async function ask(
  server: DnsServer,
  message: Uint8Array,
  transport: 'udp' | 'tcp' = 'udp',
  source = SOURCE,
) {
  const reply = await server.handle(message, source, transport);
  assert.ok(reply, 'an answer');
  return { ...(decode(Buffer.from(reply)) as unknown as Decoded), bytes: reply.length };
}

const addressesOf = (answers: readonly Answer[]): unknown[] =>
  answers.map((answer) => ('data' in answer ? answer.data : undefined));

function names(): NameTable {
  const table = new NameTable();
  table.addNetwork('front', {
    subnet: '10.1.0.0/24',
    subnet6: 'fd00::/64',
    gateway: ['10.1.0.1', 'fd00::1'],
  });
  table.addNetwork('back', { subnet: '10.2.0.0/24', gateway: ['10.2.0.1'] });
  table.add({ owner: 'c1', network: 'front', addresses: ['10.1.0.2'], names: ['web', 'c1c1c1'] });
  table.add({ owner: 'c1', network: 'back', addresses: ['10.2.0.2'], names: ['web'] });
  table.add({ owner: 'c2', network: 'front', addresses: ['10.1.0.3'], names: ['App', 'pool'] });
  table.add({ owner: 'c3', network: 'back', addresses: ['10.2.0.3'], names: ['db', 'pool'] });
  table.add({ owner: 'c4', network: 'front', addresses: ['10.1.0.4', 'fd00::4'], names: ['six', 'pool'] });
  return table;
}

async function withUpstream(
  tell: (
    name: string,
    type: string,
    transport: 'udp' | 'tcp',
  ) => Told | undefined | Promise<Told | undefined>,
  body: (server: DnsServer, upstream: TestUpstream) => Promise<void>,
  options: Partial<DnsServerOptions> = {},
): Promise<void> {
  await using upstream = await testUpstream(tell);
  const source = { resolvers: async () => [upstream.resolver] };
  await body(new DnsServer({ upstream: new ForwardingUpstream(source, PATIENT), ...options }), upstream);
}

test('containers by name, alias and network, as seen from where one asks', async () => {
  const nobody = { ask: () => Promise.reject(new Error('asked outside')) };
  const server = new DnsServer({ upstream: nobody, names: names() });
  const from = (network: string, address: string): DnsSource => ({ vm: 'v', network, address });
  const front = from('front', '10.1.0.3');
  const both = from('front', '10.1.0.2');
  for (const [source, name, expected] of [
    [front, 'web', ['10.1.0.2']],
    [front, 'WEB', ['10.1.0.2']],
    [front, 'c1c1c1', ['10.1.0.2']],
    [front, 'app', ['10.1.0.3']],
    [front, 'web.front', ['10.1.0.2']],
    [front, 'web.arcbox.local', ['10.1.0.2']],
    [front, 'web.front.arcbox.local', ['10.1.0.2']],
    [both, 'db', ['10.2.0.3']],
    [both, 'db.back', ['10.2.0.3']],
    [from('back', '10.2.0.3'), 'web', ['10.2.0.2']],
    [front, 'host.docker.internal', ['10.1.0.1']],
    [front, 'gateway', ['10.1.0.1']],
    [from('back', '10.2.0.3'), 'gateway', ['10.2.0.1']],
    [front, 'localhost', ['127.0.0.1']],
    [front, 'x.localhost', ['127.0.0.1']],
  ] as const) {
    const reply = await ask(server, query(name, 'A'), 'udp', source);
    assert.deepEqual(addressesOf(reply.answers), expected, name);
    assert.equal(reply.flag_aa, true);
    assert.equal(reply.questions[0]?.name, name);
  }
  for (const name of ['db.arcbox.local', 'nobody.arcbox.local', 'arcbox.local', 'x.invalid', 'a.onion']) {
    const reply = await ask(server, query(name, 'A'), 'udp', front);
    assert.equal(reply.rcode, 'NXDOMAIN', name);
    assert.equal(reply.authorities[0]?.type, 'SOA');
  }
  // What is not visible is asked of the world, which here is a failure.
  assert.equal((await ask(server, query('db', 'A'), 'udp', front)).rcode, 'SERVFAIL');
  assert.equal((await ask(server, query('db', 'A'), 'udp', { vm: 'v' })).rcode, 'SERVFAIL');
});

test('the other family: a name that exists has no record; addresses backwards', async () => {
  const nobody = { ask: () => Promise.reject(new Error('asked outside')) };
  const server = new DnsServer({ upstream: nobody, names: names() });
  const none = await ask(server, query('web', 'AAAA'));
  assert.deepEqual([none.rcode, none.answers.length, none.authorities[0]?.type], ['NOERROR', 0, 'SOA']);
  assert.deepEqual(addressesOf((await ask(server, query('six', 'AAAA'))).answers), ['fd00::4']);
  assert.deepEqual(addressesOf((await ask(server, query('gateway', 'AAAA'))).answers), ['fd00::1']);
  assert.deepEqual((await ask(server, query('host.docker.internal', 'AAAA'))).answers, []);
  const backwards = (nibbles: string) => query(`${nibbles}${'0.'.repeat(27)}d.f.ip6.arpa`, 'PTR');
  assert.deepEqual(addressesOf((await ask(server, backwards('4.0.0.'))).answers), ['six.front']);
  assert.deepEqual(addressesOf((await ask(server, backwards('1.0.0.'))).answers), ['gateway.arcbox.local']);
  assert.equal((await ask(server, backwards('9.0.0.'))).rcode, 'NXDOMAIN');
  assert.equal((await ask(server, query('web', 'MX'))).rcode, 'NOERROR');
  assert.deepEqual(addressesOf((await ask(server, query('2.0.1.10.in-addr.arpa', 'PTR'))).answers), [
    'web.front',
  ]);
  assert.equal((await ask(server, query('99.0.1.10.in-addr.arpa', 'PTR'))).rcode, 'NXDOMAIN');
  assert.equal(
    (await ask(server, query('3.0.2.10.in-addr.arpa', 'PTR'))).answers.length,
    1,
    'c1 is on back, too',
  );
});

test('containers of one name take turns; names go with their container and network', async () => {
  const nobody = { ask: () => Promise.reject(new Error('asked outside')) };
  const table = names();
  const server = new DnsServer({ upstream: nobody, names: table });
  const firsts = new Set<unknown>();
  for (let i = 0; i < 4; i++) {
    const { answers } = await ask(server, query('pool', 'A'));
    assert.equal(answers.length, 2);
    firsts.add(addressesOf(answers)[0]);
  }
  assert.deepEqual([...firsts].toSorted(), ['10.1.0.3', '10.1.0.4']);
  assert.ok(table.remove('c4', 'front'));
  assert.ok(!table.remove('c4', 'front'));
  assert.deepEqual(addressesOf((await ask(server, query('pool', 'A'))).answers), ['10.1.0.3']);
  table.add({ owner: 'c2', network: 'front', addresses: ['10.1.0.9'], names: ['app2'] });
  assert.deepEqual(addressesOf((await ask(server, query('app2', 'A'))).answers), ['10.1.0.9']);
  assert.equal((await ask(server, query('app.arcbox.local', 'A'))).rcode, 'NXDOMAIN');
  table.add({ owner: 'c7', network: 'front', addresses: ['10.1.0.9'], names: ['heir'] });
  assert.ok(table.remove('c2', 'front'));
  assert.equal(table.endpointAt('front', '10.1.0.9')?.owner, 'c7', 'who has its address now keeps it');
  table.removeNetwork('front');
  assert.equal((await ask(server, query('web', 'A'))).rcode, 'SERVFAIL');
  assert.throws(
    () => table.add({ owner: 'c9', network: 'back', addresses: [], names: ['no name'] }),
    /no name/,
  );
});

test('forwarding: other records, ids and ports at random, the answer as it was', async () => {
  const told: Told = {
    answers: [
      { type: 'CNAME', name: 'www.example.test', ttl: 30, data: 'example.test' },
      a('example.test', '192.0.2.7', 20),
    ],
  };
  const seen: ResolvedName[] = [];
  await withUpstream(
    (_name, type) =>
      type === 'A' ? told : { answers: [{ type: 'TXT', name: 'x.test', ttl: 9, data: 'hello' }] },
    async (server, upstream) => {
      const reply = await ask(server, query('WWW.example.test', 'A', { edns: 1400 }));
      assert.equal(reply.id, 0x1234);
      assert.equal(reply.flag_ra, true);
      assert.equal(reply.flag_aa, false, 'we are nobody there');
      assert.deepEqual(addressesOf(reply.answers), ['example.test', '192.0.2.7']);
      assert.equal(reply.questions[0]?.name, 'WWW.example.test');
      assert.equal(reply.additionals.length, 1);
      assert.deepEqual(seen, [
        { source: SOURCE, name: 'www.example.test', addresses: ['192.0.2.7'], ttlS: 20, local: false },
      ]);
      for (let i = 0; i < 10; i++) await ask(server, query(`n${i}.test`, 'TXT'));
      assert.ok(upstream.ids.size > 8 && upstream.ports.size > 8);
      assert.equal(
        (await ask(server, query('one.test', 'TXT'))).additionals.length,
        0,
        'no EDNS for who has none',
      );
    },
    { onAnswer: (resolved) => seen.push(resolved) },
  );
});

test('the cache: TTLs run down, one question at a time, negative answers as their zone says', async () => {
  let nowMs = 1_000_000;
  const soa: Answer = {
    type: 'SOA',
    name: 'test',
    ttl: 100,
    data: { mname: 'a.test', rname: 'b.test', serial: 1, refresh: 1, retry: 1, expire: 1, minimum: 7 },
  };
  await withUpstream(
    (name) => {
      if (name.startsWith('no-soa')) return { rcode: 3 };
      if (name.startsWith('no')) return { rcode: 3, authorities: [soa] };
      if (name.startsWith('empty')) return { authorities: [soa] };
      if (name.startsWith('zero')) return { answers: [a(name, '192.0.2.1', 0)] };
      return { answers: [a(name, '192.0.2.1', 60), a(name, '192.0.2.2', 50)] };
    },
    async (server, upstream) => {
      const many = await Promise.all(Array.from({ length: 20 }, () => ask(server, query('one.test', 'A'))));
      assert.ok(many.every((reply) => reply.answers.length === 2));
      assert.deepEqual(upstream.asked, ['udp one.test A']);
      nowMs += 20_500;
      const later = await ask(server, query('ONE.test', 'A'));
      assert.deepEqual(
        later.answers.map((answer) => answer.ttl),
        [40, 30],
      );
      assert.equal(upstream.asked.length, 1);
      nowMs += 30_000;
      await ask(server, query('one.test', 'A'));
      assert.equal(upstream.asked.length, 2);
      upstream.asked.length = 0;
      for (const [name, afterMs, times] of [
        ['no.test', 6900, 1],
        ['no.test', 200, 2],
        ['empty.test', 6900, 1],
        ['empty.test', 200, 2],
        ['no-soa.test', 0, 2],
        ['zero.test', 0, 2],
      ] as const) {
        await ask(server, query(name, 'A'));
        nowMs += afterMs;
        const reply = await ask(server, query(name, 'A'));
        const count = upstream.asked.filter((line) => line === `udp ${name} A`).length;
        assert.equal(count, times, `${name} after ${afterMs} ms`);
        assert.equal(reply.rcode, name.startsWith('no') ? 'NXDOMAIN' : 'NOERROR');
      }
    },
    { nowMs: () => nowMs },
  );
});

test('the cache is bounded in entries and bytes', () => {
  const cache = new AnswerCache({ entries: 10, bytes: 2000 });
  const message = (name: string, records: number): Buffer =>
    encode({
      type: 'response',
      questions: [{ name, type: 'A' }],
      answers: Array.from({ length: records }, (_, i) => a(name, `192.0.2.${i}`)),
    });
  for (let i = 0; i < 30; i++) cache.put(`k${i}`, message(`k${i}.test`, 1), 0);
  assert.equal(cache.size, 10);
  assert.equal(cache.get('k0', 0), undefined);
  assert.ok(cache.get('k20', 0));
  cache.put('big', message('big.test', 40), 0);
  assert.ok(cache.bytes <= 2000);
  assert.ok(cache.get('big', 0));
  cache.put('k20', message('k20.test', 200), 0);
  assert.equal(cache.get('k20', 0), undefined, 'larger than everything');
  cache.clear();
  assert.equal(cache.bytes, 0);
});

test('large answers: truncated for UDP as the client takes them, whole over TCP', async () => {
  const answers = Array.from({ length: 100 }, (_, i) => a('big.test', `192.0.2.${i}`));
  await withUpstream(
    () => ({ answers, truncated: true }),
    async (server, upstream) => {
      const plain = await ask(server, query('big.test', 'A'));
      assert.deepEqual([plain.flag_tc, plain.answers.length], [true, 0]);
      assert.ok(plain.bytes <= 512);
      assert.deepEqual(upstream.asked, ['udp big.test A', 'tcp big.test A']);
      const edns = await ask(server, query('big.test', 'A', { edns: 4096 }));
      assert.deepEqual([edns.flag_tc, edns.answers.length], [false, 100]);
      const tcp = await ask(server, query('big.test', 'A'), 'tcp');
      assert.equal(tcp.answers.length, 100);
      assert.equal(server.counters.truncated, 1);
    },
  );
});

test('a resolver that fails, refuses or is not there: the next one is asked', async () => {
  await using broken = await testUpstream(() => ({ rcode: 2 }));
  await using liar = await testUpstream((name) => ({ raw: (sent) => [wrongQuestion(sent, name)] }));
  await using good = await testUpstream((name) => ({ answers: [a(name, '192.0.2.9')] }));
  const gone: Resolver = { address: '127.0.0.1', port: 1 };
  const serverOf = (...list: Resolver[]): DnsServer =>
    new DnsServer({ upstream: new ForwardingUpstream({ resolvers: async () => list }, PATIENT) });
  for (const first of [gone, broken.resolver, liar.resolver]) {
    // Without waiting for a time-out, which would be that of the test.
    const reply = await ask(serverOf(first, good.resolver), query('x.test', 'A'));
    assert.deepEqual(addressesOf(reply.answers), ['192.0.2.9']);
  }
  assert.equal((await ask(serverOf(broken.resolver), query('x.test', 'A'))).rcode, 'SERVFAIL');
  assert.equal((await ask(serverOf(gone), query('x.test', 'A'))).rcode, 'SERVFAIL');
});

function wrongQuestion(sent: Buffer, name: string): Buffer {
  const { id = 0 } = decode(sent);
  const questions: Question[] = [{ name: `not-${name}`, type: 'A' }];
  return encode({ type: 'response', id, flags: 0x8180, questions, answers: [a(`not-${name}`, '6.6.6.6')] });
}

test('an answer with another id is not taken; the right one after it is', async () => {
  const answer = (name: string, id: number, address: string): Buffer =>
    encode({
      type: 'response',
      id,
      flags: 0x8180,
      questions: [{ name, type: 'A' }],
      answers: [a(name, address)],
    });
  await withUpstream(
    (name) => ({
      raw: (sent) => {
        const id = sent.readUInt16BE(0);
        return [answer(name, id ^ 1, '6.6.6.6'), answer(name, id, '192.0.2.9')];
      },
    }),
    async (server) => {
      assert.deepEqual(addressesOf((await ask(server, query('x.test', 'A'))).answers), ['192.0.2.9']);
    },
  );
});

test('a resolver from before EDNS is asked without', async () => {
  await withUpstream(
    (name) => ({
      raw: (sent) => {
        const { id = 0, additionals = [] } = decode(sent);
        const questions: Question[] = [{ name, type: 'A' }];
        if (additionals.length > 0) return [encode({ type: 'response', id, flags: 0x8181, questions })];
        return [encode({ type: 'response', id, flags: 0x8180, questions, answers: [a(name, '192.0.2.3')] })];
      },
    }),
    async (server) => {
      assert.deepEqual(addressesOf((await ask(server, query('x.test', 'A'))).answers), ['192.0.2.3']);
    },
  );
});

test('what is not a question of ours is refused in the right words', async () => {
  await withUpstream(
    (name) => ({ answers: [a(name, '192.0.2.3')] }),
    async (server, upstream) => {
      const opcode = query('x.test', 'A');
      opcode.writeUInt16BE(0x2800, 2);
      assert.equal((await ask(server, opcode)).rcode, 'NOTIMP');
      const two = {
        questions: [{ name: 'a.test', type: 'A' } as const, { name: 'b.test', type: 'A' } as const],
      };
      assert.equal((await ask(server, query('x', 'A', two))).rcode, 'FORMERR');
      assert.equal((await ask(server, query('x.test', 'AXFR'))).rcode, 'REFUSED');
      const version = query('x.test', 'A', { edns: 1232 });
      version[version.length - 5] = 1;
      const bad = await ask(server, version);
      assert.deepEqual([bad.rcode, bad.additionals[0]?.type], ['NOERROR', 'OPT']);
      assert.equal((bad.additionals[0] as { extendedRcode?: number }).extendedRcode, 1);
      const chaos = query('version.bind', 'TXT', {
        questions: [{ name: 'version.bind', type: 'TXT', class: 'CH' }],
      });
      assert.equal((await ask(server, chaos)).rcode, 'REFUSED');
      const answer = query('x.test', 'A');
      answer.writeUInt16BE(0x8000, 2);
      assert.equal(await server.handle(answer, SOURCE, 'udp'), undefined);
      assert.equal(await server.handle(answer.subarray(0, 11), SOURCE, 'udp'), undefined);
      assert.deepEqual(upstream.asked, []);
      assert.equal((await ask(server, query('blocked.test', 'A'))).rcode, 'REFUSED');
      assert.deepEqual(upstream.asked, []);
      assert.equal(server.counters.refused, 1);
    },
    { mayAsk: (_source, name) => name !== 'blocked.test' },
  );
});

test('arbitrary bytes: an answer or none, never an exception; from a resolver, too', async () => {
  const seed = query('www.example.test', 'A', { edns: 1232 });
  const mutated = fc
    .tuple(fc.array(fc.tuple(fc.nat(seed.length - 1), fc.nat(255)), { maxLength: 6 }), fc.nat(seed.length))
    .map(([flips, length]) => {
      const bytes = Buffer.from(seed);
      for (const [at, value] of flips) bytes[at] = value;
      return bytes.subarray(0, length);
    });
  const server = new DnsServer({ upstream: { ask: async () => Buffer.alloc(12) }, onAnswer: () => {} });
  await fc.assert(
    fc.asyncProperty(fc.oneof(mutated, fc.uint8Array({ maxLength: 600 })), async (bytes) => {
      const reply = await server.handle(bytes, SOURCE, 'udp');
      if (reply !== undefined) {
        assert.ok(reply.length >= 12 && reply.length <= 4096);
        assert.ok(((reply[2] ?? 0) & 0x80) !== 0);
      }
    }),
    { seed: SEED, numRuns: 2000 },
  );
  // From a resolver: the id and the question are right (otherwise the answer would be waited for), the rest is anything.
  const answer = encode({
    type: 'response',
    questions: [{ name: 'x', type: 'A' }],
    answers: [a('y.test', '192.0.2.1'), { type: 'CNAME', name: 'x.test', data: 'y.test', ttl: 5 }],
  });
  const records = answer.subarray(19);
  let flips: [number, number][] = [];
  let run = 0;
  await withUpstream(
    () => ({
      raw: (sent) => {
        const question = sent.subarray(12, sent.length - 11);
        const message = Buffer.concat([sent.subarray(0, 2), answer.subarray(2, 12), question, records]);
        for (const [at, value] of flips) message[at < 10 ? at + 2 : at - 10 + 12 + question.length] = value;
        return [message];
      },
    }),
    async (resolving) => {
      const damage = fc.array(fc.tuple(fc.nat(9 + records.length), fc.nat(255)), {
        minLength: 1,
        maxLength: 4,
      });
      await fc.assert(
        fc.asyncProperty(damage, async (list) => {
          flips = list.filter(([at]) => at >= 2 || at === 1);
          // What a record says is passed on as it came; it is the client's to judge.
          const reply = await resolving.handle(query(`n${run++}.test`, 'A'), SOURCE, 'udp');
          assert.equal(reply?.[1], 0x34);
        }),
        { seed: SEED, numRuns: 300 },
      );
      assert.ok(resolving.counters.forwarded >= 300);
    },
    { onAnswer: () => {} },
  );
});

test('who is told of answers and fails at it: the client hears a failure, and never an exception', async () => {
  const told: string[] = [];
  const server = new DnsServer({
    upstream: { ask: () => Promise.reject(new Error('nobody')) },
    mayAsk() {
      throw new Error('the rules are broken');
    },
    onFailure: (name, reason) => told.push(`${name}: ${reason}`),
  });
  const reply = await server.handle(query('www.example.test', 'A'), SOURCE, 'udp');
  assert.equal((reply?.[3] ?? 0) & 0x0f, 2, 'SERVFAIL');
  assert.deepEqual(told, ['www.example.test: the rules are broken']);
  assert.equal(server.counters.failed, 1);
});

test('resolv.conf: what the C library reads, and again when it has changed', async () => {
  assert.deepEqual(
    parseResolvConf('nameserver 1.1.1.1\n# nameserver 2.2.2.2\nnameserver fe80::1%lo\nsearch x\n'),
    [
      { address: '1.1.1.1', port: 53 },
      { address: 'fe80::1%lo', port: 53 },
    ],
  );
  assert.deepEqual(parseResolvConf('nameserver x\n'), [{ address: '127.0.0.1', port: 53 }]);
  assert.equal(parseResolvConf('nameserver 1.1.1.1\n'.repeat(9)).length, 3);
  const directory = await mkdtemp(path.join(os.tmpdir(), 'arcbox-dns-'));
  try {
    const file = path.join(directory, 'resolv.conf');
    let nowMs = 0;
    const resolvers = new HostResolvers(file, () => nowMs);
    assert.deepEqual(await resolvers.resolvers(), [{ address: '127.0.0.1', port: 53 }]);
    await writeFile(file, 'nameserver 192.0.2.1\n');
    nowMs += 1000;
    assert.deepEqual(await resolvers.resolvers(), [{ address: '192.0.2.1', port: 53 }]);
    await writeFile(`${file}.new`, 'nameserver 192.0.2.2\n');
    await rename(`${file}.new`, file);
    assert.deepEqual(
      await resolvers.resolvers(),
      [{ address: '192.0.2.1', port: 53 }],
      'looked a moment ago',
    );
    nowMs += 1000;
    assert.deepEqual(await resolvers.resolvers(), [{ address: '192.0.2.2', port: 53 }]);
    await rm(file);
    nowMs += 1000;
    assert.deepEqual(await resolvers.resolvers(), [{ address: '192.0.2.2', port: 53 }]);
  } finally {
    await rm(directory, { recursive: true });
  }
});

test('on sockets: UDP and TCP, several questions on one connection, and nslookup', async () => {
  const nobody = { ask: () => Promise.reject(new Error('asked outside')) };
  const server = new DnsServer({ upstream: nobody, names: names() });
  await using sockets = await serveDnsSockets({
    server,
    address: '127.0.0.1',
    port: 0,
    sourceOf: () => SOURCE,
    onError: (error) => {
      throw error;
    },
  });
  const socket = connect(sockets.port, '127.0.0.1');
  for (const name of ['web', 'app', 'six']) {
    const message = query(name, 'A');
    const length = Buffer.alloc(2);
    length.writeUInt16BE(message.length);
    socket.write(Buffer.concat([length, message]));
  }
  socket.end();
  let received = await buffer(socket);
  const found: unknown[] = [];
  while (received.length > 0) {
    const length = received.readUInt16BE(0);
    found.push(...addressesOf((decode(received.subarray(2, 2 + length)) as unknown as Decoded).answers));
    received = received.subarray(2 + length);
  }
  assert.deepEqual(found, ['10.1.0.2', '10.1.0.3', '10.1.0.4']);
  const { stdout } = await promisify(execFile)('busybox', ['nslookup', 'web', `127.0.0.1:${sockets.port}`]);
  assert.match(stdout, /Address: 10\.1\.0\.2/);
});
