/**
 * Operations at random, well-formed but for their values, on a few names: objects that are released as they start,
 * signals to what has ended, directories where files were. Nothing is expected of the answers; the agent has to live
 * on, say nothing of a sanitizer, and hold nothing in the end. Paths lead nowhere but to the test's directory.
 */
import assert from 'node:assert/strict';
import { AgentOpError, Archive_Mode, type OpInput } from '@arcbox/protocol';
import fc from 'fast-check';
import { HostAgent } from './support/host-agent.ts';
import { Gathered } from './support/run.ts';
import { test } from './support/test.ts';

const SEED = 20261122;
const RUNS = 40;
/** Kinds of operations that have to get through at least once; which ones depends on the time some take. */
const REACHED_MIN = 18;
const OPS_MAX = 12;
const IDS = ['a', 'b', 'c'] as const;
/** Every round begins with the directory `x` and the file `w`. */
const NAMES = ['x', 'x/y', 'x/y/z', 'w', 'x//y/', 'x/../w'];
const ODD_NAMES = ['none/such', '', 'n'.repeat(256), 'n/'.repeat(2048)];
const S_IFIFO = 0o010000;
const S_IFREG = 0o100000;

/** One of the first, now and then one of the others. */
function often<Value>(usual: readonly Value[], odd: readonly Value[]): fc.Arbitrary<Value> {
  return fc.oneof(
    { weight: 9, arbitrary: fc.constantFrom(...usual) },
    { weight: 1, arbitrary: fc.constantFrom(...odd) },
  );
}

function operations(directory: string): fc.Arbitrary<OpInput> {
  const id = often(IDS, ['', 'i'.repeat(65)]);
  const path = often(NAMES, ODD_NAMES).map((name) => (name === '' ? '' : `${directory}/${name}`));
  const inside = fc.constantFrom(`${directory}/x`, `${directory}/w`, 'x', 'nowhere', '');
  const flag = fc.boolean();
  const mode = fc.nat(0o7777);
  const number = fc.oneof(fc.nat(3), fc.constantFrom(0x7fffffff, 0xffffffff), fc.nat(0xffffffff));
  const large = fc.oneof(fc.bigInt(0n, 100n), fc.constantFrom(2n ** 63n - 1n, 2n ** 63n, 2n ** 64n - 1n));
  const data = fc.oneof(fc.uint8Array({ maxLength: 100 }), fc.constant(new Uint8Array(100_000)));
  const text = fc.string({ maxLength: 20, unit: 'grapheme' }).map((value) => value.replaceAll('\0', ''));
  const size = fc.record({ rows: number, columns: number });
  const argv = often(
    [['true'], ['sh', '-c', 'echo out; echo err >&2; exit 3'], ['cat'], ['sleep', '9']],
    [['none'], []],
  );
  const env = often([['PATH=/bin:/usr/bin'], []], [['PATH='], ['no equals']]);
  const address = fc.oneof(
    path.map((value) => ({ case: 'unixPath', value: value.slice(0, 4096) }) as const),
    fc
      .record({ host: fc.constantFrom('127.0.0.1', '::1', 'x', ''), port: fc.constantFrom(0, 1, 70_000) })
      .map((value) => ({ case: 'tcp', value }) as const),
    fc.record({ cid: number, port: number }).map((value) => ({ case: 'vsock', value }) as const),
  );
  const spawn = fc.record({
    id,
    argv,
    env,
    cwd: often(['/', '', directory], ['/none']),
    uid: fc.nat(3),
    gid: fc.nat(3),
    groups: fc.array(number, { maxLength: 4 }),
    stdin: flag,
    tty: flag,
    size,
    adoptPidFile: often([''], [`${directory}/w`]),
    consoleSocket: often([''], [`${directory}/tty`]),
  });
  // RTM_GETLINK and RTM_GETADDR, whole or not.
  const netlink = fc
    .tuple(
      fc.constantFrom(18, 22),
      often([0x301, 0x305], [0, 5, 0x7ff]),
      often([32], [0, 16, 40]),
      often([32], [0, 15, 16, 40]),
    )
    .map(([type, flags, length, bytes]) => {
      const request = Buffer.alloc(bytes);
      if (bytes >= 16) {
        request.writeUInt32LE(length, 0);
        request.writeUInt16LE(type, 4);
        request.writeUInt16LE(flags, 6);
      }
      return request;
    });
  const shapes: { [Case in OpInput['case'] & string]?: fc.Arbitrary<(OpInput & { case: Case })['value']> } = {
    mkdir: fc.record({ path, mode, parents: flag }),
    rename: fc.record({ from: path, to: path }),
    remove: fc.record({ path, recursive: flag, missingOk: flag }),
    chmod: fc.record({ path, mode }),
    chown: fc.record({ path, uid: fc.nat(9), gid: fc.nat(9), noFollow: flag }),
    symlink: fc.record({ target: inside, path }),
    mknod: fc.record({
      path,
      mode: mode.chain((bits) => fc.constantFrom(S_IFIFO | bits, S_IFREG | bits)),
      major: number,
      minor: number,
    }),
    setXattr: fc.record({ path, name: often(['trusted.x'], ['', 'x', 'user.']), value: data, remove: flag }),
    getXattr: fc.record({ path, name: often(['trusted.x'], ['', 'x', 'user.']) }),
    stat: fc.record({ path, follow: flag }),
    list: fc.record({ path }),
    read: fc.record({
      path,
      offset: often([0n, 1n], [2n ** 63n - 1n, 2n ** 63n, 2n ** 64n - 1n]),
      limit: often([0, 1, 1 << 20], [0xffffffff]),
    }),
    write: fc.record(
      { path, data, append: flag, truncate: flag, create: flag, mode, sync: flag },
      { requiredKeys: ['path'] },
    ),
    unmount: fc.record({ target: path, detach: flag }),
    waitDevice: fc.record({
      match: fc.oneof(
        text.map((value) => ({ case: 'serial', value }) as const),
        number.map((value) => ({ case: 'scsiLun', value }) as const),
      ),
      timeoutMs: fc.constantFrom(1, 2),
    }),
    spawn,
    execIn: fc.record({
      spawn,
      targetPid: often([process.pid], [-1, 0, 1]),
      cgroup: often([''], ['/sys/fs/cgroup/none', '/x']),
      capabilities: large,
      keepAllCapabilities: flag,
      seccompBpf: often([''], [`${directory}/w`]),
      noNewPrivs: flag,
      rlimits: fc.array(
        fc.record({
          resource: often([7], [99]),
          soft: often([64n], [2n ** 64n - 1n]),
          hard: often([64n], [1n]),
        }),
        { maxLength: 2 },
      ),
    }),
    signal: fc.record({
      id,
      signal: fc.constantFrom(0, 9, 15, 18, 19, -1, 64, 65),
      group: flag,
      cgroup: fc.constantFrom('', '/x', '/sys/fs/cgroup/none'),
    }),
    resize: fc.record({ id, size }),
    release: fc.record({ id, missingOk: flag }),
    listObjects: fc.constant({}),
    archive: fc.record({
      id,
      mode: fc.constantFrom(Archive_Mode.PACK, Archive_Mode.UNPACK, Archive_Mode.UNSPECIFIED),
      root: path.filter((value) => value !== ''),
      path: often(['', '/'], ['/y', '..']),
      noOverwriteDirNonDir: flag,
      numericOwnerRoot: flag,
      baseName: text,
    }),
    connect: fc.record({ id, address, timeoutMs: fc.constantFrom(1, 5) }),
    listen: fc.record({ id, address, backlog: number }),
    watch: fc.record({ id, path, mask: fc.nat(0xfff) }),
    netlink: fc.record({
      protocol: fc.constantFrom(0, 99),
      request: netlink,
      netnsPid: fc.constantFrom(0, -1, process.pid),
    }),
    stats: fc.record({ cgroup: fc.constantFrom('', '/x', '/sys/fs/cgroup', '/sys/fs/cgroup/none') }),
    sync: fc.constant({}),
  };
  return fc.oneof(
    ...Object.entries(shapes).map(([name, shape]) =>
      (shape as fc.Arbitrary<unknown>).map((value) => ({ case: name, value }) as OpInput),
    ),
  );
}

test(`${RUNS} rounds of random operations from seed ${SEED}`, async () => {
  await using agent = await HostAgent.start();
  await using client = await agent.connect();
  const reached = new Set<string>();
  await fc.assert(
    fc.asyncProperty(
      fc.array(operations(agent.directory), { minLength: 1, maxLength: OPS_MAX }),
      fc.boolean(),
      async (ops, attach) => {
        await client.batch([
          { case: 'mkdir', value: { path: `${agent.directory}/x`, mode: 0o755 } },
          { case: 'write', value: { path: `${agent.directory}/w`, data: Buffer.from('12\n'), create: true } },
        ]);
        // Each on its own: one that fails does not end the round.
        const answers = ops.map(async (op) => {
          try {
            await client.batch([op], { timeoutMs: 60_000 });
            reached.add(op.case ?? '');
          } catch (error) {
            assert.ok(error instanceof AgentOpError, String(error));
          }
        });
        for (const id of attach ? IDS : []) {
          const gathered = await Gathered.attach(client, id).catch(() => undefined);
          gathered?.attachment.write(Buffer.from('input'), { eof: true }).catch(() => {});
        }
        await Promise.all(answers);
        const clean = (name: string): OpInput => ({
          case: 'remove',
          value: { path: `${agent.directory}/${name}`, recursive: true, missingOk: true },
        });
        await client.batch([
          ...IDS.map((id): OpInput => ({ case: 'release', value: { id, missingOk: true } })),
          ...['x', 'w', 'tty'].map(clean),
        ]);
        agent.assertAlive();
      },
    ),
    { seed: SEED, numRuns: RUNS, endOnFailure: true },
  );
  assert.ok(reached.size >= REACHED_MIN, `only these got through: ${[...reached].sort()}`);
});
