# Continues vm.py: disks, containers, exec. Run by it when crun was given.
def sh(script, check=True, **kw):
    c.batch(spawn('sh', 'sh', '-c', script, env=ENV, **kw))
    out, err = c.output('sh')
    w = c.wait('sh')
    c.batch(release('sh'))
    if check:
        assert w.code == 0, (w, out, err)
    return out.decode()


t = time.time()
r = c.batch(pb.Op(wait_device=pb.WaitDevice(serial='disk-one')))
print('disk', r[0].device.path, f'{(time.time() - t) * 1000:.1f} ms')
t = time.time()
c.batch(pb.Op(mount=pb.Mount(source=r[0].device.path, target='/disk', type='ext4', mkdir_target=True)),
        pb.Op(write=pb.Write(path='/disk/a', data=b'x' * 100000, create=True, sync=True)))
print(f'mount ext4 and fsync {(time.time() - t) * 1000:.1f} ms')
c.batch(pb.Op(unmount=pb.Unmount(target='/disk')))
print(sh('grep -c . /proc/mounts'))
# a disk that comes while we wait
import json
qmp = socket.socket(socket.AF_UNIX); qmp.connect(dir + '/qmp'); qf = qmp.makefile('rw')


def monitor(command, **arguments):
    qf.write(json.dumps({'execute': command, 'arguments': arguments})); qf.flush()
    while True:
        answer = json.loads(qf.readline())
        if 'return' in answer or 'error' in answer:
            assert 'return' in answer, answer
            return answer['return']


qf.readline()
monitor('qmp_capabilities')
with open(dir + '/hot', 'wb') as f:
    f.truncate(8 << 20)
subprocess.check_call(['mkfs.ext4', '-q', '-F', dir + '/hot'])
for lun in (0, 3):
    w = c.begin('Batch', pb.BatchRequest(ops=[pb.Op(wait_device=pb.WaitDevice(scsi_lun=lun)), pb.Op(mount=pb.Mount(source='/dev/disk', target='/x'))]))
    c.op(stat=pb.Stat(path='/'))  # others go on
    t = time.time()
    monitor('blockdev-add', **{'driver': 'file', 'node-name': f'n{lun}', 'filename': dir + '/hot', 'read-only': True})
    monitor('device_add', driver='scsi-hd', bus='scsi.0', lun=lun, drive=f'n{lun}', id=f'hot{lun}')
    r = c.finish(w, pb.BatchResponse).results
    print('hot disk', r[0].device.path, f'{(time.time() - t) * 1000:.1f} ms', r[1].error)
    c.batch(pb.Op(mount=pb.Mount(source=r[0].device.path, target='/hot', type='ext4', flags=1, mkdir_target=True)), pb.Op(unmount=pb.Unmount(target='/hot')))
    monitor('device_del', id=f'hot{lun}')
r = c.batch_raw(pb.Op(wait_device=pb.WaitDevice(scsi_lun=9, timeout_ms=30)))
print(r[0].error)
# pivot_root works from here
print(sh('mkdir -p /tmp/p && unshare -m sh -c "mount -t tmpfs t /tmp/p && mkdir /tmp/p/old && cd /tmp/p && pivot_root . old && echo pivoted"'))
t = time.time()
n = 20
for i in range(n):
    c.batch(pb.Op(unmount=pb.Unmount(target='/x', detach=True)) if i else pb.Op(mkdir=pb.Mkdir(path='/x', parents=True)), pb.Op(mount=pb.Mount(source='t', target='/x', type='tmpfs')))
print(f'mount + unmount tmpfs {(time.time() - t) / n * 1000:.2f} ms')
t = time.time()
for i in range(n):
    c.batch(pb.Op(sync=pb.Sync()))
print(f'a job (sync) {(time.time() - t) / n * 1000:.2f} ms')
# a container
import json
bundle = '/run/b'
c.batch(pb.Op(mkdir=pb.Mkdir(path=bundle + '/rootfs/bin', mode=0o755, parents=True)),
        *[pb.Op(mkdir=pb.Mkdir(path=bundle + '/rootfs/' + d, mode=0o755)) for d in ('proc', 'sys', 'dev', 'tmp', 'etc')])
sh(f'cp /bin/busybox {bundle}/rootfs/bin/; for i in $(busybox --list); do ln -s busybox {bundle}/rootfs/bin/$i 2>/dev/null; done; echo root:x:0:0:root:/:/bin/sh > {bundle}/rootfs/etc/passwd')


def config(terminal, args):
    return json.dumps({
        'ociVersion': '1.0.2', 'root': {'path': 'rootfs'},
        'process': {'terminal': terminal, 'user': {'uid': 0, 'gid': 0}, 'args': args, 'env': ['PATH=/bin'], 'cwd': '/', 'noNewPrivileges': True,
                    'capabilities': {k: ['CAP_CHOWN', 'CAP_KILL'] for k in ('bounding', 'effective', 'permitted')}},
        'linux': {'namespaces': [{'type': x} for x in ('pid', 'mount', 'ipc', 'uts', 'cgroup', 'network')], 'cgroupsPath': '/box/c1'},
        'mounts': [{'destination': '/proc', 'type': 'proc', 'source': 'proc'}, {'destination': '/dev', 'type': 'tmpfs', 'source': 'tmpfs', 'options': ['mode=755']},
                   {'destination': '/dev/pts', 'type': 'devpts', 'source': 'devpts', 'options': ['newinstance', 'ptmxmode=0666', 'mode=0620']},
                   {'destination': '/sys', 'type': 'sysfs', 'source': 'sysfs', 'options': ['ro']}]}).encode()


for tty in (False, True):
    c.batch(pb.Op(write=pb.Write(path=bundle + '/config.json', create=True, truncate=True, data=config(tty, ['sh', '-c', 'echo hello; tty; sleep 1; exit 21']))))
    t = time.time()
    extra = dict(tty=True, console_socket='/run/con', size=pb.TtySize(rows=30, columns=90)) if tty else {}
    r = c.batch(spawn('c1', '/bin/crun', 'run', '--detach', '--pid-file', '/run/pid', '--bundle', bundle, *(['--console-socket', '/run/con'] if tty else []), 'c1',
                      env=ENV, adopt_pid_file='/run/pid', **extra))
    print(f'crun run {(time.time() - t) * 1000:.1f} ms, pid {r[0].process.pid}')
    t = time.time()
    m = 5
    for i in range(m):
        c.batch(pb.Op(exec_in=pb.ExecIn(spawn=pb.Spawn(id='e', argv=['sh', '-c', 'echo $$ $(cat /proc/self/cgroup); exit 3'], env=['PATH=/bin']), target_pid=r[0].process.pid,
                                        cgroup='/sys/fs/cgroup/box/c1', no_new_privs=True, capabilities=1)))
        out, err = c.output('e')
        assert c.wait('e').code == 3, err
        c.batch(release('e'))
    print(f'exec {(time.time() - t) * 1000 / m:.1f} ms', out)
    r2 = c.op(stats=pb.Stats(cgroup='/sys/fs/cgroup/box/c1'))
    print('stats', str(r2.stats.cgroup).replace('\n', ' '))
    if tty:
        c.op(exec_in=pb.ExecIn(spawn=pb.Spawn(id='e', argv=['sh', '-c', 'tty; stty size'], env=['PATH=/bin'], tty=True, size=pb.TtySize(rows=3, columns=9)), target_pid=r[0].process.pid))
        print(c.output('e')); c.batch(release('e'))
    print(c.output('c1'), c.wait('c1').code)
    assert c.wait('c1').code == 21
    c.batch(release('c1'))
    sh('crun delete c1')
c.batch(pb.Op(set_time=pb.SetTime(unix_ns=1800000000 * 10**9)))
assert abs(int(sh('date +%s')) - 1800000000) < 5
c.batch(pb.Op(reseed=pb.Reseed(entropy=os.urandom(32))))
print(str(c.op(stats=pb.Stats()).stats).replace('\n', ' '))
print(sh('ls -l /proc/1/fd; ps | grep -c .; grep VmRSS /proc/1/status; dmesg 2>/dev/null | tail -3'))
