import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { it } from 'node:test';
import { dropCleanFilePages, trimFreedMemory } from '../src/index.ts';
import { cleanFileMappings } from '../src/memory.ts';

/** The fields of one mapping, as the kernel writes them, kB. */
function mapping(
  head: string,
  fields: { rss: number; dirty: number; anonymous: number; swap: number },
): string {
  return `${head}
Size:               2048 kB
Rss:                ${fields.rss} kB
Private_Clean:         8 kB
Private_Dirty:         ${fields.dirty} kB
Anonymous:             ${fields.anonymous} kB
Swap:                  ${fields.swap} kB
SwapPss:               0 kB
VmFlags: rd ex mr mw me
`;
}

it('only mappings that the file can restore are dropped', () => {
  const clean = { rss: 100, dirty: 0, anonymous: 0, swap: 0 };
  const smaps = [
    mapping('00400000-00600000 r-xp 00000000 fe:00 12 /usr/bin/a program', clean),
    mapping('00600000-00800000 r--p 00200000 fe:00 12 /usr/bin/a program', clean),
    mapping('02200000-02400000 r-xp 00200000 fe:00 12 /just/installed', { ...clean, dirty: 100 }),
    mapping('00800000-00a00000 r--p 00400000 fe:00 12 /relocated', { ...clean, dirty: 4, anonymous: 4 }),
    mapping('00a00000-00c00000 r-xp 00400000 fe:00 12 /breakpoint', { ...clean, anonymous: 4 }),
    mapping('02000000-02200000 r--p 00400000 fe:00 12 /relocated/and/swapped', { ...clean, swap: 4 }),
    mapping('00c00000-00e00000 rw-p 00400000 fe:00 12 /data', clean),
    mapping('00e00000-01000000 r--s 00400000 fe:00 12 /shared', clean),
    mapping('01000000-01200000 r-xp 00000000 00:00 0', clean),
    mapping('01200000-01400000 r-xp 00000000 00:00 0 [vdso]', clean),
    mapping('01400000-01600000 r-xp 00000000 fe:00 12 /not/touched', { ...clean, rss: 0 }),
  ].join('');
  assert.deepEqual(cleanFileMappings(smaps), [
    { start: 0x400000n, end: 0x600000n, rssBytes: 102_400 },
    { start: 0x600000n, end: 0x800000n, rssBytes: 102_400 },
    { start: 0x2200000n, end: 0x2400000n, rssBytes: 102_400 },
  ]);
});

it('a process goes on after it gave its programs back, with less of them mapped', () => {
  const mappedBytes = (): number =>
    cleanFileMappings(readFileSync('/proc/self/smaps', 'utf8')).reduce(
      (sum, { rssBytes }) => sum + rssBytes,
      0,
    );
  trimFreedMemory();
  const before = mappedBytes();
  const dropped = dropCleanFilePages();
  assert.ok(dropped > 10_000_000, `dropped ${dropped}`);
  assert.ok(mappedBytes() < before / 2);
});
