import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { needsMachine, wakeEarly } from '../src/wake-early.ts';

test('a run needs the default machine, unless it names another or only asks how it is called', () => {
  assert.ok(needsMachine(['run', '--rm', 'busybox', 'true']));
  assert.ok(needsMachine(['container', 'run', 'busybox']));
  for (const words of [
    [],
    ['run'],
    ['ps'],
    ['container', 'ls'],
    ['create', 'busybox'],
    ['run', '--help'],
    ['run', '--machine', 'other', 'busybox'],
    ['run', '--machine=other', 'busybox'],
  ])
    assert.ok(!needsMachine(words), words.join(' '));
});

test('the daemon is asked to start the machine; nobody waits for its answer, nor for a daemon', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'arcbox-wake-'));
  const path = join(directory, 'socket');
  try {
    await wakeEarly(path);
    const asked = Promise.withResolvers<string>();
    const server = createServer((request, response) => {
      void text(request).then((body) => {
        asked.resolve(`${request.method} ${request.url} ${request.headers['content-type']} ${body}`);
        response.end('{}');
      });
    });
    server.listen(path);
    await once(server, 'listening');
    await wakeEarly(path);
    assert.equal(
      await asked.promise,
      'POST /arcbox.v1.MachineService/Start application/json {"name":"default"}',
    );
    server.close();
    await once(server, 'close');
  } finally {
    rmSync(directory, { recursive: true });
  }
});
