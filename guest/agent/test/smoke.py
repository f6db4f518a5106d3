import os, sys
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from client import *

a = Agent(sys.argv[1])
c = a.client()
d = a.dir + '/w'
c.batch(pb.Op(mkdir=pb.Mkdir(path=d + '/x/y', mode=0o750, parents=True)),
        pb.Op(write=pb.Write(path=d + '/x/f', data=b'hello', create=True)),
        pb.Op(symlink=pb.Symlink(target='f', path=d + '/x/l')))
r = c.batch(pb.Op(stat=pb.Stat(path=d + '/x/l')), pb.Op(read=pb.Read(path=d + '/x/l')), pb.Op(list=pb.List(path=d + '/x')))
assert r[0].stat.link_target == 'f'
assert r[1].data.data == b'hello' and r[1].data.eof
assert sorted(e.name for e in r[2].list.entries) == ['f', 'l', 'y']
r = c.batch_raw(pb.Op(stat=pb.Stat(path='/nope')), pb.Op(stat=pb.Stat(path='/')))
assert len(r) == 1 and r[0].errno == 2, r
print(r[0].error)
r = c.batch(pb.Op(remove=pb.Remove(path=d, recursive=True)), spawn('p', 'sh', '-c', 'echo out; echo err >&2; exit 7'))
assert not os.path.exists(d)
print('pid', r[1].process.pid)
assert c.output('p') == (b'out\n', b'err\n')
w = c.wait('p')
assert (w.signaled, w.code) == (False, 7)
r = c.batch_raw(spawn('q', '/nope/x'))
assert r[0].errno == 2, r
print(r[0].error)
c.batch(release('p'), spawn('cat', 'cat', stdin=True))
s = c.attach('cat')
blob = os.urandom(3000000)
import threading
s.write(blob[:200000])
got = b''
i = 200000
while i < len(blob):
    s.write(blob[i:i + 100000])
    i += 100000
    while len(s.data[1]) + 400000 < i:
        f = s.step()
        if f.WhichOneof('frame') == 'chunk':
            s.ack(1)
s.write(b'', eof=True)
s.read_all()
assert s.data[1] == blob
assert c.wait('cat').code == 0
c.batch(release('cat'), spawn('s', 'sleep', '100'))
w = c.begin('Wait', pb.WaitRequest(id='s'))
c.batch(pb.Op(signal=pb.Signal(id='s', signal=15)))
x = c.finish(w, pb.WaitResponse)
assert x.signaled and x.code == 15
c.batch(release('s'), spawn('t', 'sh', '-c', 'tty; stty size; exit 3', tty=True, stdin=True, size=pb.TtySize(rows=33, columns=77)))
out, err = c.output('t')
assert b'/dev/pts/' in out and b'33 77' in out, out
assert c.wait('t').code == 3
assert [o.id for o in c.op(list_objects=pb.ListObjects()).objects.objects] == ['t']
c.batch(release('t'))
# a new epoch over the same connection, in the middle of a frame
c.s.sendall(frame(c.next, 1, 0, b'x' * 1000)[:500])
h = c.hello()
assert h.epoch == 2, h
c.close()
c = a.client()
# speed
c.batch(spawn('dd', 'dd', 'if=/dev/zero', 'bs=1M', 'count=512', 'status=none'))
t = time.time()
s = c.attach('dd', limit=1 << 40)
total = 0
while True:
    f = s.step()
    if f is None: break
    if f.WhichOneof('frame') == 'chunk':
        total += len(f.chunk.data); s.data[1] = b''
        s.ack(f.chunk.channel)
print(f'{total >> 20} MB, {total / 1e6 / (time.time() - t):.0f} MB/s')
assert a.stop() == 0
print('ok')
