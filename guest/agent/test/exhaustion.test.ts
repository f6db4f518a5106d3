/** Nothing is left of an operation that runs out of descriptors, whichever of its steps it was. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { AgentOpError, Archive_Mode, type OpInput } from '@arcbox/protocol';
import { eventually } from './support/eventually.ts';
import { HostAgent } from './support/host-agent.ts';
import { shell } from './support/run.ts';
import { test } from './support/test.ts';

/** No operation takes more descriptors than this, in the agent and in what it forks. */
const STEPS = 20;
const ENOUGH = 1000;

test('an operation without descriptors fails and leaves none', async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const path = agent.path('listener');
  const server = net.createServer((socket) => socket.on('error', () => {}).resume());
  await new Promise<void>((resolve) => server.listen(agent.path('server'), resolve));
  server.unref();
  mkdirSync(agent.path('root'));
  writeFileSync(agent.path('file'), 'content');
  const id = 'x';
  const tree = agent.path('tree/a/b');
  const ops: OpInput[] = [
    shell('true', { id, stdin: true }),
    shell('true', { id, tty: true, stdin: true }),
    shell('true', {
      id,
      tty: true,
      stdin: true,
      adoptPidFile: agent.path('pid'),
      consoleSocket: agent.path('tty'),
    }),
    { case: 'execIn', value: { targetPid: process.pid, spawn: shell('true', { id, tty: true }).value } },
    { case: 'archive', value: { id, mode: Archive_Mode.PACK, root: agent.path('root'), path: '/' } },
    { case: 'archive', value: { id, mode: Archive_Mode.UNPACK, root: agent.path('root'), path: '/' } },
    { case: 'connect', value: { id, address: { case: 'unixPath', value: agent.path('server') } } },
    { case: 'listen', value: { id, address: { case: 'unixPath', value: path } } },
    { case: 'watch', value: { id, path: agent.directory, mask: 0x100 } },
    { case: 'netlink', value: { protocol: 0, request: Buffer.alloc(16), netnsPid: process.pid } },
    { case: 'waitDevice', value: { match: { case: 'serial', value: 'none' }, timeoutMs: 1 } },
    { case: 'remove', value: { path: agent.path('tree'), recursive: true, missingOk: true } },
    { case: 'read', value: { path: agent.path('file') } },
    { case: 'list', value: { path: agent.directory } },
    ...(existsSync('/dev/fuse')
      ? [{ case: 'fuseRelay', value: { id, target: agent.path('root') } } satisfies OpInput]
      : []),
  ];
  const limit = (soft: number): void => {
    execFileSync('prlimit', ['--pid', String(agent.pid), `--nofile=${soft}:`]);
  };
  const before = agent.descriptors();
  for (const op of ops) {
    let failures = 0;
    // Below what is open, since a number in between may be free.
    for (let more = -3; more <= STEPS; more++) {
      mkdirSync(tree, { recursive: true });
      limit(before.length + more);
      const error = await client.batch([op]).then(
        () => undefined,
        (reason: unknown) => reason,
      );
      limit(ENOUGH);
      assert.ok(error === undefined || error instanceof AgentOpError, String(error));
      if (error !== undefined) failures++;
      await client.batch([{ case: 'release', value: { id, missingOk: true } }]);
      await eventually(() => {
        assert.deepEqual(agent.descriptors(), before, `${op.case} with ${more} descriptors`);
        assert.deepEqual(agent.children(), [], `${op.case} with ${more} descriptors`);
      });
    }
    assert.ok(failures > 0, `${op.case} never ran out of descriptors`);
    rmSync(path, { force: true });
  }
  server.close();
});
