"""Boots the agent as PID 1 under QEMU (TCG) and checks what only a real port shows: for development.

    vm.py AGENT VMLINUX [DIR with crun]
"""
import json, os, shutil, socket, subprocess, sys, tempfile, time
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from client import *

agent, kernel = sys.argv[1], sys.argv[2]
extra = sys.argv[3] if len(sys.argv) > 3 else None
dir = tempfile.mkdtemp(prefix='agent-vm-')
root = dir + '/root'
for d in ('sbin', 'bin', 'etc', 'dev'):
    os.makedirs(f'{root}/{d}')
shutil.copy(agent, root + '/sbin/agent')
os.symlink('sbin/agent', root + '/init')
shutil.copy('/bin/busybox', root + '/bin/busybox')
if extra:
    shutil.copy(extra + '/crun', root + '/bin/crun')
for f in set(os.popen('busybox --list').read().split()) - {'busybox'}:
    os.symlink('busybox', f'{root}/bin/{f}')
subprocess.check_call(f'cd {root} && find . | cpio -o -H newc --quiet > {dir}/initramfs', shell=True)
disk = dir + '/disk'
with open(disk, 'wb') as f:
    f.truncate(64 << 20)
subprocess.check_call(['mkfs.ext4', '-q', '-F', disk])


def boot(kernel_args='', memory=256):
    t0 = time.time()
    sock = dir + '/a.sock'
    p = subprocess.Popen(['qemu-system-x86_64', '-M', 'microvm,x-option-roms=off,rtc=on,acpi=off', '-accel', 'tcg', '-cpu', os.environ.get('CPU', 'max'), '-m', str(memory),
                          '-nodefaults', '-no-user-config', '-display', 'none', '-serial', f'file:{dir}/console', '-kernel', kernel,
                          '-initrd', dir + '/initramfs', '-append', 'console=ttyS0 reboot=t panic=-1 quiet ' + kernel_args, '-no-reboot',
                          '-device', 'virtio-serial-device', '-chardev', f'socket,id=a,path={sock},server=on,wait=off',
                          '-device', 'virtserialport,chardev=a,name=org.arcbox.agent',
                          '-drive', f'if=none,id=d,file={disk},format=raw', '-device', 'virtio-blk-device,drive=d,serial=disk-one',
                          '-device', 'virtio-scsi-device,id=scsi', '-qmp', f'unix:{dir}/qmp,server=on,wait=off'])
    while True:
        try:
            s = socket.socket(socket.AF_UNIX)
            s.connect(sock)
            break
        except OSError:
            time.sleep(0.002)
    c = Client(None, sock=s)
    return p, sock, c, t0


def connect(sock, hello=True):
    s = socket.socket(socket.AF_UNIX)
    s.connect(sock)
    return Client(None, sock=s, hello=hello)


def console():
    return open(dir + '/console', errors='replace').read()


ENV = ['PATH=/bin:/sbin']


def disks_and_containers(c):
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


p, sock, c, t0 = boot()
try:
    print(f'boot to Hello: {(time.time() - t0) * 1000:.0f} ms')
    r = c.batch(spawn('ls', 'sh', '-c', 'mount; ls /; cat /sys/fs/cgroup/cgroup.subtree_control; ip a show lo; ls -la /dev/ptmx /dev/pts; ps | head -20', env=ENV))
    print(c.output('ls')[0].decode())
    t = time.time()
    n = 200
    for i in range(n):
        c.op(stat=pb.Stat(path='/'))
    print(f'batch round trip {(time.time() - t) / n * 1e6:.0f} us')
    t = time.time()
    for i in range(20):
        c.batch(spawn(f's{i}', '/bin/true', env=ENV))
        c.wait(f's{i}')
        c.batch(release(f's{i}'))
    print(f'spawn+wait+release {(time.time() - t) / 20 * 1e3:.1f} ms')
    # bulk
    c.batch(spawn('dd', 'dd', 'if=/dev/zero', 'bs=1M', 'count=256', env=ENV))
    t = time.time()
    s = c.attach('dd')
    total = 0
    while True:
        f = s.step()
        if f is None:
            break
        if f.WhichOneof('frame') == 'chunk':
            total += len(f.chunk.data)
            s.data[1] = b''
            s.ack(f.chunk.channel)
    print(f'out {total >> 20} MB, {total / 1e6 / (time.time() - t):.0f} MB/s')
    c.batch(spawn('cat', 'sh', '-c', 'cat > /dev/null', env=ENV, stdin=True))
    s = c.attach('cat')
    t = time.time()
    block = bytes(1 << 20)
    for i in range(128):
        s.write(block, eof=i == 127)
    c.wait('cat')
    print(f'in 128 MB, {128 * 1.048 / (time.time() - t):.0f} MB/s')
    c.batch(release('cat'), release('dd'))
    # reconnects: objects stay, output goes on where it was acknowledged
    c.batch(spawn('count', 'sh', '-c', 'i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; sleep 0.2', env=ENV))
    got = b''
    for round in range(8):
        s = c.attach('count', output=len(got))
        for _ in range(3 + round):
            f = s.step()
            if f is None:
                break
            if f.WhichOneof('frame') == 'chunk' and f.chunk.channel == 1:
                s.ack(1)
        got += s.data[1]
        c.s.sendall(frame(c.next, 1, 0, b'z' * 900)[: 100 * round])
        if round % 2:
            c.close()
            c = connect(sock)
        else:
            c.close()
            time.sleep(0.05)
            c = connect(sock)
    s = c.attach('count', output=len(got))
    got += s.read_all()[0]
    assert got.decode().split('\n')[:-1] == [f'line {i}' for i in range(3000)], (len(got), got[:100])
    print('reconnects: nothing lost, nothing doubled')
    for i in range(50):
        c.close()
        c = connect(sock)
    print('50 quick reconnects, epoch', end=' ')
    print(c.hello().epoch)
    # idle: no spinning without a host
    c.close()
    time.sleep(1.0)
    c = connect(sock)
    c.batch(spawn('top', 'cat', '/proc/1/stat', env=ENV))
    f = c.output('top')[0].decode().split()
    print('agent cpu ticks', f[13:15], 'rss pages', f[23])
    time.sleep(1.0)
    if extra:
        disks_and_containers(c)
    c.batch(pb.Op(shutdown=pb.Shutdown()))
    t = time.time()
    p.wait(10)
    print(f'shutdown {(time.time() - t) * 1000:.0f} ms, code {p.returncode}')
finally:
    p.kill()
    p.wait()
    print('console:', console())
    shutil.rmtree(dir)
