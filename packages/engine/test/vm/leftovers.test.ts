import assert from 'node:assert/strict';
import { mkdtemp, readdir, readlink, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { QemuDriver } from '@arcbox/vm';
import {
  bootAssetsFromEnvironment,
  type ContainerManager,
  HostLayout,
  loadConfig,
  Runtime,
  SILENT,
} from '../../src/index.ts';
import type { UpMachine } from '../../src/machine/machine.ts';
import { collect } from '../support/fake-runtime.ts';

const CONTAINERS = 20;
const SETTLE_MS = 10_000;

/** What there is in the guest that containers could have left. */
async function inventory(up: UpMachine): Promise<Record<string, unknown>> {
  const results = await up.agent.batch([
    { case: 'listObjects', value: {} },
    { case: 'read', value: { path: '/proc/self/mounts' } },
    { case: 'list', value: { path: '/run/c' } },
    { case: 'list', value: { path: '/run/crun' } },
    { case: 'list', value: { path: '/m/c' } },
    { case: 'list', value: { path: '/sys/fs/cgroup/arcbox' } },
  ]);
  const [objects, mounts, ...rest] = results.map(({ result }) => result);
  const directories = rest.flatMap((result) =>
    result.case === 'list'
      ? [result.value.entries.filter(({ type }) => type === 4).map(({ name }) => name)]
      : [],
  );
  return {
    objects: objects?.case === 'objects' ? objects.value.objects.map(({ id }) => id) : undefined,
    mounts:
      mounts?.case === 'data' ? Buffer.from(mounts.value.data).toString().split('\n').length : undefined,
    directories,
    processes: await processes(up),
    disks: up.vm.hotDisks.map(({ id }) => id),
  };
}

/** Command lines of what runs in the guest; kernel threads have none. */
async function processes(up: UpMachine): Promise<string[]> {
  const [listing] = await up.agent.batch([{ case: 'list', value: { path: '/proc' } }]);
  const names = listing?.result.case === 'list' ? listing.result.value.entries.map(({ name }) => name) : [];
  const commands = await Promise.all(
    names
      .filter((name) => /^\d+$/.test(name))
      .map(async (pid) => {
        try {
          const [read] = await up.agent.batch([{ case: 'read', value: { path: `/proc/${pid}/cmdline` } }]);
          return read?.result.case === 'data' ? Buffer.from(read.result.value.data).toString() : '';
        } catch {
          // A kernel thread that has just ended.
          return '';
        }
      }),
  );
  return commands.filter((command) => command !== '').sort();
}

/** Open files of this process that are no pipes or internals of Node's. */
async function openFiles(): Promise<string[]> {
  const links = await Promise.all(
    (await readdir('/proc/self/fd')).map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => '')),
  );
  return links
    .filter((link) => link.startsWith('/') && !link.startsWith('/dev') && !link.startsWith('/proc'))
    .sort();
}

async function one(containers: ContainerManager): Promise<void> {
  const { id } = await containers.create({
    image: 'busybox',
    command: ['sh', '-c', 'echo hi > /file; cat /file; exit 3'],
  });
  await using attachment = await containers.attach(id);
  await containers.start(id);
  assert.equal((await collect(attachment)).out, 'hi\n');
  assert.equal((await attachment.exited).exitCode, 3);
  await attachment.close();
  await containers.remove(id);
  await containers.drain();
}

test(`${CONTAINERS} containers leave nothing: no object, mount, disk, process, directory or open file`, async () => {
  const home = await mkdtemp(join(tmpdir(), 'arcbox-vm-'));
  try {
    const layout = new HostLayout(home);
    await layout.prepare();
    const assets = await bootAssetsFromEnvironment(process.env);
    const config = await loadConfig({
      environment: { ARCBOX_MACHINE_MEMORY: '512m', ARCBOX_MACHINE_CPUS: '1', ARCBOX_ORPHAN_GRACE_S: '0' },
      file: layout.configFile,
    });
    const driver = await QemuDriver.detect({ runRoot: layout.run, bootDirectory: assets.directory });
    await using runtime = new Runtime({ layout, config, assets, driver, logger: SILENT });
    const containers = await runtime.containers();
    await one(containers);
    const up = await runtime.machine('default').ensure();
    const [before, filesBefore] = [await inventory(up), await openFiles()];
    for (let n = 0; n < CONTAINERS; n += 1) await one(containers);
    // All at once, too.
    await Promise.all(Array.from({ length: 5 }, () => one(containers)));
    // The kernel of the guest takes some things down behind the back of who told it to.
    const endMs = performance.now() + SETTLE_MS;
    let found = await inventory(up);
    for (let waitMs = 1; !isDeepStrictEqual(found, before) && performance.now() < endMs; waitMs *= 2) {
      await new Promise((resolve) => setTimeout(resolve, waitMs));
      found = await inventory(up);
    }
    assert.deepEqual(found, before);
    assert.deepEqual(await openFiles(), filesBefore);
    assert.deepEqual(await readdir(layout.containers), []);
  } finally {
    await rm(home, { recursive: true, force: true });
  }
});
