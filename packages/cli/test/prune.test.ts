import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { wantedOf } from '../src/commands/prune.ts';

const CONFIRM = fileURLToPath(new URL('../src/confirm.ts', import.meta.url));

test('what a prune’s filters leave', () => {
  const wanted = wantedOf(['until=1970-01-01T00:00:10Z', 'label=tier', 'label!=keep=yes'], {
    filters: ['until', 'label', 'label!'],
  });
  const admits = (createdMs: string, labels: Record<string, string>) => wanted.admits({ createdMs, labels });
  assert.ok(admits('9999', { tier: 'a' }));
  assert.ok(!admits('10000', { tier: 'a' }));
  assert.ok(!admits('9999', {}));
  assert.ok(!admits('9999', { tier: 'a', keep: 'yes' }));
  assert.ok(admits('9999', { tier: 'a', keep: 'no' }));
  assert.ok(wantedOf(undefined, { filters: [] }).admits({}));
  assert.equal(wantedOf(['all=true'], { filters: ['all'] }).all, true);
  for (const filter of ['label=x', 'until!=1', 'until', 'nosuch=1'])
    assert.throws(() => wantedOf([filter], { filters: ['until'] }), /is no filter here; there are until=…/);
});

test('before anything is removed somebody has to say yes', async () => {
  const answer = async (input: string): Promise<[string, string]> => {
    const script = `const { agreed } = await import(${JSON.stringify(CONFIRM)});
      console.log(await agreed(false, ['things']).catch(({ message }) => message));`;
    const child = execFile(process.execPath, ['--input-type=module', '-e', script]);
    const out: string[] = [];
    child.stdout?.on('data', (data) => out.push(String(data)));
    child.stdin?.end(input);
    await once(child, 'close');
    const lines = out.join('').trim().split('\n');
    return [lines.slice(0, 2).join('\n'), (lines.at(-1) ?? '').replace('Go on? [y/N] ', '')];
  };
  assert.deepEqual(await answer('y\nn\n'), ['This removes:\n  - things', 'true']);
  assert.equal((await answer('\n'))[1], 'false');
  assert.match((await answer(''))[1], /^nobody answered, so nothing was removed/);
});
