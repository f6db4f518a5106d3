/** A whole Debian: maintainer scripts, file capabilities, su, a database server, a runtime with a compiler in it. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Arcbox } from './support.ts';

const SCRIPT = fileURLToPath(new URL('./debian-root.sh', import.meta.url));
/** debootstrap fetches and unpacks some two hundred packages; once for each machine. */
const BUILD_TIMEOUT_MS = 600_000;

/** The root file system as a tar, from the cache when it has been made before. */
function debianRoot(): string {
  const cache =
    process.env.ARCBOX_CACHE || join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'arcbox');
  const hash = createHash('sha256').update(readFileSync(SCRIPT)).digest('hex').slice(0, 16);
  const path = join(cache, 'debian', `${hash}.tar`);
  if (!existsSync(path)) {
    mkdirSync(join(cache, 'debian'), { recursive: true });
    execFileSync(SCRIPT, [path], { stdio: 'inherit', timeout: BUILD_TIMEOUT_MS });
  }
  return path;
}

let arcbox: Arcbox;
before(
  async () => {
    const root = debianRoot();
    arcbox = new Arcbox({ ARCBOX_MACHINE_MEMORY: '1g' });
    const { code, stderr } = await arcbox.run(['import', '-c', 'CMD ["bash"]', root, 'debian:test']);
    assert.equal(code, 0, stderr);
  },
  { timeout: BUILD_TIMEOUT_MS },
);
after(() => arcbox[Symbol.asyncDispose]());

async function inDebian(script: string): Promise<string> {
  const { stdout, stderr, code } = await arcbox.run(['run', '--rm', 'debian:test', 'sh', '-ec', script]);
  assert.equal(code, 0, stderr + stdout);
  return stdout;
}

test('apt-get installs packages, whose maintainer scripts make groups and set permissions', async () => {
  const out = await inDebian(`
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y --no-download --no-install-recommends cron >/dev/null
    dpkg -s cron | grep ^Status
    stat -c '%G %a' /usr/bin/crontab
    getcap /usr/bin/ping`);
  assert.equal(out, 'Status: install ok installed\ncrontab 2755\n/usr/bin/ping cap_net_raw=ep\n');
});

test('su changes the user, and ping has what its file’s capabilities say', async () => {
  const out = await inDebian(`su nobody -s /bin/sh -c 'id -un; ping -q -c 1 -W 5 127.0.0.1'`);
  assert.match(out, /^nobody\n.* 1 received, 0% packet loss/s);
});

test('a PostgreSQL server starts, takes statements and stops', async () => {
  const out = await inDebian(`
    pg_ctlcluster 15 main start
    su postgres -c "psql -qAtc 'create table t (a int); insert into t values (41); select a + 1 from t'"
    pg_ctlcluster 15 main stop -m fast`);
  assert.equal(out, '42\n');
});

test('Node.js runs', async () => {
  assert.equal(await inDebian(`node -e 'console.log([1, 2, 3].map((n) => n * 14).at(-1))'`), '42\n');
});
