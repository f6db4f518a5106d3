import assert from 'node:assert/strict';
import { Writable } from 'node:stream';
import { test } from 'node:test';
import { ProgressDisplay, type ProgressLine } from '../src/progress.ts';

const LINES: readonly ProgressLine[] = [
  { id: '', status: 'Pulling from library/app' },
  { id: 'aaaa', status: 'Waiting' },
  { id: 'bbbb', status: 'Downloading', current: '0', total: '4000000' },
  { id: 'aaaa', status: 'Downloading', current: '500000', total: '1000000' },
  { id: 'aaaa', status: 'Downloading', current: '1000000', total: '1000000' },
  { id: 'bbbb', status: 'Downloading', current: '3000000' },
  { id: 'aaaa', status: 'Pull complete' },
];

/** What is written to a stream, which is a terminal when it has columns. */
function written(lines: readonly ProgressLine[], columns?: number, rows = 24): string {
  const parts: string[] = [];
  const stream = new Writable({
    write(data, _encoding, done) {
      parts.push(String(data));
      done();
    },
  });
  const target = Object.assign(stream, columns === undefined ? {} : { isTTY: true, columns, rows });
  const display = new ProgressDisplay(target as unknown as NodeJS.WriteStream);
  for (const line of lines) display.show(line);
  return parts.join('');
}

/** What a terminal shows after that: lines fed, the cursor moved up and down, lines cleared. */
function screen(text: string): string[] {
  const rows: string[] = [''];
  let row = 0;
  for (const [part] of text.replaceAll('\x1b', '␛').matchAll(/␛\[(?:\d+A|\d+B|2K)|\r|\n|[^␛\r\n]+/g)) {
    const moved = /^␛\[(\d+)([AB])$/.exec(part);
    if (moved !== null) row += Number(moved[1]) * (moved[2] === 'A' ? -1 : 1);
    else if (part === '\n') row += 1;
    else if (part === '␛[2K') rows[row] = '';
    else if (part !== '\r') rows[row] = (rows[row] ?? '') + part;
    assert.ok(row >= 0, 'the cursor stays on what was drawn');
    rows[row] ??= '';
  }
  return rows;
}

test('elsewhere than on a terminal: a plain line for each thing that happened, and none for how far it has come', () => {
  assert.equal(
    written(LINES),
    [
      'Pulling from library/app',
      'aaaa: Waiting',
      'bbbb: Downloading',
      'aaaa: Downloading',
      'aaaa: Pull complete',
      '',
    ].join('\n'),
  );
});

test('on a terminal each layer has one line, with a bar, that is drawn over', () => {
  assert.deepEqual(screen(written(LINES.slice(0, 4), 100)), [
    'Pulling from library/app',
    `aaaa: Downloading [${'='.repeat(20)}>${' '.repeat(19)}] 500kB/1MB`,
    `bbbb: Downloading [>${' '.repeat(39)}] 0B/4MB`,
    '',
  ]);
  assert.deepEqual(screen(written(LINES, 100)), [
    'Pulling from library/app',
    'aaaa: Pull complete',
    'bbbb: Downloading  3MB',
    '',
  ]);
  const full = screen(written(LINES.slice(0, 5), 100))[1] ?? '';
  assert.ok(full.includes(`[${'='.repeat(40)}]`), full);
});

test('no line is as long as a narrow terminal is wide, since it would become two; one that stays the same is not drawn', () => {
  for (const columns of [20, 41, 80]) {
    const rows = screen(written(LINES.slice(0, 4), columns));
    assert.equal(rows.length, 4);
    for (const row of rows.slice(1)) assert.ok(row.length < columns, `${row.length} of ${columns}: ${row}`);
  }
  const line = { id: 'aaaa', status: 'Downloading', current: '1', total: '1000000' };
  assert.equal(written([line, { ...line, current: '1' }], 80), written([line], 80));
});

test('a line that has left the screen at its top is not drawn over what is there now', () => {
  const layers = Array.from({ length: 6 }, (_, index) => ({ id: `layer${index}`, status: 'Waiting' }));
  const done = layers.map(({ id }) => ({ id, status: 'Pull complete' }));
  const rows = screen(written([...layers, ...done], 80, 5));
  // The cursor has one of the five.
  assert.deepEqual(rows, [
    ...['layer0: Waiting', 'layer1: Waiting'],
    ...[2, 3, 4, 5].map((index) => `layer${index}: Pull complete`),
    '',
  ]);
});
