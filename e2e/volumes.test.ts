import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Arcbox } from './support.ts';

let arcbox: Arcbox;
before(() => {
  arcbox = new Arcbox();
});
after(() => arcbox[Symbol.asyncDispose]());

const run = async (...args: string[]): Promise<string> => {
  const { stdout, stderr, code } = await arcbox.run(args);
  assert.equal(code, 0, stderr);
  return stdout;
};
const sh = (mount: string, script: string): Promise<string> =>
  run('run', '--rm', '-v', mount, 'busybox', 'sh', '-c', script);

test('what is written to a volume is there for the next container, and for two at once', async () => {
  await sh('data:/data', 'echo one > /data/file; mkdir /data/dir; chown 33:34 /data/dir');
  assert.equal(
    await sh('data:/other', 'cat /other/file; stat -c %u:%g /other/dir; ls -A /other'),
    'one\n33:34\ndir\nfile\n',
  );
  await run('run', '-d', '--name', 'writer', '-v', 'data:/data', 'busybox', 'sh', '-c', 'sleep 1000');
  assert.equal(await sh('data:/data:ro', 'touch /data/x 2>/dev/null || echo read-only'), 'read-only\n');
  assert.equal(
    await run(
      ...[
        'run',
        '--rm',
        '--volumes-from',
        'writer:ro',
        'busybox',
        'sh',
        '-c',
        'cat /data/file; touch /data/x 2>/dev/null || echo read-only',
      ],
    ),
    'one\nread-only\n',
  );
  const refused = await arcbox.run(['volume', 'rm', 'data']);
  assert.equal(await run('volume', 'ls', '-q', '-f', 'dangling=false'), 'data\n');
  assert.equal(await run('volume', 'ls', '-q', '-f', 'dangling=true'), '');
  assert.equal(await run('volume', 'inspect', '-f', '{{.Name}} {{.UsageData.RefCount}}', 'data'), 'data 1\n');
  assert.match(refused.stderr, /in use by the container writer/);
  const found = JSON.parse(await run('inspect', 'writer', 'busybox', 'data')) as {
    Name?: string;
    Size?: number;
  }[];
  assert.deepEqual(
    found.map(({ Name, Size = 0 }) => Name ?? Size > 0),
    ['/writer', true, 'data'],
  );
  const none = await arcbox.run(['inspect', 'nosuch']);
  assert.equal(none.code, 1);
  assert.match(none.stderr, /no such object: nosuch; there is no container, image, volume or network/);
  assert.equal(await run('container', 'ls', '--format', '{{.Names}}'), 'writer\n');
  await run('container', 'rm', '-f', 'writer');
  // It survives the machine, too.
  await run('machine', 'stop', 'default');
  assert.equal(await sh('data:/data', 'cat /data/file'), 'one\n');
  await run('volume', 'rm', 'data');
  assert.equal(await run('volume', 'ls', '-q'), '');
});

test('an empty volume gets what the image has there, once, also behind a link', async () => {
  assert.match(await sh('etc:/etc', 'cat /etc/passwd; echo mine > /etc/mine'), /^root:/);
  assert.equal(await sh('etc:/etc', 'cat /etc/mine; ls -ld /etc | cut -c1-10'), 'mine\ndrwxr-xr-x\n');
  assert.equal(await sh('bare:/etc:nocopy', 'ls -A /etc | grep -c passwd || true'), '0\n');
  await run('volume', 'prune', '--all', '--force');
  assert.equal(await run('volume', 'ls', '-q'), '');
});

test('tmpfs by --mount, and a clear word on what cannot be mounted', async () => {
  const out = await run(
    ...['run', '--rm', '--mount', 'type=tmpfs,target=/scratch,tmpfs-size=1m,tmpfs-mode=700', 'busybox'],
    ...['sh', '-c', 'stat -c %a /scratch; df -k /scratch | tail -1 | awk "{print \\$2}"'],
  );
  assert.equal(out, '700\n1024\n');
  const { code, stderr } = await arcbox.run(['run', '--rm', '-v', '/etc:/host', 'busybox', 'true']);
  assert.equal(code, 125);
  assert.match(stderr, /sharing files of the host .* use a volume/);
});

test('a daemon that dies around a volume leaves a true listing, and the next one goes on', async () => {
  for (const point of ['volume.record', 'volume.disk', 'volume.made']) {
    const faulty = { environment: { ARCBOX_FAULT_POINT: point } };
    await run('daemon', 'stop');
    await arcbox.run(['volume', 'create', 'fragile'], faulty);
    assert.equal(await sh('fragile:/data', 'touch /data/x; echo fine'), 'fine\n', point);
    assert.equal(await run('volume', 'ls', '-q'), 'fragile\n', point);
    await run('volume', 'rm', 'fragile');
  }
  for (const point of ['volume.removing', 'volume.unlink', 'volume.forget']) {
    await run('volume', 'create', 'fragile');
    await run('daemon', 'stop');
    await arcbox.run(['volume', 'rm', 'fragile'], { environment: { ARCBOX_FAULT_POINT: point } });
    const left = await run('volume', 'ls', '-q');
    assert.equal(left, point === 'volume.removing' ? 'fragile\n' : '', point);
    if (left !== '') await run('volume', 'rm', 'fragile');
  }
});
