/** Guest memory: what the guest frees goes back to the host, and clones leave their template alone. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { RunningVm, VmInspect } from '../../src/index.ts';
import { QemuHarness } from './harness.ts';

const MIB = 1024 * 1024;
const TIMEOUT_MS = 90_000;
const FILE_MIB = 96;

describe('guest memory', () => {
  let harness: QemuHarness;
  before(() => {
    harness = new QemuHarness();
  });
  after(() => harness[Symbol.asyncDispose]());

  it('goes back to the host when the guest frees it', async () => {
    const prepared = await harness.driver().create(harness.config());
    await using vm = await prepared.boot();
    const idle = await vm.inspect();
    await fill(vm);
    const full = await vm.inspect();
    assert.ok(full.guestRamPssBytes > idle.guestRamPssBytes + FILE_MIB * 0.9 * MIB);
    await empty(vm);
    await until(vm, ({ pssBytes }) => pssBytes < idle.pssBytes * 1.1 + 8 * MIB);
  });

  it('of a clone goes back too, and the template stays as it was', async () => {
    const directory = harness.makeDirectory();
    const ram = path.join(directory, 'ram');
    const driver = harness.driver();
    const prepared = await driver.create(harness.config({ memory: { kind: 'template', path: ram } }));
    const template = await prepared.boot();
    // Pages that are in use in the template and that a clone frees.
    await fill(template);
    const snapshot = await template.snapshot(directory);
    await template.kill();
    const hash = hashOf(ram);
    const options = { lifetime: { kind: 'ephemeral' }, timeoutMs: TIMEOUT_MS } as const;
    await using clone = await driver.restore(snapshot, { ...options, name: 'clone' });
    const before = await clone.inspect();
    await empty(clone);
    // Written, so private to the clone; then freed.
    await fill(clone);
    await until(
      clone,
      ({ guestRamPssBytes }) => guestRamPssBytes > before.guestRamPssBytes + FILE_MIB * 0.8 * MIB,
    );
    await empty(clone);
    await until(
      clone,
      ({ guestRamPssBytes }) => guestRamPssBytes < before.guestRamPssBytes + FILE_MIB * 0.4 * MIB,
    );
    assert.equal(hashOf(ram), hash, "a clone changed its template's memory");
    await using other = await driver.restore(snapshot, { ...options, name: 'other' });
    const agent = await other.openAgent();
    const [answer] = await agent.batch([
      { case: 'read', value: { path: '/run/big', offset: (FILE_MIB - 1) * MIB } },
    ]);
    assert.ok(answer?.result.case === 'data');
    assert.ok(Buffer.from(answer.result.value.data).equals(Buffer.alloc(MIB, FILE_MIB)));
    await Promise.all([clone.kill(), other.kill()]);
    fs.rmSync(directory, { recursive: true });
  });
});

async function fill(vm: RunningVm): Promise<void> {
  const agent = await vm.openAgent();
  for (let i = 1; i <= FILE_MIB; i++) {
    const write = { path: '/run/big', data: Buffer.alloc(MIB, i), append: true, create: true };
    await agent.batch([{ case: 'write', value: write }]);
  }
}

async function empty(vm: RunningVm): Promise<void> {
  const agent = await vm.openAgent();
  await agent.batch([{ case: 'remove', value: { path: '/run/big' } }]);
}

async function until(vm: RunningVm, done: (now: VmInspect) => boolean): Promise<void> {
  const end = performance.now() + TIMEOUT_MS;
  for (let waitMs = 1; ; waitMs = Math.min(waitMs * 2, 200)) {
    const now = await vm.inspect();
    if (done(now)) return;
    assert.ok(performance.now() < end, `it did not come to that: ${JSON.stringify(now)}`);
    await new Promise<void>((resolve) => setTimeout(resolve, waitMs));
  }
}

function hashOf(file: string): string {
  return createHash('sha256').update(fs.readFileSync(file)).digest('hex');
}
