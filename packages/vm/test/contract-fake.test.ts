import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { FakeDriver, FakeHost } from '../src/index.ts';
import { vmContract } from './contract.ts';

vmContract('the fake driver', async () => {
  const host = new FakeHost();
  const root = fs.mkdtempSync(path.join(os.tmpdir(), 'arcbox-fake-'));
  const kernel = path.join(root, 'kernel');
  fs.writeFileSync(kernel, '');
  return {
    driver: (fault) => new FakeDriver(fault === undefined ? { host } : { host, fault }),
    config: (overrides = {}) => ({
      name: 'contract',
      architecture: 'x86_64',
      vcpus: 1,
      memoryMib: 256,
      memory: { kind: 'memfd' },
      kernel,
      initramfs: kernel,
      kernelArgs: [],
      disks: [],
      nics: [],
      lifetime: { kind: 'ephemeral' },
      bootTimeoutMs: 5000,
      ...overrides,
    }),
    makeDirectory: () => fs.mkdtempSync(path.join(root, 'd-')),
    leftovers: () => [
      ...[...host.machines.keys()].map((pid) => `machine ${pid}`),
      ...fs.readdirSync(root).sort(),
    ],
    [Symbol.asyncDispose]: async () => fs.rmSync(root, { recursive: true }),
  };
});
