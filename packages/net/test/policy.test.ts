import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NetError, requireIp } from '../src/index.ts';
import {
  ALLOW_ALL,
  DENY_ALL,
  type Denial,
  isPublic,
  type Policy,
  PolicyEngine,
  type PolicyFlow,
  type PolicyVerdict,
  PUBLIC_ONLY,
  type Rule,
  type RulePolicy,
} from '../src/policy/index.ts';

const flow = (destination: string, port = 443, fields: Partial<PolicyFlow> = {}): PolicyFlow => ({
  protocol: 'tcp',
  link: 'vm1',
  network: 'n',
  source: '10.1.0.2',
  sourcePort: 40_000,
  destination,
  destinationPort: port,
  ...fields,
});

interface Bench {
  readonly engine: PolicyEngine;
  readonly denials: Denial[];
  judge(destination: string, port?: number, fields?: Partial<PolicyFlow>): string;
  resolve(
    name: string,
    addresses: readonly string[],
    fields?: { ttlS?: number; local?: boolean; vm?: string },
  ): void;
  clock: { nowMs: number };
}

function bench(policy?: Policy, fallback: RulePolicy = ALLOW_ALL): Bench {
  const denials: Denial[] = [];
  const clock = { nowMs: 1_000_000 };
  const engine = new PolicyEngine({
    fallback,
    onDenied: (denial) => denials.push(denial),
    nowMs: () => clock.nowMs,
    decisionMs: 20,
  });
  if (policy !== undefined) engine.set('vm1', policy);
  return {
    engine,
    denials,
    clock,
    judge(destination, port, fields) {
      const verdict = engine.judge(flow(destination, port, fields));
      assert.ok(!(verdict instanceof Promise));
      return verdict.action;
    },
    resolve(name, addresses, { ttlS = 300, local = false, vm = 'vm1' } = {}) {
      engine.resolved({ source: { vm }, name, addresses, ttlS, local });
    },
  };
}

test('public-only: the world, and nothing of anybody’s own', () => {
  const { judge, denials } = bench(PUBLIC_ONLY);
  for (const address of ['1.1.1.1', '8.8.8.8', '172.32.0.1', '100.128.0.1', '2606:4700::1111', '192.0.1.1']) {
    assert.equal(judge(address), 'allow', address);
  }
  for (const address of [
    '0.0.0.0',
    '10.0.0.1',
    '100.64.0.1',
    '100.100.100.200',
    '127.0.0.1',
    '127.255.255.254',
    '168.63.129.16',
    '169.254.169.254',
    '172.16.0.1',
    '172.31.255.255',
    '192.168.1.1',
    '198.18.0.1',
    '224.0.0.251',
    '255.255.255.255',
    '::',
    '::1',
    '::ffff:10.0.0.1',
    '::ffff:169.254.169.254',
    '::10.0.0.1',
    '64:ff9b::a00:1',
    '64:ff9b:1::1',
    '2002:a00:1::1',
    '2001:0:53aa:64c::1',
    '2001:db8::1',
    'fc00::1',
    'fd00:ec2::254',
    'fe80::1',
    'fec0::1',
    'ff02::1',
    'not an address',
  ]) {
    assert.equal(judge(address), 'deny', address);
  }
  assert.equal(isPublic(requireIp('::ffff:1.1.1.1')), true);
  assert.equal(denials.length, 30);
  assert.equal(denials[4]?.destination, '127.0.0.1');
  assert.match(denials[4]?.reason ?? '', /public/);
});

test('rules in order: block, port, protocol; the first that matches', () => {
  const { judge, engine } = bench({
    default: 'deny',
    rules: [
      { action: 'deny', to: ['10.1.2.3'] },
      { action: 'allow', to: ['10.1.0.0/16', '10.9.0.0/16'], ports: ['80', '8000-8100'], protocol: 'tcp' },
      { action: 'allow', to: ['fd00::/8'] },
      { action: 'allow', to: ['public'], protocol: 'icmp' },
    ],
  });
  assert.equal(judge('10.1.2.4', 80), 'allow');
  assert.equal(judge('10.9.2.4', 8050), 'allow');
  assert.equal(judge('10.1.2.3', 80), 'deny');
  assert.equal(judge('10.1.2.4', 81), 'deny');
  assert.equal(judge('10.1.2.4', 80, { protocol: 'udp' }), 'deny');
  assert.equal(judge('::ffff:10.1.2.3', 80), 'deny');
  assert.equal(judge('fd12::1', 9), 'allow');
  assert.equal(judge('1.1.1.1', 0, { protocol: 'icmp' }), 'allow');
  assert.equal(judge('10.0.0.1', 0, { protocol: 'icmp' }), 'deny');
  assert.deepEqual(engine.counters('vm1'), { allowed: 4, denied: 5, redirected: 0, failed: 0, untold: 0 });
  assert.equal(judge('10.1.2.3', 81, { link: 'vm2' }), 'allow', 'another machine has the fallback');
});

test('a domain is what this machine resolved from it, for as long as the answer is good', () => {
  const { judge, resolve, clock, engine } = bench({
    default: 'deny',
    rules: [{ action: 'allow', domains: ['example.com', '*.example.org'], ports: ['443'] }],
  });
  assert.equal(judge('198.41.0.4'), 'deny', 'nobody resolved it');
  resolve('example.com', ['198.41.0.4', '2001:503:ba3e::2:30'], { ttlS: 1 });
  resolve('evil.test', ['198.41.0.5']);
  resolve('example.org', ['198.41.0.6']);
  resolve('a.b.example.org', ['198.41.0.7'], { ttlS: 300 });
  resolve('notexample.org', ['198.41.0.8']);
  assert.equal(judge('198.41.0.4'), 'allow');
  assert.equal(judge('2001:503:ba3e::2:30'), 'allow');
  assert.equal(judge('::ffff:198.41.0.4'), 'allow');
  assert.equal(judge('198.41.0.4', 80), 'deny');
  assert.equal(judge('198.41.0.5'), 'deny');
  assert.equal(judge('198.41.0.6'), 'deny', 'below the domain is not the domain');
  assert.equal(judge('198.41.0.7'), 'allow');
  assert.equal(judge('198.41.0.8'), 'deny');
  clock.nowMs += 59_000;
  assert.equal(judge('198.41.0.4'), 'allow', 'a second is too short to connect in');
  clock.nowMs += 2000;
  assert.equal(judge('198.41.0.4'), 'deny');
  assert.equal(judge('198.41.0.7'), 'allow');
  // Another machine's answers are its own.
  engine.set('vm2', { default: 'deny', rules: [{ action: 'allow', domains: ['*'] }] });
  assert.equal(judge('198.41.0.7', 443, { link: 'vm2' }), 'deny');
});

test('a name of the world does not lead into the house', () => {
  const { judge, resolve } = bench({ default: 'deny', rules: [{ action: 'allow', domains: ['*'] }] });
  resolve('rebind.test', ['169.254.169.254', '10.0.0.1', '127.0.0.1', '::1', '198.41.0.4']);
  for (const address of ['169.254.169.254', '10.0.0.1', '127.0.0.1', '::1'])
    assert.equal(judge(address), 'deny');
  assert.equal(judge('198.41.0.4'), 'allow');
  resolve('web', ['10.1.0.3'], { local: true });
  assert.equal(judge('10.1.0.3'), 'allow', 'a container by its name is no such thing');
});

test('names that may not be reached may not be asked for', () => {
  const { engine } = bench(DENY_ALL);
  const may = (policy: RulePolicy, name: string): boolean => {
    engine.set('vm1', policy);
    return engine.mayAsk({ vm: 'vm1' }, name);
  };
  const one: Rule = { action: 'allow', domains: ['example.com'] };
  assert.equal(may({ default: 'deny', rules: [one] }, 'example.com'), true);
  assert.equal(may({ default: 'deny', rules: [one] }, 'secret.evil.test'), false);
  assert.equal(may({ default: 'deny', rules: [one, { action: 'allow', to: ['1.1.1.1'] }] }, 'x.test'), true);
  assert.equal(may({ default: 'public-only' }, 'x.test'), true);
  assert.equal(
    may({ default: 'allow', rules: [{ action: 'deny', domains: ['*.bad.test'] }] }, 'x.bad.test'),
    false,
  );
  const mail: Rule = { action: 'deny', domains: ['*'], ports: ['25'] };
  assert.equal(may({ default: 'allow', rules: [mail] }, 'x.test'), true);
  assert.equal(may({ default: 'deny' }, 'x.test'), false);
});

test('what a connection says it wants has to be allowed, too', () => {
  const { engine, resolve, denials } = bench({
    default: 'deny',
    rules: [{ action: 'allow', domains: ['example.com', 'cdn.test'] }],
  });
  resolve('example.com', ['198.41.0.4']);
  const inspect = (): ((text: string) => string) => {
    const verdict = engine.judge(flow('198.41.0.4', 80)) as PolicyVerdict;
    assert.equal(verdict.action, 'allow');
    assert.ok('inspect' in verdict && verdict.inspect !== undefined);
    const { inspect: judge } = verdict;
    return (text) => judge(Buffer.from(text));
  };
  assert.equal(inspect()('GET / HTTP/1.1\r\nHo'), 'more');
  assert.equal(inspect()('GET / HTTP/1.1\r\nHost: example.com\r\n\r\n'), 'allow');
  assert.equal(inspect()('GET / HTTP/1.1\r\nHost: cdn.test\r\n\r\n'), 'allow');
  assert.equal(inspect()('SSH-2.0-x\r\n'), 'allow', 'nothing to see');
  assert.equal(denials.length, 0);
  assert.equal(inspect()('GET / HTTP/1.1\r\nHost: other.test\r\n\r\n'), 'deny');
  assert.match(denials[0]?.reason ?? '', /other\.test/);
  assert.deepEqual(engine.counters('vm1'), { allowed: 4, denied: 1, redirected: 0, failed: 0, untold: 0 });
  // Where all is allowed but one name, the name is looked for as well.
  engine.set('vm1', { default: 'allow', rules: [{ action: 'deny', domains: ['other.test'] }] });
  const verdict = engine.judge(flow('198.41.0.9', 80)) as { inspect: (bytes: Uint8Array) => string };
  assert.equal(verdict.inspect(Buffer.from('GET / HTTP/1.1\r\nHost: other.test\r\n\r\n')), 'deny');
  engine.set('vm1', ALLOW_ALL);
  assert.deepEqual(
    engine.judge(flow('198.41.0.9', 80)),
    { action: 'allow' },
    'no domain, nothing to inspect',
  );
});

test('a policy is replaced while the machine runs; one that is refused changes nothing', () => {
  const { engine, judge } = bench(DENY_ALL);
  assert.equal(judge('1.1.1.1'), 'deny');
  engine.set('vm1', ALLOW_ALL);
  assert.equal(judge('1.1.1.1'), 'allow');
  for (const policy of [
    { default: 'maybe' },
    { default: 'deny', rules: [{ action: 'drop' }] },
    { default: 'deny', rules: [{ action: 'allow', to: ['10.0.0.1/8'] }] },
    { default: 'deny', rules: [{ action: 'allow', to: ['public', '10.0.0.0/8'] }] },
    { default: 'deny', rules: [{ action: 'allow', to: [] }] },
    { default: 'deny', rules: [{ action: 'allow', ports: ['0'] }] },
    { default: 'deny', rules: [{ action: 'allow', ports: ['90-80'] }] },
    { default: 'deny', rules: [{ action: 'allow', ports: ['http'] }] },
    { default: 'deny', rules: [{ action: 'allow', protocol: 'sctp' }] },
    { default: 'deny', rules: [{ action: 'allow', domains: ['a*.test'] }] },
    { default: 'deny', rules: [{ action: 'allow', host: 'example.com' }] },
    { default: 'deny', rules: Array.from({ length: 1001 }, () => ({ action: 'allow' })) },
  ]) {
    assert.throws(
      () => engine.set('vm1', policy as unknown as RulePolicy),
      (error) => error instanceof NetError && error.code === 'ERR_ARCBOX_NET_POLICY',
      JSON.stringify(policy).slice(0, 80),
    );
  }
  assert.equal(judge('1.1.1.1'), 'allow');
});

test('a function decides, sees names, redirects; whatever goes wrong denies', async () => {
  const { engine, resolve, denials } = bench();
  resolve('example.com', ['198.41.0.4']);
  const seen: unknown[] = [];
  engine.set('vm1', (question) => {
    seen.push([question.names, question.public, question.destinationPort]);
    return 'allow';
  });
  assert.deepEqual(engine.judge(flow('198.41.0.4')), { action: 'allow' });
  assert.deepEqual(engine.judge(flow('10.0.0.1', 22)), { action: 'allow' });
  assert.deepEqual(seen, [
    [['example.com'], true, 443],
    [[], false, 22],
  ]);
  engine.set('vm1', () => ({ action: 'redirect', address: '127.0.0.1', port: 3128 }));
  assert.deepEqual(engine.judge(flow('1.1.1.1')), { action: 'redirect', address: '127.0.0.1', port: 3128 });
  engine.set('vm1', async () => 'allow' as const);
  assert.deepEqual(await engine.judge(flow('1.1.1.1')), { action: 'allow' });
  const bad: Policy[] = [
    () => {
      throw new Error('oops');
    },
    () => Promise.reject(new Error('oops')),
    () => new Promise(() => {}),
    () => 'perhaps' as 'allow',
    async () => undefined as unknown as 'allow',
    () => ({ action: 'redirect', address: 'x', port: 1 }),
    () => ({ action: 'redirect', address: '1.1.1.1', port: 70_000 }),
  ];
  for (const policy of bad) {
    engine.set('vm1', policy);
    assert.equal((await engine.judge(flow('1.1.1.1'))).action, 'deny');
  }
  assert.equal(engine.counters('vm1').failed, bad.length);
  assert.ok(denials.some((denial) => denial.reason.includes('oops')));
  assert.ok(denials.some((denial) => denial.reason.includes('20 ms')));
  engine.set('vm1', () => new Promise(() => {}));
  const pending = Array.from({ length: 300 }, () => engine.judge(flow('1.1.1.1')));
  assert.equal(pending.filter((verdict) => !(verdict instanceof Promise)).length, 300 - 256);
  await Promise.all(pending);
});

test('denials are told up to a rate and counted beyond; resolved names are bounded', () => {
  const { engine, judge, denials, clock, resolve } = bench(DENY_ALL);
  for (let i = 0; i < 200; i++) judge('1.1.1.1');
  assert.equal(denials.length, 50);
  assert.equal(engine.counters('vm1').untold, 150);
  clock.nowMs += 1000;
  judge('1.1.1.1');
  assert.equal(denials.length, 51);
  engine.set('vm1', { default: 'deny', rules: [{ action: 'allow', domains: ['*'] }] });
  for (let i = 0; i < 5000; i++) resolve('a.test', [`198.41.${i >> 8}.${i & 255}`]);
  assert.equal(judge('198.41.0.0'), 'deny', 'the oldest are forgotten');
  assert.equal(judge('198.41.19.0'), 'allow');
});
