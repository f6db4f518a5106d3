import assert from 'node:assert/strict';
import { test } from 'node:test';
import { resolveWithin } from '../src/container/stopped-root.ts';

const DIRECTORY = { mode: 0o040755, linkTarget: '' };
const link = (linkTarget: string) => ({ mode: 0o120777, linkTarget });

const TREE: Readonly<Record<string, { mode: number; linkTarget: string }>> = {
  '/srv': DIRECTORY,
  '/srv/data': DIRECTORY,
  '/data': link('srv/data'),
  '/absolute': link('/srv'),
  '/out': link('../../../etc'),
  '/srv/up': link('../../../srv/./data'),
  '/root': link('/'),
  '/through': link('missing/../data'),
  '/loop': link('/loop'),
  '/one': link('/two'),
  '/two': link('/one'),
  '/file': { mode: 0o100644, linkTarget: '' },
};

test('a mount point is resolved within the root, wherever links lead', async () => {
  const expected: readonly [string, string | undefined][] = [
    ['/srv/data', '/srv/data'],
    ['/data', '/srv/data'],
    ['/data/new/dir', '/srv/data/new/dir'],
    ['/absolute/data', '/srv/data'],
    ['/out', '/etc'],
    ['/out/ssh', '/etc/ssh'],
    ['/srv/up', '/srv/data'],
    ['/missing/dir', '/missing/dir'],
    ['/missing/../data', undefined],
    ['/through', undefined],
    ['/file', undefined],
    ['/file/below', undefined],
    ['/root', undefined],
    ['/loop', undefined],
    ['/one', undefined],
    ['/', undefined],
  ];
  for (const [path, found] of expected)
    assert.equal(await resolveWithin(path, async (at) => TREE[at]), found, path);
});
