/** packaging/arcbox.service: systemd understands all of it, and what it starts is a daemon that ends as it is told to. */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { Arcbox, backOff, LAUNCHER } from './support.ts';

const run = promisify(execFile);
const UNIT = fileURLToPath(new URL('../packaging/arcbox.service', import.meta.url));
const settings = new Map<string, string[]>();
for (const [, name = '', value = ''] of readFileSync(UNIT, 'utf8').matchAll(/^(\w+)=(.*)$/gm))
  settings.set(name, [...(settings.get(name) ?? []), value]);

test('systemd finds nothing to say against it', async () => {
  const root = mkdtempSync(join(tmpdir(), 'arcbox-systemd-'));
  try {
    const units = join(root, 'etc/systemd/system');
    const [program = ''] = settings.get('ExecStart')?.[0]?.split(' ') ?? [];
    mkdirSync(units, { recursive: true });
    cpSync('/usr/lib/systemd/system', join(root, 'usr/lib/systemd/system'), { recursive: true });
    cpSync(UNIT, join(units, 'arcbox.service'));
    const verify = (): Promise<{ stdout: string; stderr: string }> =>
      run('systemd-analyze', ['verify', '--man=no', `--root=${root}`, 'arcbox.service']);
    // Its program is looked for, so the rest of it is looked at, too.
    await assert.rejects(verify(), /arcbox is not executable/);
    mkdirSync(join(root, program, '..'), { recursive: true });
    writeFileSync(join(root, program), '#!/bin/sh\n');
    chmodSync(join(root, program), 0o755);
    assert.deepEqual(await verify(), { stdout: '', stderr: '' });
  } finally {
    rmSync(root, { recursive: true });
  }
});

test('what it starts is a daemon in the foreground, with its environment, that ends on SIGTERM', async () => {
  const environment = Object.fromEntries(
    (settings.get('Environment') ?? []).map((setting) => setting.split('=', 2) as [string, string]),
  );
  // systemd makes the directory that it is told to, and the daemon is pointed at it.
  assert.equal(environment.ARCBOX_HOME, `/var/lib/${settings.get('StateDirectory')?.[0]}`);
  delete environment.ARCBOX_HOME;
  await using arcbox = new Arcbox();
  const [program = '', ...words] = settings.get('ExecStart')?.[0]?.split(' ') ?? [];
  assert.equal(program, '/usr/local/bin/arcbox');
  const daemon = spawn(LAUNCHER, words, {
    env: { ...process.env, ...environment, ARCBOX_HOME: arcbox.home },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let log = '';
  daemon.stderr.on('data', (data) => {
    log += String(data);
  });
  const ended = once(daemon, 'exit');
  try {
    const socket = join(arcbox.home, 'run', 'arcbox.sock');
    await backOff(() => existsSync(socket) || daemon.exitCode !== null);
    const { code, stdout } = await arcbox.run(['daemon', 'status']);
    assert.equal(code, 0, log);
    // The launcher becomes the daemon: the process that systemd knows is the right one.
    assert.match(stdout, new RegExp(`^running, process ${daemon.pid},`));
  } finally {
    daemon.kill('SIGTERM');
  }
  assert.deepEqual(await ended, [0, null], log);
});
