/** A whole Debian: maintainer scripts, file capabilities, su, a database server, a runtime with a compiler in it. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { DEBIAN, DEBIAN_TIMEOUT_MS, importDebian } from './debian-image.ts';
import { Arcbox } from './support.ts';

let arcbox: Arcbox;
before(
  async () => {
    arcbox = new Arcbox({ ARCBOX_MACHINE_MEMORY: '1g' });
    await importDebian(arcbox);
  },
  { timeout: DEBIAN_TIMEOUT_MS },
);
after(() => arcbox[Symbol.asyncDispose]());

async function inDebian(script: string): Promise<string> {
  const { stdout, stderr, code } = await arcbox.run(['run', '--rm', DEBIAN, 'sh', '-ec', script]);
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
  const out = await inDebian(`su nobody -s /bin/sh -c 'id -un; ping -q -c 1 -W 20 127.0.0.1'`);
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
