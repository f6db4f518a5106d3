import assert from 'node:assert/strict';
import { test } from 'node:test';
import { lifeOptions } from '../src/life-flags.ts';
import { fromMountFlag, fromVolumeFlag, mounts } from '../src/mount-flags.ts';
import { parseDuration, parseTime } from '../src/time.ts';

test('-v: a path, a name and a path, options; what belongs to the host is told as such', () => {
  const volume = { type: 'volume', readOnly: false, noCopy: false };
  assert.deepEqual(fromVolumeFlag('/data'), { ...volume, source: '', target: '/data' });
  assert.deepEqual(fromVolumeFlag('db:/data'), { ...volume, source: 'db', target: '/data' });
  assert.deepEqual(fromVolumeFlag('db:/data:ro,nocopy'), {
    ...volume,
    source: 'db',
    target: '/data',
    readOnly: true,
    noCopy: true,
  });
  for (const host of ['/etc:/host', './here:/there', '~/x:/y'])
    assert.equal(fromVolumeFlag(host).type, 'bind');
  for (const wrong of ['', ':', 'a:', ':/b', 'a:/b:ro:x', 'a:/b:z'])
    assert.throws(() => fromVolumeFlag(wrong), /-v /, wrong);
});

test('--mount: keys as docker has them, and no others', () => {
  assert.deepEqual(fromMountFlag('type=volume,src=db,dst=/data,readonly,volume-nocopy=true'), {
    type: 'volume',
    source: 'db',
    target: '/data',
    readOnly: true,
    noCopy: true,
  });
  assert.deepEqual(fromMountFlag('type=tmpfs,target=/tmp,tmpfs-size=1m,tmpfs-mode=1777'), {
    type: 'tmpfs',
    target: '/tmp',
    tmpfsBytes: '1048576',
    tmpfsMode: 0o1777,
  });
  for (const wrong of [
    'type=volume',
    'target=/x,colour=red',
    'target=/x,ro=perhaps',
    'target=/x,tmpfs-mode=9',
  ])
    assert.throws(() => fromMountFlag(wrong), /--mount/, wrong);
  assert.equal(mounts({ volume: ['/a'], mount: ['target=/b'] }).length, 2);
});

test('flags about life become one message', () => {
  assert.deepEqual(lifeOptions({ restart: 'always', logOpt: ['max-size=10m', 'max-file=3'] }), {
    restart: 'always',
    health: {
      test: [],
      intervalMs: '0',
      timeoutMs: '0',
      retries: 0,
      startPeriodMs: '0',
      startIntervalMs: '0',
    },
    logMaxSizeBytes: String(10 * 1024 ** 2),
    logMaxFiles: 3,
  });
  const { health } = lifeOptions({ healthCmd: 'true', healthInterval: '1m30s', healthRetries: '5' });
  assert.deepEqual(health?.test, ['CMD-SHELL', 'true']);
  assert.equal(health?.intervalMs, '90000');
  assert.equal(health?.retries, 5);
  assert.deepEqual(lifeOptions({ healthcheck: false }).health?.test, ['NONE']);
  assert.throws(() => lifeOptions({ healthcheck: false, healthCmd: 'true' }), /exclude each other/);
  assert.throws(() => lifeOptions({ healthInterval: 'soon' }), /no duration/);
  assert.throws(() => lifeOptions({ logOpt: ['colour=red'] }), /is not known/);
});

test('times: absolute, seconds, and how long ago', () => {
  assert.equal(parseTime('2026-01-31T12:00:00Z'), Date.UTC(2026, 0, 31, 12));
  assert.equal(parseTime('1700000000.5'), 1_700_000_000_500);
  assert.equal(parseTime('1h30m', 10_000_000), 10_000_000 - 5_400_000);
  assert.equal(parseDuration('500ms'), 500);
  assert.equal(parseDuration('1d'), 86_400_000);
  assert.equal(parseDuration('5'), undefined);
  assert.throws(() => parseTime('yesterday'), /is no time/);
});
