import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  closeSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { sha256 } from '../src/digest.ts';
import { ImageError } from '../src/errors.ts';
import { Squash } from '../src/layer/squash.ts';
import { paxRecord } from '../src/tar/pax.ts';
import { content, convert, listing } from './support/squashfs.ts';
import { type EntryInput, entry, patchHeader, paxHeader, tar } from './support/tars.ts';

const ROOT = 'drwxr-xr-x 0/0';
const names = (path: string): string[] =>
  listing(path)
    .slice(1)
    .map((line) => line.replace(/^(\S+) (\S+) (\S+) /, '$1 $2 '));

async function expect(entries: readonly EntryInput[], lines: readonly string[]): Promise<void> {
  await convert(tar(...entries), (path) => {
    assert.deepEqual(names(path), lines);
  });
}

test('what a layer is: digests of the blob and of the tar, whatever it is packed with', async () => {
  const plain = tar({ name: 'etc/', type: 'directory' }, { name: 'etc/motd', data: 'hello' });
  for (const [compression, blob] of [
    ['none', plain],
    ['gzip', gzipSync(plain)],
    ['gzip', Buffer.concat([gzipSync(plain.subarray(0, 700)), gzipSync(plain.subarray(700))])],
    ['zstd', zstdCompressSync(plain)],
  ] as const) {
    await convert(blob, (path, layer) => {
      assert.equal(layer.compression, compression);
      assert.equal(layer.diffId, sha256(plain));
      assert.equal(layer.digest, sha256(blob));
      assert.equal(layer.blobBytes, blob.length);
      assert.equal(layer.tarBytes, plain.length);
      assert.deepEqual(names(path), ['drwxr-xr-x 0/0 /etc', '-rw-r--r-- 0/0 /etc/motd']);
      assert.equal(content(path, 'etc/motd'), 'hello');
    });
  }
});

test('chunks of any size make the same', async () => {
  const plain = tar(
    { name: `${'a'.repeat(150)}/${'b'.repeat(150)}`, data: 'x'.repeat(1000) },
    { name: 'l', type: 'symlink', linkName: `/${'c'.repeat(200)}` },
  );
  for (const bytes of [512, 513, 700, 10_000]) {
    await convert(
      plain,
      (path) => {
        assert.deepEqual(names(path), [
          `drwxr-xr-x 0/0 /${'a'.repeat(150)}`,
          `-rw-r--r-- 0/0 /${'a'.repeat(150)}/${'b'.repeat(150)}`,
          `lrwxrwxrwx 0/0 /l -> /${'c'.repeat(200)}`,
        ]);
      },
      bytes,
    );
  }
});

test('the root is what the tar says, first or last, or a plain directory', async () => {
  const root: EntryInput = { name: './', type: 'directory', mode: 0o711 };
  for (const entries of [
    [root, { name: './a' }],
    [{ name: './a' }, root],
  ]) {
    await convert(tar(...entries), (path) => {
      assert.match(listing(path)[0] ?? '', /^drwx--x--x 0\/0 /);
    });
  }
  await convert(tar({ name: 'a' }), (path) => assert.ok(listing(path)[0]?.startsWith(ROOT)));
  await convert(tar(), (path) => assert.ok(listing(path)[0]?.startsWith(ROOT)));
});

test('parents that are missing are made; a directory’s last entry counts', async () => {
  await expect(
    [
      { name: 'a/b/c' },
      { name: 'a/b', type: 'directory', mode: 0o700 },
      { name: 'a/b', type: 'directory', mode: 0o1777, uid: 7 },
    ],
    ['drwxr-xr-x 0/0 /a', 'drwxrwxrwt 7/0 /a/b', '-rw-r--r-- 0/0 /a/b/c'],
  );
});

test('whiteouts and opaque directories become overlayfs’s', async () => {
  await expect(
    [{ name: 'etc/.wh.passwd' }, { name: 'var/.wh..wh..opq' }, { name: 'var/x' }, { name: '.wh..wh.plnk' }],
    ['drwxr-xr-x 0/0 /etc', 'c--------- 0/0 /etc/passwd', 'drwxr-xr-x 0/0 /var', '-rw-r--r-- 0/0 /var/x'],
  );
  // What the layer brings itself is not removed by it, in either order; a directory hides the one below.
  for (const order of [1, -1]) {
    const entries = [{ name: '.wh.f' }, { name: 'f', data: 'new' }, { name: '.wh.d' }, { name: 'd/x' }];
    await expect(
      entries.slice().sort(() => order),
      ['drwxr-xr-x 0/0 /d', '-rw-r--r-- 0/0 /d/x', '-rw-r--r-- 0/0 /f'],
    );
  }
});

test('of names that come again the last one counts, and links keep what they had', async () => {
  await convert(
    tar(
      { name: 'a', data: 'one' },
      { name: 'b', type: 'link', linkName: 'a' },
      { name: 'a', data: 'two' },
      { name: 'c', type: 'link', linkName: '/a' },
    ),
    (path) => {
      assert.equal(content(path, 'a'), 'two');
      assert.equal(content(path, 'b'), 'one');
      assert.equal(content(path, 'c'), 'two');
    },
  );
});

test('a file replaced by a directory and a directory by a file', async () => {
  await expect(
    [{ name: 'a', data: 'x' }, { name: 'a', type: 'directory' }, { name: 'a/b' }],
    ['drwxr-xr-x 0/0 /a', '-rw-r--r-- 0/0 /a/b'],
  );
  await expect(
    [
      { name: 'a/b/c', data: 'x' },
      { name: 'a', data: 'y' },
    ],
    ['-rw-r--r-- 0/0 /a'],
  );
  await expect(
    [
      { name: 'a', type: 'directory' },
      { name: 'a', data: 'y' },
    ],
    ['-rw-r--r-- 0/0 /a'],
  );
});

test('links in the parents of a name are followed inside the layer', async () => {
  await expect(
    [
      { name: 'usr/lib', type: 'directory' },
      { name: 'lib', type: 'symlink', linkName: '/usr/lib' },
      { name: 'up', type: 'symlink', linkName: '../../../../../usr' },
      { name: 'lib/a', data: '1' },
      { name: 'up/lib/b', type: 'link', linkName: 'lib/a' },
    ],
    [
      'lrwxrwxrwx 0/0 /lib -> /usr/lib',
      'lrwxrwxrwx 0/0 /up -> ../../../../../usr',
      'drwxr-xr-x 0/0 /usr',
      'drwxr-xr-x 0/0 /usr/lib',
      '-rw-r--r-- 0/0 /usr/lib/a',
      '-rw-r--r-- 0/0 /usr/lib/b',
    ],
  );
});

test('devices, pipes, odd names and large ids come through', async () => {
  await convert(
    tar(
      { name: 'null', type: 'char', devMajor: 1, devMinor: 3, mode: 0o666 },
      { name: 'pipe', type: 'fifo' },
      { name: 'b\xe9\n', uid: 4_000_000_000, gid: 3_000_000 },
    ),
    (path) => {
      assert.deepEqual(
        listing(path).filter((line) => /null|pipe/.test(line)),
        ['crw-rw-rw- 0/0 1,3 /null', 'prw-r--r-- 0/0 0 /pipe'],
      );
      assert.ok(listing(path).some((line) => line.startsWith('-rw-r--r-- 4000000000/3000000 0 /b')));
    },
  );
});

function sparseTar(realBytes: number, pieces: readonly number[], data: Buffer): Buffer {
  const records = Buffer.concat([
    paxRecord('GNU.sparse.size', String(realBytes)),
    paxRecord('GNU.sparse.map', pieces.join(',')),
  ]);
  return Buffer.concat([paxHeader(records), tar({ name: 's', data }, { name: 't' })]);
}

test('sparse files with any map', async () => {
  const maps: readonly [number, readonly number[]][] = [
    [0, []],
    [10, [10, 0]],
    [5000, []],
    [5000, [5000, 0]],
    [3000, [2999, 1]],
    [3000, [1000, 0, 1000, 600, 2000, 0, 2000, 512, 3000, 0]],
    [100_000, Array.from({ length: 60 }, (_, index) => (index % 2 === 0 ? index * 1000 : 7))],
  ];
  for (const [realBytes, pieces] of maps) {
    const expected = Buffer.alloc(realBytes);
    const parts: Buffer[] = [];
    for (let index = 0; index < pieces.length; index += 2) {
      const part = Buffer.alloc(pieces[index + 1] ?? 0, 0x61 + index);
      part.copy(expected, pieces[index]);
      parts.push(part);
    }
    await convert(sparseTar(realBytes, pieces, Buffer.concat(parts)), (path) => {
      assert.equal(content(path, 's'), expected.toString('latin1'));
    });
  }
});

test('what GNU tar writes for a sparse file, in each of its forms', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'arcbox-sparse-'));
  try {
    const file = join(directory, 'file');
    writeFileSync(file, '');
    truncateSync(file, 2_000_000);
    const handle = openSync(file, 'r+');
    for (let at = 100_000; at < 2_000_000; at += 100_000) writeSync(handle, 'data', at);
    closeSync(handle);
    for (const form of ['gnu', 'posix:0.0', 'posix:0.1', 'posix:1.0']) {
      const [format = '', version = '1.0'] = form.split(':');
      const blob = execFileSync('tar', [
        ...['--sparse', `--format=${format}`, `--sparse-version=${version}`, '-C', directory, '-c', 'file'],
      ]);
      assert.ok(blob.length < 400_000, 'it is sparse');
      await convert(blob, (path) => {
        assert.deepEqual(names(path), [`-rw-r--r-- ${process.getuid?.()}/${process.getgid?.()} /file`]);
        assert.equal(content(path, 'file'), readFileSync(file, 'latin1'));
      });
    }
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test('a hostile or broken layer is refused with a sentence', async () => {
  const cases: readonly [string, Buffer, RegExp][] = [
    ['out', tar({ name: '../etc/passwd' }), /leads out of the layer/],
    ['out in the middle', tar({ name: 'a/../../b' }), /leads out of the layer/],
    ['link out', tar({ name: 'a', type: 'link', linkName: '../../etc/passwd' }), /leads out of the layer/],
    ['link to nothing', tar({ name: 'a', type: 'link', linkName: 'nothing' }), /which is not in the layer/],
    ['link to later', tar({ name: 'a', type: 'link', linkName: 'b' }, { name: 'b' }), /not in the layer/],
    [
      'link to a directory',
      tar({ name: 'd', type: 'directory' }, { name: 'a', type: 'link', linkName: 'd' }),
      /directory/,
    ],
    ['below a file', tar({ name: 'a' }, { name: 'a/b' }), /is not a directory/],
    ['loop', tar({ name: 'a', type: 'symlink', linkName: 'a' }, { name: 'a/b' }), /loop/],
    ['root a file', tar({ name: '/', type: 'symlink', linkName: 'x' }), /root/],
    ['device', tar({ name: 'a', type: 'char', devMajor: 100_000 }), /cannot be/],
    ['overlapping pieces', sparseTar(9, [4, 1, 4, 1], Buffer.from('xy')), /overlap/],
    ['long name', tar({ name: 'n'.repeat(256) }), /too long/],
    ['whiteout of nothing', tar({ name: 'a/.wh.' }), /removes nothing/],
    ['whiteout of the parent', tar({ name: 'a/.wh...' }), /removes nothing/],
    ['truncated', tar({ name: 'a', data: 'x'.repeat(5000) }).subarray(0, 2000), /middle of an entry/],
    ['truncated gzip', gzipSync(tar({ name: 'a' })).subarray(0, 30), /cannot be unpacked/],
    ['truncated zstd', zstdCompressSync(tar({ name: 'a', data: 'x' })).subarray(0, 30), /unpacked|middle/],
    ['corrupt', Buffer.concat([entry({ name: 'a' }), Buffer.alloc(512, 'x')]), /check sum|not a number/],
    ['unknown type', patchHeader(tar({ name: 'a' }), (block) => block.write('Z', 156)), /unknown type/],
    ['xz', Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0]), /packed with xz/],
    ['huge', patchHeader(tar({ name: 'a' }), (block) => block.write('77777777777', 124)), /middle|bytes/],
  ];
  for (const [what, blob, why] of cases) {
    await assert.rejects(
      convert(blob, () => {}),
      (error) => error instanceof ImageError && why.test(error.message),
      what,
    );
  }
});

test('sqfstar leaves the second block of the end of a tar unread: its exit code says whether it failed', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'arcbox-squash-'));
  const path = process.env.PATH;
  try {
    for (const end of ['exit 0', 'exit 3', 'kill -SEGV $$']) {
      // It closes its input while more is on the way, and lives on long enough for that to be seen.
      const program = `#!/bin/sh\nhead -c 512 >/dev/null; exec <&-; sleep 0.2; ${end}\n`;
      writeFileSync(join(directory, 'sqfstar'), program, { mode: 0o755 });
      process.env.PATH = `${directory}:${path}`;
      const squash = new Squash(join(directory, 'layer'));
      squash.start({ mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: new Map() });
      squash.write(Buffer.alloc(1024 ** 2));
      const finished = squash.finish();
      if (end === 'exit 0') await finished;
      else await assert.rejects(finished, /layer's file system: it (exited with 3|was ended by SIGSEGV)/);
    }
  } finally {
    process.env.PATH = path;
    rmSync(directory, { recursive: true });
  }
});
