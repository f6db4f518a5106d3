import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import {
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Arcbox } from './support.ts';

let arcbox: Arcbox;
let here: string;
const SETUP =
  'mkdir -p /d/sub; echo one > /d/f; chmod 4750 /d/f; chown 7:8 /d/f; ln -s f /d/link; ln -s /d /way; ln -s /etc/shadow-of-the-host /d/out; echo > /scratch/s; touch /ready; exec sleep 100000';

const run = async (...args: string[]): Promise<string> => {
  const { stdout, stderr, code } = await arcbox.run(args);
  assert.equal(code, 0, `${args.join(' ')}: ${stderr}`);
  return stdout;
};
const inBox = (script: string): Promise<string> => run('exec', 'box', 'sh', '-c', script);
const refused = async (message: RegExp, ...args: string[]): Promise<void> => {
  const { stderr, code } = await arcbox.run(args);
  assert.equal(code, 1, args.join(' '));
  assert.match(stderr, message, args.join(' '));
};

before(async () => {
  here = mkdtempSync(join(tmpdir(), 'arcbox-copy-'));
  arcbox = new Arcbox();
  await run('run', '-d', '--name', 'box', '--tmpfs', '/scratch', 'busybox', 'sh', '-c', SETUP);
  await run('exec', 'box', 'sh', '-c', 'until [ -e /ready ]; do :; done');
});
after(async () => {
  rmSync(here, { recursive: true });
  await arcbox.run(['rm', '-f', 'box']);
  await arcbox[Symbol.asyncDispose]();
});

test('out: files, directories, what is in them, links and what they lead to', async () => {
  await run('cp', 'box:/d/f', join(here, 'file'));
  assert.equal(readFileSync(join(here, 'file'), 'utf8'), 'one\n');
  assert.equal(lstatSync(join(here, 'file')).mode & 0o777, 0o750);
  assert.equal(lstatSync(join(here, 'file')).uid, process.getuid?.(), 'it belongs to who copied it');
  await run('cp', 'box:d/f', here);
  await run('cp', 'box:/d', join(here, 'new'));
  assert.deepEqual(readdirSync(join(here, 'new')).sort(), ['f', 'link', 'out', 'sub']);
  await run('cp', 'box:/d', join(here, 'new'));
  assert.ok(readdirSync(join(here, 'new')).includes('d'), 'into a directory that is there');
  await run('cp', 'box:/d/.', join(here, 'contents'));
  assert.deepEqual(readdirSync(join(here, 'contents')).sort(), ['f', 'link', 'out', 'sub']);
  await run('cp', 'box:/d/link', join(here, 'link'));
  assert.equal(readlinkSync(join(here, 'link')), 'f');
  await run('cp', '-L', 'box:/d/link', join(here, 'followed'));
  assert.equal(readFileSync(join(here, 'followed'), 'utf8'), 'one\n');
  await run('cp', 'box:/way/f', join(here, 'through'));
  assert.equal(readFileSync(join(here, 'through'), 'utf8'), 'one\n');
  await run('cp', 'box:/scratch/s', join(here, 'mounted'));
  assert.equal(readFileSync(join(here, 'mounted'), 'utf8'), '\n');
  await refused(/does not exist/, 'cp', 'box:/d/out', '-L', here);
});

test('in: as out; owners are root’s unless they are to be kept', async () => {
  const source = join(here, 'source');
  mkdirSync(join(source, 'deep'), { recursive: true });
  writeFileSync(join(source, 'deep', 'file'), 'two\n', { mode: 0o640 });
  symlinkSync('deep/file', join(source, 'link'));
  await run('cp', source, 'box:/in');
  assert.equal(
    await inBox('cd /in; find . | sort; cat link; stat -c "%a %u" deep/file'),
    '.\n./deep\n./deep/file\n./link\ntwo\n640 0\n',
  );
  await run('cp', source, 'box:/in');
  assert.equal(await inBox('cat /in/source/link'), 'two\n');
  await run('cp', `${source}/.`, 'box:/way');
  assert.equal(await inBox('cat /d/deep/file'), 'two\n', 'what is in it, through a link of the container');
  await run('cp', '-L', join(source, 'link'), 'box:/scratch/');
  assert.equal(await inBox('cat /scratch/link'), 'two\n');
  await run('cp', join(source, 'deep', 'file'), 'box:/scratch/renamed');
  assert.equal(await inBox('cat /scratch/renamed'), 'two\n');
});

test('tars on standard streams, both ways', async () => {
  const tar = execFileSync('tar', ['-c', '-C', join(here, 'source'), '--owner=7', '--group=8', 'deep']);
  const child = arcbox.spawn(['cp', '-', 'box:/tmp']);
  child.stdin?.end(tar);
  const [code] = (await once(child, 'close')) as [number | null];
  assert.equal(code, 0);
  assert.equal(await inBox('stat -c "%u:%g" /tmp/deep/file'), '7:8\n');
  const out = await run('cp', 'box:/tmp/deep', '-');
  writeFileSync(join(here, 'out.tar'), out, 'latin1');
  assert.equal(
    execFileSync('tar', ['-tf', join(here, 'out.tar')], { encoding: 'utf8' }),
    'deep/\ndeep/file\n',
  );
});

test('what cannot be copied says why', async () => {
  await refused(/\/nosuch does not exist/, 'cp', 'box:/nosuch', here);
  await refused(/the directory \/nosuch does not exist/, 'cp', join(here, 'file'), 'box:/nosuch/x');
  await refused(/over the file/, 'cp', join(here, 'source'), 'box:/d/f');
  await refused(/is not a directory/, 'cp', 'box:/d/f/', here);
  await refused(/no such container/, 'cp', 'nosuch:/x', here);
  await refused(/one of the paths/, 'cp', here, join(here, 'x'));
  await refused(/does not exist/, 'cp', join(here, 'nosuch'), 'box:/');
});

test('large files, and a container that does not run', async () => {
  await inBox('dd if=/dev/urandom of=/big bs=1M count=40 2>/dev/null');
  const sum = (await inBox('sha256sum /big')).split(' ')[0];
  await run('cp', 'box:/big', join(here, 'big'));
  const here256 = execFileSync('sha256sum', [join(here, 'big')], { encoding: 'utf8' }).split(' ')[0];
  assert.equal(here256, sum);
  await run('create', '--name', 'never', 'busybox', 'sh', '-c', 'sha256sum /in/big; cat /note');
  await run('cp', join(here, 'big'), 'box:/big2');
  writeFileSync(join(here, 'note'), 'before its start\n');
  await run('cp', join(here, 'note'), 'never:/note');
  await run('cp', 'never:/etc/passwd', join(here, 'passwd'));
  assert.match(readFileSync(join(here, 'passwd'), 'utf8'), /^root:/);
  mkdirSync(join(here, 'in'));
  execFileSync('mv', [join(here, 'big'), join(here, 'in')]);
  await run('cp', join(here, 'in'), 'never:/');
  const started = await arcbox.run(['start', '-a', 'never']);
  assert.equal(started.stdout, `${sum}  /in/big\nbefore its start\n`);
  await run('cp', 'never:/note', join(here, 'after'));
  assert.equal(readFileSync(join(here, 'after'), 'utf8'), 'before its start\n');
  await run('rm', 'never');
});

test('diff, export and commit: an image that goes on where the container was', async () => {
  await run(
    'run',
    '-d',
    '--name',
    'work',
    '-e',
    'A=1',
    'busybox',
    'sh',
    '-c',
    'echo new > /new; rm /etc/group; rm -r /var; mkdir /var; echo x > /var/only; exec sleep 100000',
  );
  await run('exec', 'work', 'sh', '-c', 'until [ -e /var/only ]; do :; done');
  const changes = (await run('diff', 'work')).split('\n');
  for (const line of ['A /new', 'C /etc', 'D /etc/group', 'A /var/only'])
    assert.ok(changes.includes(line), line);
  assert.ok(!changes.some((line) => /hosts|resolv|\/proc|\/dev/.test(line)), changes.join(', '));
  const tar = join(here, 'root.tar');
  await run('export', '-o', tar, 'work');
  const names = execFileSync('tar', ['-tf', tar], { encoding: 'utf8' });
  assert.match(names, /^new$/m);
  assert.doesNotMatch(names, /^etc\/group$/m);
  const id = (
    await run(
      'commit',
      '-m',
      'note',
      '-a',
      'me',
      '-c',
      'CMD ["sh", "-c", "echo $A; cat /new; ls /var /etc/group"]',
      'work',
      'made:1',
    )
  ).trim();
  assert.match(id, /^sha256:[0-9a-f]{64}$/);
  assert.equal(
    await run('inspect', '-f', '{{.State.Status}}', 'work'),
    'running\n',
    'it goes on after it stood still',
  );
  const made = await arcbox.run(['run', '--rm', 'made:1']);
  assert.equal(made.stdout, '1\nnew\n/var:\nonly\n');
  assert.match(
    made.stderr,
    /group: No such file/,
    'what was deleted is, and what a new directory hid stays hidden',
  );
  await run('rm', '-f', 'work');
  assert.equal(await run('run', '--rm', 'made:1', 'cat', '/new'), 'new\n');
});

test('a container that does not run has its volumes, where links lead to within it', async () => {
  const setup = 'mkdir /srv; ln -s /srv /way; ln -s ../../../../m /outside; echo image > /srv/from-image';
  await run('run', '--name', 'base', 'busybox', 'sh', '-c', setup);
  await run('commit', 'base', 'linked');
  await run('rm', 'base');
  const mounts = ['-v', 'vol:/way/data', '-v', 'vol:/outside/x', '-v', 'other:/ro:ro'];
  await run('create', '--name', 'still', ...mounts, 'linked', 'cat', '/srv/data/file', '/m/x/file');
  writeFileSync(join(here, 'volume-file'), 'in the volume\n');
  await run('cp', join(here, 'volume-file'), 'still:/way/data/file');
  await run('cp', 'still:/srv/data/file', join(here, 'back'));
  assert.equal(readFileSync(join(here, 'back'), 'utf8'), 'in the volume\n');
  assert.equal(await run('run', '--rm', '-v', 'vol:/v', 'busybox', 'cat', '/v/file'), 'in the volume\n');
  // Whatever is still on its way: the reason arrives.
  writeFileSync(join(here, 'much'), Buffer.alloc(32 * 2 ** 20));
  const why = /the mount \/ro of the container still is read-only/;
  for (const name of ['volume-file', 'much']) await refused(why, 'cp', join(here, name), 'still:/ro/file');
  assert.equal(await run('start', '-a', 'still'), 'in the volume\nin the volume\n');
  await run('cp', 'still:/srv', join(here, 'srv'));
  assert.deepEqual(readdirSync(join(here, 'srv')).sort(), ['data', 'from-image']);
  assert.deepEqual(readdirSync(join(here, 'srv', 'data')), ['file']);
  await run('export', '-o', join(here, 'still.tar'), 'still');
  const exported = execFileSync('tar', ['-tf', join(here, 'still.tar')], { encoding: 'utf8' });
  assert.doesNotMatch(exported, /data\/file/, 'an export has no volumes');
  await run('rm', 'still');
  await run('volume', 'rm', 'vol', 'other');
  await run('rmi', 'linked');
});
