/** How a policy answers that is asked about a flow: at once, later, with an error, or never. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { POLICY_ANSWER_MS_MAX } from '../src/limits.ts';
import { type Flow, judge, type Verdict } from '../src/stack/policy.ts';

const FLOW: Flow = {
  protocol: 'tcp',
  network: 'lab',
  link: 'vm1',
  sourceMac: '02:00:00:00:00:01',
  source: '10.1.0.2',
  sourcePort: 40_000,
  destination: '10.1.0.1',
  destinationPort: 80,
};
const ALLOWED: Verdict = { action: 'allow' };

test('at once, later, with an error', async () => {
  const told: Verdict[] = [];
  judge(
    () => ALLOWED,
    FLOW,
    (verdict) => told.push(verdict),
  );
  assert.deepEqual(told, [ALLOWED]);
  const later = (policy: () => Promise<Verdict>): Promise<Verdict> =>
    new Promise((resolve) => judge(policy, FLOW, resolve));
  assert.deepEqual(await later(() => Promise.resolve(ALLOWED)), ALLOWED);
  assert.deepEqual(await later(() => Promise.reject(new Error('no idea'))), {
    action: 'deny',
    reason: 'the policy failed: no idea',
  });
});

test('never is a denial, and what comes after it changes nothing', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const told: Verdict[] = [];
  const question = Promise.withResolvers<Verdict>();
  judge(
    () => question.promise,
    FLOW,
    (verdict) => told.push(verdict),
  );
  t.mock.timers.tick(POLICY_ANSWER_MS_MAX - 1);
  assert.equal(told.length, 0);
  t.mock.timers.tick(1);
  assert.equal(told[0]?.action, 'deny');
  question.resolve(ALLOWED);
  await question.promise;
  assert.equal(told.length, 1);
});
