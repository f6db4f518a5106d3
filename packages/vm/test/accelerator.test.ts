import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { probeAccelerator, probeKvm, VmError } from '../src/index.ts';

describe('the accelerator', () => {
  let directory: string;
  let kvmProbe: string;
  let runs: string;
  before(() => {
    directory = fs.mkdtempSync(path.join(os.tmpdir(), 'arcbox-accel-'));
    kvmProbe = path.join(directory, 'probe');
    runs = path.join(directory, 'runs');
  });
  beforeEach(() => fs.writeFileSync(runs, ''));
  after(() => fs.rmSync(directory, { recursive: true }));
  const says = (line: string, exit = 0): void => {
    fs.writeFileSync(kvmProbe, `#!/bin/sh\necho run >>${runs}\necho '${line}'\nexit ${exit}\n`, {
      mode: 0o755,
    });
  };
  const good = '{"ok":true,"reason":"good","api_version":12,"ms":1.5,"tsc_khz":2000000}';
  const bad = '{"ok":false,"reason":"too slow","api_version":12,"ms":1.5,"tsc_khz":0}';

  it('is KVM when the probe found it good, and TCG with the reason when not', async () => {
    says(good);
    assert.deepEqual(await probeAccelerator({ kvmProbe, env: {} }), {
      accelerator: 'kvm',
      reason: 'good',
      tscKhz: 2_000_000,
    });
    says(bad);
    assert.deepEqual(await probeAccelerator({ kvmProbe, env: {} }), {
      accelerator: 'tcg',
      reason: 'KVM is not usable here: too slow',
      tscKhz: undefined,
    });
    assert.equal((await probeAccelerator({ kvmProbe, env: {}, platform: 'darwin' })).accelerator, 'hvf');
  });

  it('is what ARCBOX_ACCEL says', async () => {
    says(bad);
    const { accelerator, reason } = await probeAccelerator({ kvmProbe, env: { ARCBOX_ACCEL: 'kvm' } });
    assert.equal(accelerator, 'kvm');
    assert.match(reason, /ARCBOX_ACCEL/);
    await assert.rejects(
      probeAccelerator({ kvmProbe, env: { ARCBOX_ACCEL: 'magic' } }),
      (error) => error instanceof VmError && error.code === 'ERR_ARCBOX_VM_CONFIG',
    );
  });

  it('is TCG when the probe cannot be run or says nonsense', async () => {
    for (const line of ['', 'nonsense', '[]', '{"ok":1}']) {
      says(line);
      const { ok, reason } = await probeKvm(kvmProbe);
      assert.equal(ok, false);
      assert.match(reason, /failed/);
    }
    says(good, 1);
    assert.equal((await probeKvm(kvmProbe)).ok, false);
    assert.equal((await probeKvm(path.join(directory, 'none'))).ok, false);
  });

  it('is probed once while host and program stay the same', async () => {
    says(good);
    const cachePath = path.join(directory, 'cache.json');
    const first = await probeKvm(kvmProbe, cachePath);
    assert.deepEqual(await probeKvm(kvmProbe, cachePath), first);
    assert.equal(fs.readFileSync(runs, 'utf8'), 'run\n');
    fs.utimesSync(kvmProbe, 1, 1);
    await probeKvm(kvmProbe, cachePath);
    fs.writeFileSync(cachePath, 'nonsense');
    await probeKvm(kvmProbe, cachePath);
    assert.equal(fs.readFileSync(runs, 'utf8'), 'run\n'.repeat(3));
    const nowhere = path.join(directory, 'none', 'cache.json');
    assert.equal((await probeKvm(kvmProbe, nowhere)).ok, true, 'an answer that cannot be kept is an answer');
  });
});
