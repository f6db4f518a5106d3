"""Boots the agent as PID 1 under QEMU (TCG) and checks what only a real port shows: for development.

    vm.py AGENT VMLINUX [DIR with crun and seccomp.bpf]
"""
import os, shutil, signal, socket, subprocess, sys, tempfile, time
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
    exec(open(os.path.join(os.path.dirname(os.path.abspath(__file__)), 'vm_more.py')).read()) if os.path.exists(os.path.join(os.path.dirname(os.path.abspath(__file__)), 'vm_more.py')) else None
    c.batch(pb.Op(shutdown=pb.Shutdown()))
    t = time.time()
    p.wait(10)
    print(f'shutdown {(time.time() - t) * 1000:.0f} ms, code {p.returncode}')
finally:
    p.kill()
    p.wait()
    print('console:', console())
    shutil.rmtree(dir)
