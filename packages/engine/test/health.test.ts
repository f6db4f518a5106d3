import assert from 'node:assert/strict';
import { test } from 'node:test';
import { applyProbe, type Health, nextDelay } from '../src/container/health.ts';
import { type HealthCheck, type LifeRequest, lifeOptions } from '../src/container/life-options.ts';

const CHECK: HealthCheck = {
  test: ['CMD', 'true'],
  intervalMs: 1000,
  timeoutMs: 1000,
  retries: 3,
  startPeriodMs: 0,
  startIntervalMs: 0,
};
const fresh = (): Health => ({ status: 'starting', failingStreak: 0, log: [] });
const probe = (exitCode: number, startMs = 0) => ({ startMs, endMs: startMs, exitCode, output: '' });

function verdicts(exits: readonly number[], check: Partial<HealthCheck> = {}, everyMs = 1000): string[] {
  const health = fresh();
  return exits.map((exitCode, index) => {
    applyProbe(health, { ...CHECK, ...check }, probe(exitCode, index * everyMs), 0);
    return health.status;
  });
}

test('one success makes it healthy, so many failures in a row unhealthy', () => {
  assert.deepEqual(verdicts([1, 0, 1, 1, 0, 1, 1, 1, 0]), [
    ...['starting', 'healthy', 'healthy', 'healthy', 'healthy', 'healthy', 'healthy'],
    ...['unhealthy', 'healthy'],
  ]);
  assert.deepEqual(verdicts([1, 1, 1]), ['starting', 'starting', 'unhealthy']);
});

test('failures in the start period do not count, until it was healthy once', () => {
  assert.deepEqual(verdicts([1, 1, 1, 1, 1, 1], { startPeriodMs: 3000 }), [
    ...['starting', 'starting', 'starting', 'starting', 'starting', 'unhealthy'],
  ]);
  assert.equal(verdicts([0, 1, 1, 1], { startPeriodMs: 10_000 }).at(-1), 'unhealthy');
});

test('checks follow faster in the start period, when that is wanted', () => {
  const check = { ...CHECK, startPeriodMs: 60_000, startIntervalMs: 10 };
  assert.equal(nextDelay(check, fresh(), Date.now()), 10);
  assert.equal(nextDelay(check, { ...fresh(), status: 'healthy' }, Date.now()), 1000);
  assert.equal(nextDelay(check, fresh(), Date.now() - 61_000), 1000);
  assert.equal(nextDelay({ ...check, startIntervalMs: 0 }, fresh(), Date.now()), 1000);
});

test('the log keeps the last five', () => {
  const health = fresh();
  for (let n = 0; n < 8; n += 1) applyProbe(health, CHECK, probe(n), 0);
  assert.deepEqual(
    health.log.map(({ exitCode }) => exitCode),
    [3, 4, 5, 6, 7],
  );
});

test("what is asked for goes before the image's check, which NONE switches off", () => {
  const healthcheck = {
    test: ['CMD-SHELL', 'image'],
    intervalMs: 5000,
    timeoutMs: 0,
    startPeriodMs: 0,
    startIntervalMs: 0,
    retries: 7,
  };
  const image = { config: { healthcheck } };
  const of = (request: LifeRequest) => lifeOptions(request, image as never, false).health;
  const asked = {
    test: [],
    intervalMs: 0,
    timeoutMs: 1234,
    retries: 0,
    startPeriodMs: 0,
    startIntervalMs: 0,
  };
  assert.deepEqual(of({}), {
    ...CHECK,
    test: ['CMD-SHELL', 'image'],
    intervalMs: 5000,
    timeoutMs: 30_000,
    retries: 7,
  });
  assert.equal(of({ health: asked })?.timeoutMs, 1234);
  assert.equal(of({ health: { ...asked, test: ['NONE'] } }), undefined);
  assert.throws(() => of({ health: { ...asked, test: ['CMD'] } }), /is no health check/);
  assert.throws(() => of({ health: { ...asked, intervalMs: -5 } }), /intervalMs/);
});
