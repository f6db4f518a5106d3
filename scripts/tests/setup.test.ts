/** scripts/setup, in a copy of what it reads, with a cache of its own and stand-ins for what it builds with. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  cpSync,
  existsSync,
  globSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  watch,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);
const root = fileURLToPath(new URL('../..', import.meta.url));
const NOBODY = 65534;
/** A generous bound: the whole of it is programs that are started, some thirty of them. */
const SECOND_CALL_MS_MAX = 10_000;

/** How a terminal's line is begun again. */
const CLEAR = '\r\x1b[K';

let directory: string;
let checkout: string;
let cache: string;
/** Every stand-in writes its name here. */
let built: string;

function script(path: string, text: string): void {
  mkdirSync(join(path, '..'), { recursive: true });
  writeFileSync(path, `#!/bin/sh\nset -eu\n${text}\n`);
  chmodSync(path, 0o755);
}

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'arcbox-setup-'));
  chmodSync(directory, 0o755);
  checkout = join(directory, 'checkout');
  cache = join(directory, 'cache');
  built = join(directory, 'built');
  writeFileSync(built, '');
  for (const file of ['setup', 'setup-steps', 'debian-packages', 'debian-packages-test'])
    cpSync(join(root, 'scripts', file), join(checkout, 'scripts', file));
  cpSync(join(root, 'package-lock.json'), join(checkout, 'package-lock.json'));
  cpSync(join(root, 'package.json'), join(checkout, 'package.json'));
  for (const part of ['agent', 'seccomp'])
    cpSync(join(root, 'guest', part), join(checkout, 'guest', part), { recursive: true });
  cpSync(join(root, 'packages/vm/native'), join(checkout, 'packages/vm/native'), { recursive: true });
  mkdirSync(join(checkout, 'packages/protocol/proto'), { recursive: true });
  writeFileSync(join(checkout, 'packages/protocol/package.json'), '{}');
  mkdirSync(join(checkout, 'guest/kernel'), { recursive: true });
  for (const name of globSync('*.config', { cwd: join(root, 'guest/kernel') }))
    writeFileSync(join(checkout, 'guest/kernel', name), '');
  const bin = join(directory, 'bin');
  const says = (name: string, act: string): string => `echo ${name} >>'${built}'\n${act}`;
  script(join(checkout, 'guest/kernel/build.sh'), says('kernel', 'echo kernel >"$4"'));
  // Half of it is there, then it waits until it is allowed to go on.
  script(
    join(checkout, 'guest/crun/build.sh'),
    says(
      'crun',
      `echo half >"$2"\n[ -e '${directory}/go' ] || { : >'${directory}/half'; sleep 60; }\necho whole >"$2"`,
    ),
  );
  script(join(checkout, 'guest/image/build.sh'), says('image', 'echo image >"$2/image.tar"'));
  script(join(checkout, 'guest/initramfs/build.sh'), says('boot', 'cat "$2" >"$5"'));
  script(join(checkout, 'e2e/debian-root.sh'), says('debian', 'echo debian >"$2/root.tar"'));
  script(join(checkout, 'e2e/npm-cache.sh'), says('npm', 'mkdir "$2/cache"'));
  script(join(bin, 'npm'), says('node', 'mkdir -p node_modules'));
  // make -s -C DIRECTORY OUT=DIRECTORY; makes a file of the first one's name.
  script(join(bin, 'make'), says('make', `echo built >"\${4#OUT=}/\${3##*/}"`));
  // Says that everything is installed, but what MISSING names.
  script(
    join(bin, 'dpkg-query'),
    `shift 3\nfor name; do [ "$name" = "\${MISSING:-}" ] || echo "installed $name 1.0"; done`,
  );
});
afterEach(() => rmSync(directory, { recursive: true }));

function environment(more: Readonly<Record<string, string>> = {}): NodeJS.ProcessEnv {
  const path = `${join(directory, 'bin')}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin`;
  return { PATH: path, HOME: directory, ARCBOX_CACHE: cache, TERM: 'xterm', ...more };
}

/** Of the process group: whether any of its processes is more than an exit status. */
function groupRuns(group: number): boolean {
  return readdirSync('/proc').some((pid) => {
    if (!/^\d+$/.test(pid)) return false;
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
      const [state, , processGroup] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      return Number(processGroup) === group && state !== 'Z';
    } catch {
      return false;
    }
  });
}

async function backOff(done: () => boolean): Promise<void> {
  for (let waitMs = 1; !done(); waitMs = Math.min(waitMs * 2, 50))
    await new Promise((resolve) => setTimeout(resolve, waitMs));
}

/** Set-up in a process group of its own, as far as half of a part. */
async function halfWay(words: readonly string[] = []): Promise<{ child: ChildProcess; group: number }> {
  const watching = watch(directory);
  const half = new Promise<void>((resolve) => {
    watching.on('change', (_event, name) => name === 'half' && resolve());
  });
  const child = spawn('sh', ['scripts/setup', ...words], {
    cwd: checkout,
    env: environment(),
    detached: true,
    stdio: 'ignore',
  });
  const ended = once(child, 'exit').then(() => assert.fail('set-up ended early'));
  ended.catch(() => {});
  await Promise.race([half, ended]);
  watching.close();
  return { child, group: child.pid ?? assert.fail() };
}

async function finishes(): Promise<void> {
  writeFileSync(join(directory, 'go'), '');
  await run('sh', ['scripts/setup'], { cwd: checkout, env: environment() });
  const [crun = ''] = globSync(join(cache, 'crun/*/crun'));
  assert.equal(readFileSync(crun, 'utf8'), 'whole\n');
  assert.equal(readFileSync(join(checkout, 'build/boot/initramfs'), 'utf8'), 'whole\n');
  assert.equal(existsSync(join(cache, 'tmp')), false);
}

test('somebody else than root is told the exact command, and nothing is made', async () => {
  chmodSync(directory, 0o777);
  const asked = run('sh', [join(checkout, 'scripts/setup')], {
    env: environment({ MISSING: 'gperf' }),
    ...(process.getuid?.() === 0 ? { uid: NOBODY, gid: NOBODY } : {}),
  });
  await assert.rejects(asked, (error: Error & { code?: unknown; stderr?: unknown }) => {
    assert.equal(error.code, 1);
    assert.equal(
      error.stderr,
      `arcbox set-up: some packages are missing. Install them, then run this again:
  sudo apt-get update && sudo apt-get install --yes --no-install-recommends gperf
`,
    );
    return true;
  });
  assert.equal(readFileSync(built, 'utf8'), '');
  assert.equal(existsSync(cache), false);
});

test('a part that was killed half-way is never used', async () => {
  const { child, group } = await halfWay();
  const exited = once(child, 'exit');
  process.kill(-group, 'SIGKILL');
  await exited;
  await backOff(() => !groupRuns(group));
  assert.deepEqual(globSync(join(cache, '{crun,boot}/*')), []);
  assert.equal(existsSync(join(checkout, 'build/boot')), false);
  await finishes();
});

test('set-up that is told to end takes with it what it started', async () => {
  const { child, group } = await halfWay();
  const exited = once(child, 'exit');
  child.kill('SIGTERM');
  assert.deepEqual(await exited, [130, null]);
  await backOff(() => !groupRuns(group));
  assert.deepEqual(globSync(join(cache, '{crun,boot}/*')), []);
  await finishes();
});

test('a builder that fails is said, and what it left is not used', async () => {
  writeFileSync(join(directory, 'go'), '');
  script(join(checkout, 'guest/initramfs/build.sh'), 'echo half >"$5"\necho "no room" >&2\nexit 1');
  await assert.rejects(
    run('sh', ['scripts/setup'], { cwd: checkout, env: environment() }),
    /no room\n\[.*\] boot: failed; .*\narcbox set-up: the boot assets could not be put together/,
  );
  assert.deepEqual(globSync(join(cache, 'boot/*')), []);
  assert.equal(existsSync(join(checkout, 'build/boot')), false);
});

test('a second call says nothing and builds nothing; a part is built again when what it is made from changed', async () => {
  writeFileSync(join(directory, 'go'), '');
  const setup = (): Promise<{ stdout: string; stderr: string }> =>
    run('sh', ['scripts/setup', ...(process.getuid?.() === 0 ? ['test'] : [])], {
      cwd: checkout,
      env: environment(),
    });
  const first = await setup();
  assert.equal(first.stdout, '');
  // Plain lines: no terminal is there to be drawn on.
  assert.match(first.stderr, /^(\[ *\d+ s\] .*\n)+$/);
  assert.ok(!first.stderr.includes(CLEAR));
  const before = readFileSync(built, 'utf8');
  assert.match(before, /kernel/);
  const boot = readlinkSync(join(checkout, 'build/boot'));

  const began = performance.now();
  assert.deepEqual(await setup(), { stdout: '', stderr: '' });
  assert.ok(performance.now() - began < SECOND_CALL_MS_MAX);
  assert.equal(readFileSync(built, 'utf8'), before);

  script(join(checkout, 'guest/image/build.sh'), 'echo another >"$2/image.tar"');
  const { stderr } = await setup();
  assert.deepEqual(stderr.match(/\w+(?=: built)/g), ['image', 'boot']);
  assert.notEqual(readlinkSync(join(checkout, 'build/boot')), boot);
  assert.equal(readFileSync(join(checkout, 'build/boot/image.tar'), 'utf8'), 'another\n');
});

test('on a terminal a line changes while it works, and is gone at the end', async () => {
  // Waits for the line that names it.
  const seen = join(directory, 'seen');
  script(
    join(checkout, 'guest/kernel/build.sh'),
    `: >"$3/a.o"\nuntil grep -q '] kernel ([0-9]* %, 1 files compiled)' '${seen}'; do sleep 0.05; done\necho kernel >"$4"`,
  );
  writeFileSync(join(directory, 'go'), '');
  // script(1) gives it a terminal, and writes what that shows.
  await run('script', ['--quiet', '--flush', '--return', '--command', 'sh scripts/setup', seen], {
    cwd: checkout,
    env: environment(),
  });
  const shown = readFileSync(seen, 'latin1').replaceAll(CLEAR, '<clear>');
  assert.match(shown, /<clear>\[ *\d+ s\] kernel \(\d+ %, 1 files compiled\)/);
  // After the last line that stays there is nothing that was not cleared.
  assert.match(shown, /<clear>\[ *\d+ s\] boot: built in \d+ s\r\n(?:[^\n]*<clear>)?(?:\n|Script done|$)/);
});
