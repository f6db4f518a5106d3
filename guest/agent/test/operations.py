"""Every operation once, and the hostile cases, over the Unix socket: for development."""
import os, sys, io, tarfile, threading, signal, errno
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from client import *

a = Agent(sys.argv[1])
c = a.client()
D = a.dir + '/w'
os.mkdir(D)
ENV = ['PATH=/usr/bin:/bin:/usr/sbin:/sbin']


def fds():
    return len(os.listdir(f'/proc/{a.p.pid}/fd'))


def delimited(data):
    out = []
    at = 0
    while at < len(data):
        n = shift = 0
        while True:
            b = data[at]; at += 1
            n |= (b & 127) << shift; shift += 7
            if b < 128: break
        out.append(data[at:at + n]); at += n
    return out


c.op(stat=pb.Stat(path='/'))
fds0 = fds()


def fails(err, op):
    r = c.batch_raw(op)[-1]
    assert r.errno == err, (errno.errorcode.get(r.errno), r.error)
    print('  ', r.error)


# --- files
c.batch(pb.Op(write=pb.Write(path=D + '/f', data=b'0123456789', create=True, mode=0o4711)),
        pb.Op(write=pb.Write(path=D + '/f', data=b'AB', offset=2)),
        pb.Op(write=pb.Write(path=D + '/f', data=b'Z', append=True, sync=True)),
        pb.Op(rename=pb.Rename(**{'from': D + '/f', 'to': D + '/g'})),
        pb.Op(chmod=pb.Chmod(path=D + '/g', mode=0o600)), pb.Op(chown=pb.Chown(path=D + '/g', uid=1, gid=2)),
        pb.Op(mknod=pb.Mknod(path=D + '/n', mode=0o20666, major=1, minor=3)),
        pb.Op(set_xattr=pb.SetXattr(path=D + '/g', name='user.a', value=b'\0v')))
r = c.batch(pb.Op(read=pb.Read(path=D + '/g', offset=1, limit=5)), pb.Op(stat=pb.Stat(path=D + '/g')), pb.Op(get_xattr=pb.GetXattr(path=D + '/g', name='user.a')),
            pb.Op(read=pb.Read(path='/proc/self/status')), pb.Op(stat=pb.Stat(path=D + '/n')))
assert r[0].data.data == b'1AB45' and not r[0].data.eof
assert (r[1].stat.mode, r[1].stat.uid, r[1].stat.gid, r[1].stat.size) == (0o100600, 1, 2, 11)
assert r[2].data.data == b'\0v'
assert b'agent' in r[3].data.data and r[3].data.eof
assert (r[4].stat.rdev_major, r[4].stat.rdev_minor) == (1, 3)
fails(errno.ENOENT, pb.Op(remove=pb.Remove(path=D + '/zz')))
c.op(remove=pb.Remove(path=D + '/zz', missing_ok=True))
fails(errno.ENOENT, pb.Op(remove=pb.Remove(path=D + '/zz', recursive=True)))
c.op(remove=pb.Remove(path=D + '/zz', recursive=True, missing_ok=True))
fails(errno.ENOTEMPTY, pb.Op(remove=pb.Remove(path=D)))
fails(errno.EMSGSIZE, pb.Op(write=pb.Write(path=D + '/g', data=bytes((1 << 20) + 1))))
fails(errno.ENAMETOOLONG, pb.Op(mkdir=pb.Mkdir(path='/a' * 3000, parents=True)))
# mounts: remove stops at a mount point
c.batch(pb.Op(mount=pb.Mount(source='t', target=D + '/m/t', type='tmpfs', data='size=1m', mkdir_target=True)), pb.Op(write=pb.Write(path=D + '/m/t/keep', data=b'x', create=True)))
fails(errno.EBUSY, pb.Op(remove=pb.Remove(path=D + '/m', recursive=True)))
assert os.path.exists(D + '/m/t/keep')
c.batch(pb.Op(unmount=pb.Unmount(target=D + '/m/t')), pb.Op(remove=pb.Remove(path=D + '/m', recursive=True)))
deep = os.open(D, os.O_RDONLY)
os.mkdir(D + '/deep')
at = os.open(D + '/deep', os.O_RDONLY)
for i in range(3000):
    os.mkdir('d', dir_fd=at)
    n = os.open('d', os.O_RDONLY, dir_fd=at); os.close(at); at = n
os.close(at); os.close(deep)
c.op(remove=pb.Remove(path=D + '/deep', recursive=True))
assert not os.path.exists(D + '/deep')
# --- many results
for i in range(300):
    open(f'{D}/many{i}', 'w').close()
assert len(c.op(list=pb.List(path=D)).list.entries) == 302
big = os.urandom(1 << 20)
open(D + '/big', 'wb').write(big)
r = c.batch_raw(*[pb.Op(read=pb.Read(path=D + '/big'))] * 5)
assert len(r) == 4 and r[3].errno == errno.EMSGSIZE and r[2].data.data == big, (len(r), r[-1].error)
# --- watch
c.op(watch=pb.Watch(id='w', path=D, mask=0x100 | 0x200 | 0x400))
s = c.attach('w')
open(D + '/new', 'w').close()
os.unlink(D + '/new')
while len(delimited(s.data[1])) < 2:
    s.step()
ev = [pb.WatchEvent.FromString(x) for x in delimited(s.data[1])]
assert [(e.mask, e.name) for e in ev] == [(0x100, 'new'), (0x200, 'new')], ev
c.batch(release('w'))
try:
    s.read_all()
    assert False
except RpcError as e:
    assert e.code == 10
# --- connections
r = c.batch(pb.Op(listen=pb.Listen(id='l', tcp=pb.TcpAddress(host='127.0.0.1', port=0))))
port = r[0].listen.port
ls = c.attach('l')
c.op(connect=pb.Connect(id='c', tcp=pb.TcpAddress(host='127.0.0.1', port=port)))
while not ls.data[1]:
    ls.step()
acc = [pb.Accepted.FromString(x) for x in delimited(ls.data[1])]
print('  ', acc[0].id, acc[0].peer)
assert acc[0].id == 'l/1'
s1, s2 = c.attach('c'), c.attach('l/1')
blob = os.urandom(500000)
got = b''
at = 0
while at < len(blob):
    s1.write(blob[at:at + 50000], eof=at + 50000 >= len(blob)); at += 50000
    while len(s2.data[1]) < at:
        f = s2.step()
        if f.WhichOneof('frame') == 'chunk': s2.ack(1)
assert s2.data[1] == blob
s2.write(b'answer', eof=True)
assert s1.read_all()[0] == b'answer'
assert s2.read_all()[0] == blob
assert c.wait('c').code == 0 and c.wait('l/1').code == 0
c.batch(release('c'), release('l/1'), release('l'))
fails(errno.ECONNREFUSED, pb.Op(connect=pb.Connect(id='c', tcp=pb.TcpAddress(host='127.0.0.1', port=port))))
fails(errno.EINVAL, pb.Op(connect=pb.Connect(id='c', tcp=pb.TcpAddress(host='localhost', port=port))))
c.op(listen=pb.Listen(id='u', unix_path=D + '/s'))
c.op(connect=pb.Connect(id='uc', unix_path=D + '/s'))
c.batch(release('u'), release('uc'), release('u/1'))
assert not os.path.exists(D + '/s')
# IPv6 and reset
r = c.op(listen=pb.Listen(id='l', tcp=pb.TcpAddress(host='::1', port=0)))
k = socket.socket(socket.AF_INET6); k.connect(('::1', r.listen.port))
ls = c.attach('l')
while not ls.data[1]: ls.step()
print('  ', pb.Accepted.FromString(delimited(ls.data[1])[0]).peer)
k.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); k.close()
w = c.wait('l/1')
assert w.code == errno.ECONNRESET and w.error, w
c.batch(release('l/1'), release('l'))
# vsock
r = c.batch_raw(pb.Op(listen=pb.Listen(id='v', vsock=pb.VsockAddress())))[0]
print('   vsock', r.errno, r.error, r.listen.port)
if not r.errno:
    r2 = c.batch_raw(pb.Op(connect=pb.Connect(id='vc', vsock=pb.VsockAddress(cid=1, port=r.listen.port), timeout_ms=500)))[0]
    print('   vsock', r2.errno, r2.error)
    c.batch(release('v'), release('vc', missing_ok=True), release('v/1', missing_ok=True))
# --- netlink: RTM_GETLINK dump, in our namespace and in another
ns = subprocess.Popen(['unshare', '-n', 'sleep', '100'])
time.sleep(0.1)
req = struct.pack('=IHHII', 17 + 3, 18, 0x301, 7, 0) + b'\0\0\0\0'
here = c.op(netlink=pb.Netlink(protocol=0, request=req)).data.data
there = c.op(netlink=pb.Netlink(protocol=0, request=req, netns_pid=ns.pid)).data.data
assert len(here) > len(there) > 100 or len(here) > 100, (len(here), len(there))
print('   netlink answers', len(here), len(there))
bring_up = struct.pack('=IHHIIBBHiII', 32, 16, 0x5, 9, 0, 0, 0, 0, 1, 1, 1)
r = c.op(netlink=pb.Netlink(protocol=0, request=bring_up, netns_pid=ns.pid)).data.data
assert struct.unpack('=i', r[16:20])[0] == 0
fails(errno.EINVAL, pb.Op(netlink=pb.Netlink(protocol=0, request=req[:10])))
fails(errno.EINVAL, pb.Op(netlink=pb.Netlink(protocol=0, request=struct.pack('=IHHII', 20, 18, 1, 7, 0) + b'\0\0\0\0')))
ns.kill(); ns.wait()
# --- stats, reseed, sync
st = c.op(stats=pb.Stats()).stats
assert st.memory_total > 1 << 30 and st.uptime_ns and st.processes > 3 and st.cpu_busy_ns, st
c.op(reseed=pb.Reseed(entropy=os.urandom(64)))
c.op(sync=pb.Sync())
# --- archive
src = D + '/src'
os.makedirs(src + '/dir/sub')
open(src + '/dir/naïve-ünï-日本', 'wb').write(b'uni')
open(src + '/dir/raw\udcff', 'wb').write(b'raw')
open(src + '/dir/file', 'wb').write(b'data' * 1000)
os.chown(src + '/dir/file', 1234, 4321); os.chmod(src + '/dir/file', 0o4755)
os.link(src + '/dir/file', src + '/dir/hard')
os.symlink('/etc/passwd', src + '/dir/sym')
os.mkfifo(src + '/dir/fifo')
os.mknod(src + '/dir/dev', 0o20600, os.makedev(5, 6))
os.setxattr(src + '/dir/sub', 'user.x', b'y\0z')
os.setxattr(src + '/dir/file', 'security.capability', bytes.fromhex('0100000200040000000000000000000000000000'))
with open(src + '/dir/sparse', 'wb') as f:
    f.write(b'head'); f.seek(5 << 20); f.write(b'tail'); f.truncate(8 << 20)
long = src + '/dir/' + '/'.join(['l' * 100] * 4)
os.makedirs(long); open(long + '/end', 'w').close()
os.utime(src + '/dir/file', ns=(1, 1500000000123456789))
k = socket.socket(socket.AF_UNIX); k.bind(src + '/dir/sock'); k.close()
c.op(archive=pb.Archive(id='pack', mode=1, root=src, path='/dir', base_name='top'))
tar, err = c.output('pack')
assert c.wait('pack').code == 0, err
print('   pack says', err)
t = tarfile.open(fileobj=io.BytesIO(tar))
names = {m.name: m for m in t.getmembers()}
assert names['top/file'].uid == 1234 and names['top/file'].mode == 0o4755 and abs(names['top/file'].mtime - 1500000000.123456789) < 1e-6
hard = [names['top/file'], names['top/hard']]
assert sorted(m.islnk() for m in hard) == [False, True] and [m.linkname for m in hard if m.islnk()][0] in ('top/file', 'top/hard')
assert 'top/naïve-ünï-日本' in names, list(names)
assert names['top/sub'].pax_headers['SCHILY.xattr.user.x'] == 'y\0z'
assert names['top/sparse'].size == 8 << 20 and len(tar) < 1 << 20, len(tar)
assert names['top/dev'].ischr() and names['top/fifo'].isfifo() and names['top/sym'].linkname == '/etc/passwd'
dst = D + '/dst'
os.makedirs(dst + '/in')


def unpack(tar, check=True, **kw):
    c.op(archive=pb.Archive(id='un', mode=2, root=dst, path='/in', **kw))
    s = c.attach('un')
    try:
        s.write(tar, eof=True)
        out, err = s.read_all()
    except RpcError as e:
        print(e); raise
    w = c.wait('un')
    c.batch(release('un'))
    if check:
        assert w.code == 0, (w, err)
    return w, err


print('   unpack says', unpack(tar))
q = dst + '/in/top'
st = os.stat(q + '/file')
assert (st.st_uid, st.st_gid, st.st_mode & 0o7777, st.st_mtime_ns, st.st_nlink) == (1234, 4321, 0o4755, 1500000000123456789, 2)
assert os.stat(q + '/hard').st_ino == st.st_ino
assert os.getxattr(q + '/sub', 'user.x') == b'y\0z' and os.getxattr(q + '/file', 'security.capability')
assert os.stat(q + '/sparse').st_blocks < 100 and open(q + '/sparse', 'rb').read() == open(src + '/dir/sparse', 'rb').read()
assert open(q + '/naïve-ünï-日本', 'rb').read() == b'uni' and open(q + '/raw\udcff', 'rb').read() == b'raw'
assert os.path.exists(q + '/' + '/'.join(['l' * 100] * 4) + '/end') and os.stat(q + '/dev').st_rdev == os.makedev(5, 6)
unpack(tar)  # again, over itself
unpack(tar, numeric_owner_root=True)
assert os.stat(q + '/file').st_uid == 0


def mktar(*members):
    b = io.BytesIO()
    t = tarfile.open(fileobj=b, mode='w')
    for m, data in members:
        m.size = len(data)
        t.addfile(m, io.BytesIO(data))
    t.close()
    return b.getvalue()


def member(name, type=tarfile.REGTYPE, **kw):
    m = tarfile.TarInfo(name); m.type = type
    for x, y in kw.items(): setattr(m, x, y)
    return m


w, err = unpack(mktar((member('top/sub'), b'file now')), check=False, no_overwrite_dir_non_dir=True)
print('  ', w.code, w.error); assert w.code == errno.EISDIR
w, err = unpack(mktar((member('top/file', tarfile.DIRTYPE), b'')), check=False, no_overwrite_dir_non_dir=True)
print('  ', w.code, w.error); assert w.code == errno.ENOTDIR
unpack(mktar((member('top/sub'), b'file now')))
assert open(q + '/sub').read() == 'file now'
w, err = unpack(mktar((member('../../escape'), b'x')), check=False)
print('  ', w.code, w.error); assert w.code and not os.path.exists(D + '/escape')
unpack(mktar((member('out', tarfile.SYMTYPE, linkname=D), b''), (member('abs', tarfile.SYMTYPE, linkname='/'), b''), (member('abs/rooted'), b'r')))
assert os.path.exists(dst + '/rooted') and not os.path.exists('/rooted')
w, err = unpack(tar[:3000], check=False)
print('  ', w.code, w.error); assert w.code
w, err = unpack(os.urandom(5000), check=False)
print('  ', w.code, w.error); assert w.code
fails(errno.EINVAL, pb.Op(archive=pb.Archive(id='x', root='/')))
c.op(archive=pb.Archive(id='x', mode=1, root='/nope', path='/'))
w = c.wait('x'); print('  ', w.code, w.error); assert w.code == errno.ENOENT
c.batch(release('x'), release('pack'))
# --- a directory whose name must be entered, "."
c.op(archive=pb.Archive(id='p', mode=1, root=src, path='/'))
t = tarfile.open(fileobj=io.BytesIO(c.output('p')[0])); print('  ', [m.name for m in t.getmembers()][:3]); c.batch(release('p'))
# --- ExecIn
target = subprocess.Popen(['unshare', '-Umpfnui', '--mount-proc', '--map-root-user', 'sleep', '100'])
time.sleep(0.3)
kid = int(os.popen(f'pgrep -P {target.pid}').read().split()[0])
c.batch(pb.Op(exec_in=pb.ExecIn(spawn=pb.Spawn(id='e', argv=['sh', '-c', 'echo $$; ps ax | wc -l; grep -E "CapEff|CapBnd|NoNew|Seccomp:" /proc/self/status; ulimit -n; exit 9'], env=ENV, cwd='/tmp'),
                                target_pid=kid, capabilities=0x21, no_new_privs=True, rlimits=[pb.Rlimit(resource=7, soft=100, hard=200)])))
out, err = c.output('e')
print('  ', out.decode().split('\n'), err)
assert c.wait('e').code == 9
assert b'0000000000000021' in out and b'\n100\n' in out and int(out.split()[0]) < 50
r = c.batch_raw(pb.Op(exec_in=pb.ExecIn(spawn=pb.Spawn(id='e2', argv=['nonesuch'], env=ENV), target_pid=kid)))
assert r[0].errno == errno.ENOENT, r
print('  ', r[0].error)
r = c.batch(release('e'), pb.Op(exec_in=pb.ExecIn(spawn=pb.Spawn(id='e', argv=['sleep', '50'], env=ENV), target_pid=kid)))
pid = r[1].process.pid
assert os.path.exists(f'/proc/{pid}')
c.batch(pb.Op(signal=pb.Signal(id='e', signal=9)))
w = c.wait('e'); assert w.signaled and w.code == 9
c.batch(release('e'))
fails(errno.ESRCH, pb.Op(exec_in=pb.ExecIn(spawn=pb.Spawn(id='e', argv=['true'], env=ENV), target_pid=999999)))
# a terminal of the container's
subprocess.call(['nsenter', '-t', str(kid), '-U', '-m', 'sh', '-c', 'mount -t devpts -o newinstance,ptmxmode=0666 d /dev/pts && mount --bind /dev/pts/ptmx /dev/ptmx'])
c.op(exec_in=pb.ExecIn(spawn=pb.Spawn(id='e', argv=['sh', '-c', 'tty; stty size; read x; echo got $x'], env=ENV, tty=True, stdin=True, size=pb.TtySize(rows=12, columns=34)), target_pid=kid, keep_all_capabilities=True))
s = c.attach('e'); s.write(b'hello\n')
out = s.read_all()[0]
print('  ', out); assert b'/dev/pts/0' in out and b'12 34' in out and b'got hello' in out
c.batch(release('e'))
target.kill(); target.wait()
# seccomp: allow everything but getppid → EPERM; NNP
bpf = b''.join(struct.pack('=HBBI', *i) for i in [(0x20, 0, 0, 0), (0x15, 0, 1, 83), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7fff0000)])
open(D + '/bpf', 'wb').write(bpf)
sl = subprocess.Popen(['sleep', '100'])
for nnp in (True, False):
    c.op(exec_in=pb.ExecIn(spawn=pb.Spawn(id='e', argv=['sh', '-c', f'mkdir {D}/no && echo BAD; grep Seccomp: /proc/self/status; id'], env=ENV, uid=65534, gid=65534, groups=[5, 6]), target_pid=sl.pid, seccomp_bpf=D + '/bpf', no_new_privs=nnp, capabilities=0))
    out, err = c.output('e'); print('  ', out, err); assert b'Operation not permitted' in err and b'\t2' in out and b'uid=65534' in out and b'6' in out
    c.batch(release('e'))
sl.kill(); sl.wait()
# --- adoption
launcher = 'sleep 1000 & echo $! > {0}; exit 0'
r = c.batch(spawn('ad', 'sh', '-c', f'(exec sh -c "echo hi; sleep 0.2; exit 42") & echo $! > {D}/pid', adopt_pid_file=D + '/pid'))
assert r[0].process.pid == int(open(D + '/pid').read())
assert c.output('ad')[0] == b'hi\n'
assert c.wait('ad').code == 42
c.batch(release('ad'))
# it is dead before its launcher
for i in range(20):
    py = f'import os, time; p = os.fork(); p or os._exit(43); open("{D}/pid", "w").write(str(p)); time.sleep(0.0{i % 3})'
    c.batch(spawn('ad', '/usr/bin/python3', '-c', py, adopt_pid_file=D + '/pid'))
    assert c.wait('ad').code == 43
    c.batch(release('ad'))
r = c.batch_raw(spawn('ad', 'sh', '-c', 'echo no >&2; exit 5', adopt_pid_file=D + '/pid'))
assert r[0].errno == errno.ECHILD and c.wait('ad').code == 5 and c.output('ad')[1] == b'no\n'
print('  ', r[0].error)
c.batch(release('ad'))
r = c.batch_raw(spawn('ad', 'sh', '-c', f'echo 1x > {D}/pid', adopt_pid_file=D + '/pid')); print('  ', r[0].error); assert r[0].errno == errno.EINVAL
c.batch(release('ad'))
r = c.batch_raw(spawn('ad', 'sh', '-c', f'echo {os.getpid()} > {D}/pid', adopt_pid_file=D + '/pid')); print('  ', r[0].error); assert r[0].errno == errno.ECHILD
c.batch(release('ad'))
# console socket
py = f'''
import os, socket, pty, array
m, s = os.openpty()
k = socket.socket(socket.AF_UNIX); k.connect("{D}/con")
k.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [m]))])
pid = os.fork()
if pid == 0:
    os.setsid(); os.login_tty(s) if hasattr(os, "login_tty") else [os.dup2(s, i) for i in range(3)]
    os.execlp("sh", "sh", "-c", "sleep 0.1; stty size; read x; echo got $x; exit 6")
open("{D}/pid", "w").write(str(pid))
'''
c.batch(spawn('con', '/usr/bin/python3', '-c', py, tty=True, stdin=True, adopt_pid_file=D + '/pid', console_socket=D + '/con', size=pb.TtySize(rows=20, columns=40)))
assert not os.path.exists(D + '/con')
s = c.attach('con'); s.write(b'abc\n')
out, err = s.read_all(); print('  ', out, err); assert b'20 40' in out and b'got abc' in out
assert c.wait('con').code == 6
c.batch(release('con'))
r = c.batch_raw(spawn('con', 'sh', '-c', f'echo 5 > {D}/pid', tty=True, adopt_pid_file=D + '/pid', console_socket=D + '/con')); print('  ', r[0].error); assert r[0].errno == errno.ENOTTY
c.batch(release('con'))
# --- Fuse: a file system with one file, served here
if os.path.exists('/dev/fuse'):
    c.op(fuse_relay=pb.FuseRelay(id='fu', target=D + '/fuse', options='allow_other', mkdir_target=True))
    c2s = c.attach('fu')
    buf = b''
    st = c.begin('Batch', pb.BatchRequest(ops=[pb.Op(read=pb.Read(path=D + '/fuse/hello')), pb.Op(stat=pb.Stat(path=D + '/fuse'))]))
    content = b'from the host\n' * 3000

    def attr(ino, mode, size):
        return struct.pack('=QQQQQQIIIIIIIIII', ino, size, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    def serve(req):
        ln, op, uniq, node, uid, gid, pid, _ = struct.unpack('=IIQQIIII', req[:40])
        body = req[40:]
        err = 0
        if op == 26: out = struct.pack('=IIIIHHIIHHI28x', 7, 31, 65536, 0, 10, 10, 131072, 1, 32, 0, 0)
        elif op == 3: out = struct.pack('=QII', 1, 0, 0) + (attr(1, 0o40755, 0) if node == 1 else attr(2, 0o100644, len(content)))
        elif op == 1: out = struct.pack('=QQQQII', 2, 0, 1, 1, 0, 0) + attr(2, 0o100644, len(content)) if body.rstrip(b'\0') == b'hello' else b''; err = 0 if out else -2
        elif op == 14: out = struct.pack('=QII', 5, 0, 0)
        elif op == 15:
            fh, off, size = struct.unpack('=QQI', body[:20]); out = content[off:off + size]
        elif op in (2, 42, 36): return None
        elif op in (18, 25): out = b''
        else: out = b''; err = -38
        return struct.pack('=IiQ', 16 + len(out), err, uniq) + out

    while not c.frames.get(st):
        sid, kind, flags, data = c.read_frame()
        c.frames.setdefault(sid, []).append((kind, flags, data))
        while c.frames.get(c2s.id):
            f = c2s.step()
            if f.WhichOneof('frame') != 'chunk': continue
            c2s.ack(1)
            buf += f.chunk.data
            while len(buf) >= 4 and len(buf) >= struct.unpack('=I', buf[:4])[0]:
                n = struct.unpack('=I', buf[:4])[0]
                rep = serve(buf[:n]); buf = buf[n:]
                if rep:
                    c2s.write(rep[:7]); c2s.write(rep[7:])  # in pieces
    r = c.finish(st, pb.BatchResponse).results
    assert r[0].data.data == content, (r[0].error, len(r[0].data.data))
    fails(errno.EDEADLK, pb.Op(watch=pb.Watch(id='ww', path=D + '/fuse/x', mask=2)))
    c.batch(release('fu'))
    assert not os.path.ismount(D + '/fuse')
    os.rmdir(D + '/fuse')
# --- timeouts, unknown things
try:
    c.batch(spawn('z', 'sleep', '100'))
    c.finish(c.begin('Wait', pb.WaitRequest(id='z'), timeout_ns=50_000_000), pb.WaitResponse); assert False
except RpcError as e:
    assert e.code == 4
for m, code in (('Nope', 12), ('Wait', 5)):
    try:
        c.finish(c.begin(m, pb.WaitRequest(id='nothing')), pb.WaitResponse); assert False
    except RpcError as e:
        assert e.code == code
fails(errno.ENOSYS, pb.Op())
fails(errno.EEXIST, spawn('z', 'true'))
fails(errno.EINVAL, spawn('x' * 65, 'true'))
fails(errno.E2BIG, spawn('y', 'true', 'x' * 1100000))
fails(errno.EINVAL, spawn('y', cwd='/'))
r = c.op(wait_device=pb.WaitDevice(serial='nope', timeout_ms=1)) if False else None
fails(errno.ETIMEDOUT, pb.Op(wait_device=pb.WaitDevice(serial='nope', timeout_ms=20)))
# group kill on release, orphans reaped
c.batch(spawn('g', 'sh', '-c', 'sleep 500 & sleep 501 & wait'))
time.sleep(0.1)
assert os.popen("pgrep -f 'sleep 50[01]'").read().split()
c.batch(release('g'), release('z'))
time.sleep(0.1)
assert not os.popen("pgrep -x -f 'sleep 50[01]'").read().split()
c.batch(spawn('o', 'sh', '-c', '(sleep 0.05 & ) ; exit 0'))
c.wait('o'); time.sleep(0.2); c.batch(release('o'))
assert not [x for x in os.popen(f'ps -o stat= --ppid {a.p.pid}').read().split() if 'Z' in x]
# many objects, released at once; batch of 256
c.batch(*[spawn(f'n{i}', 'true') for i in range(256)])
for i in range(256):
    assert c.wait(f'n{i}').code == 0
c.batch(*[release(f'n{i}') for i in range(256)])
assert not list(c.op(list_objects=pb.ListObjects()).objects.objects)
assert fds() == fds0, (fds(), fds0, os.listdir(f'/proc/{a.p.pid}/fd'))


# --- hostile
def hostile(data, why):
    global c
    c.s.sendall(data)
    try:
        while True:
            c.read_frame()
    except (EOFError, ConnectionResetError):
        pass
    c = a.client()
    print('   survived', why)


hostile(struct.pack('>IIBB', 5 << 20, 3, 1, 0), 'length')
hostile(struct.pack('>IIBB', 5, 3, 9, 0) + b'12345', 'type')
hostile(struct.pack('>IIBB', 5, 4, 1, 0) + b'12345', 'even id')
hostile(frame(3, 1, 0, b'\xff' * 20), 'garbage request')
hostile(frame(3, 1, 0, b'\x0a\x15arcbox.agent.v1.Agent\x12\x05Batch\x18\x05'), 'wire type')
hostile(c.request_bytes('Batch', pb.BatchRequest(ops=[pb.Op()] * 257))[1], '257 ops')
hostile(c.request_bytes('Attach', pb.AttachFrame(credit=pb.Credit()), flags=2)[1], 'attach without open')
hostile(c.request_bytes('Attach', pb.AttachFrame(open=pb.AttachOpen()), flags=0)[1], 'attach without flag')
hostile(frame(3001, 3, 0, b''), 'data for nothing')
hostile(c.request_bytes('Batch', pb.BatchRequest(ops=[pb.Op(spawn=pb.Spawn(id='a\0b'))]))[1], 'NUL')
c.close()
k = socket.socket(socket.AF_UNIX); k.connect(a.path); k.sendall(os.urandom(100000) if False else b'GET / HTTP/1.1\r\n\r\n'); k.settimeout(5)
assert k.recv(100) == b'' or True
c = a.client()
d = a.client()  # replaces c
try:
    c.op(stat=pb.Stat(path='/')); assert False
except (EOFError, ConnectionError):
    pass
d.op(stat=pb.Stat(path='/'))
d.batch(spawn('left', 'sleep', '777'))
assert a.stop() == 0
time.sleep(0.05)
assert not os.popen("pgrep -x -f 'sleep 777'").read()
print('ok')
