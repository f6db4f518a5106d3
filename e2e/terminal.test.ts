import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { FakeServer } from '../packages/image/test/support/registry.ts';
import { Arcbox } from './support.ts';

/** A shell on a terminal of its own, and what it has printed. */
function onTerminal(
  arcbox: Arcbox,
  inner: string,
): { child: ChildProcess; seen(): string; until(text: string): Promise<void> } {
  const child = spawn('script', ['-qfec', inner, '/dev/null'], {
    env: { ...process.env, ARCBOX_HOME: arcbox.home, ARCBOX_MACHINE_MEMORY: '512m' },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  let seen = '';
  let wake: (() => void) | undefined;
  child.stdout.on('data', (data: Buffer) => {
    seen += data.toString();
    wake?.();
  });
  child.once('close', () => wake?.());
  return {
    child,
    seen: () => seen,
    async until(text) {
      while (!seen.includes(text)) {
        assert.equal(child.exitCode, null, `it ended without ${text}: ${seen}`);
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    },
  };
}

const LAUNCHER = fileURLToPath(new URL('../arcbox', import.meta.url));

/** What runs in the container: it says its size for every line, and ends on Ctrl-C. */
const PROGRAM = `trap 'echo int; exit 6' INT; stty size; while read line; do echo "got $line"; stty size; done`;

test('a terminal: raw while the container has it, with its size and its changes, and given back', async () => {
  await using arcbox = new Arcbox();
  const inner = `tty; stty rows 33 cols 111; "${LAUNCHER}" run --rm -it busybox sh -c '${PROGRAM.replaceAll("'", `'"'"'`)}'; echo "code $?"; stty -a`;
  const { child, seen, until } = onTerminal(arcbox, inner);
  await until('33 111\r\n');
  child.stdin?.write('hello\r');
  await until('got hello\r\n33 111\r\n');
  const [terminal = ''] = /\/dev\/pts\/\d+/.exec(seen()) ?? [];
  execFileSync('stty', ['-F', terminal, 'rows', '44', 'cols', '99']);
  // The change takes its way; the container is asked until it knows.
  for (let attempt = 0; !seen().includes('44 99\r\n'); attempt += 1) {
    child.stdin?.write(`again${attempt}\r`);
    await until(`got again${attempt}\r\n`);
  }
  child.stdin?.write('\x03');
  await until('int\r\n');
  await until('code 6');
  await once(child, 'close');
  assert.match(seen().slice(seen().indexOf('code 6')), / icanon /, 'the terminal is as it was');
});

test('a command that is told to end gives the terminal back first', async () => {
  await using arcbox = new Arcbox();
  const command = `exec "${LAUNCHER}" run --rm -it --name raw busybox sh -c "echo ready; sleep 1000"`;
  const { child, seen, until } = onTerminal(
    arcbox,
    `sh -c 'echo "pid $$"; ${command}'; echo "code $?"; stty -a`,
  );
  await until('ready');
  process.kill(Number(/pid (\d+)/.exec(seen())?.[1]), 'SIGTERM');
  await until('code 143');
  await once(child, 'close');
  assert.match(seen().slice(seen().indexOf('code 143')), / icanon /);
  assert.equal((await arcbox.run(['rm', '-f', 'raw'])).code, 0);
});

test('without a terminal -it says so', async () => {
  await using arcbox = new Arcbox();
  const { code, stderr } = await arcbox.run(['run', '--rm', '-it', 'busybox', 'sh']);
  assert.equal(code, 125);
  assert.match(stderr, /standard input is not a terminal/);
  await arcbox.run(['info']);
});

test('a login asks for name and password, and does not show the password', async () => {
  const wanted = `Basic ${Buffer.from('ada: secret').toString('base64')}`;
  await using registry = await FakeServer.start(({ headers }, response) => {
    const known = headers.authorization === wanted;
    response.writeHead(known ? 200 : 401, { 'www-authenticate': 'Basic realm="test"' }).end();
  });
  await using arcbox = new Arcbox();
  const inner = `DOCKER_CONFIG="${arcbox.home}/docker" "${LAUNCHER}" login ${registry.host}; echo "code $?"; stty -a`;
  const { child, seen, until } = onTerminal(arcbox, inner);
  await until('Username: ');
  child.stdin?.write('ada\r');
  await until('Password for ada');
  // A space may be part of it.
  child.stdin?.write(' secret\r');
  await until('Login Succeeded');
  await until('code 0');
  await once(child, 'close');
  assert.doesNotMatch(seen(), /secret/);
  assert.match(seen().slice(seen().indexOf('code 0')), / icanon /);
});
