import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ago, harmless, shortId } from '../src/table.ts';

test('how long ago, in the largest unit', (t) => {
  const now = Date.now();
  t.mock.timers.enable({ apis: ['Date'], now });
  const table: readonly [number, string][] = [
    [0, 'less than a second'],
    [1000, '1 second'],
    [59_000, '59 seconds'],
    [60_000, '1 minute'],
    [2 * 3_600_000, '2 hours'],
    [49 * 3_600_000, '2 days'],
  ];
  for (const [before, text] of table) assert.equal(ago(now - before), text);
});

test('IDs are short, with or without their algorithm', () => {
  assert.equal(shortId(`sha256:${'ab'.repeat(32)}`), 'abababababab');
  assert.equal(shortId('0123456789abcdef'), '0123456789ab');
});

test('what strangers wrote does not speak to the terminal', () => {
  const hostile = 'a\u001b]0;title\u0007\u009b31mb\r\u0008c\td\ne';
  assert.equal(harmless(hostile), 'a ]0;title  31mb  c\td\ne');
});

test('help names every command, and needs no daemon', () => {
  const launcher = fileURLToPath(new URL('../../../arcbox', import.meta.url));
  const environment = { ...process.env, ARCBOX_HOME: '/nonexistent' };
  const help = execFileSync(launcher, ['--help'], { env: environment, encoding: 'utf8' });
  for (const name of 'run create start attach exec ps logs stop restart kill pause unpause rename update wait rm inspect top stats cp export diff commit port images daemon machine doctor version info completion'.split(
    ' ',
  )) {
    assert.match(help, new RegExp(`^  ${name}\\b`, 'm'));
  }
});
