"""A small client of the agent, for development and smoke tests: not the product's (that is TypeScript)."""
import atexit, os, socket, struct, subprocess, sys, tempfile, time, importlib

HERE = os.path.dirname(os.path.abspath(__file__))
PROTO = os.path.abspath(os.path.join(HERE, '../../../packages/protocol/proto'))


def load():
    out = tempfile.mkdtemp(prefix='agent-pb-')
    subprocess.check_call(['protoc', '-I', PROTO, '--python_out', out, 'arcbox/agent/v1/agent.proto', 'ttrpc/ttrpc.proto'])
    sys.path.insert(0, out)
    a = importlib.import_module('arcbox.agent.v1.agent_pb2')
    t = importlib.import_module('ttrpc.ttrpc_pb2')
    subprocess.call(['rm', '-rf', out])
    return a, t


pb, ttrpc = load()
SECRET = b'0123456789abcdef'


def frame(stream, kind, flags, data):
    return struct.pack('>IIBB', len(data), stream, kind, flags) + data


class RpcError(Exception):
    def __init__(self, status):
        super().__init__(f'{status.code}: {status.message}')
        self.code = status.code


class OpError(Exception):
    def __init__(self, result):
        super().__init__(f'{result.errno}: {result.error}')
        self.errno = result.errno
        self.text = result.error


class Client:
    def __init__(self, path, hello=True, sock=None):
        self.s = sock or socket.socket(socket.AF_UNIX)
        if not sock:
            self.s.connect(path)
        self.s.settimeout(20)
        self.rx = b''
        self.next = 1
        self.frames = {}
        if hello:
            self.hello()

    def close(self):
        self.s.close()

    def request_bytes(self, method, message, flags=0, stream=None, timeout_ns=0):
        if stream is None:
            stream = self.next
            self.next += 2
        req = ttrpc.Request(service='arcbox.agent.v1.Agent', method=method, payload=message.SerializeToString(), timeout_nano=timeout_ns)
        return stream, frame(stream, 1, flags, req.SerializeToString())

    def begin(self, method, message, flags=0, timeout_ns=0):
        stream, data = self.request_bytes(method, message, flags, timeout_ns=timeout_ns)
        self.s.sendall(data)
        return stream

    def hello_bytes(self, secret=SECRET):
        self.nonce = os.urandom(16)
        stream, data = self.request_bytes('Hello', pb.HelloRequest(protocol_version=1, nonce=self.nonce, secret=secret))
        self.hello_stream = stream
        return data

    def hello(self, secret=SECRET):
        self.s.sendall(self.hello_bytes(secret))
        return self.hello_answer()

    def hello_answer(self):
        """Skips everything before the answer that carries the nonce."""
        while True:
            at = self.rx.find(self.nonce)
            if at >= 0:
                for start in range(max(0, at - 64), at):
                    try:
                        n, sid, kind, flags = struct.unpack('>IIBB', self.rx[start:start + 10])
                    except struct.error:
                        continue
                    if sid == self.hello_stream and kind == 2 and start + 10 + n <= len(self.rx):
                        r = ttrpc.Response.FromString(self.rx[start + 10:start + 10 + n])
                        self.rx = self.rx[start + 10 + n:]
                        return pb.HelloResponse.FromString(r.payload)
            self.more()

    def more(self):
        data = self.s.recv(1 << 20)
        if not data:
            raise EOFError('agent closed the connection')
        self.rx += data

    def read_frame(self):
        while True:
            if len(self.rx) >= 10:
                n, stream, kind, flags = struct.unpack('>IIBB', self.rx[:10])
                if len(self.rx) >= 10 + n:
                    data = self.rx[10:10 + n]
                    self.rx = self.rx[10 + n:]
                    return stream, kind, flags, data
            self.more()

    def next_of(self, stream):
        while not self.frames.get(stream):
            sid, kind, flags, data = self.read_frame()
            self.frames.setdefault(sid, []).append((kind, flags, data))
        return self.frames[stream].pop(0)

    def finish(self, stream, cls):
        kind, flags, data = self.next_of(stream)
        assert kind == 2, (kind, data)
        r = ttrpc.Response.FromString(data)
        if r.status.code:
            raise RpcError(r.status)
        return cls.FromString(r.payload)

    def batch_raw(self, *ops):
        return self.finish(self.begin('Batch', pb.BatchRequest(ops=ops)), pb.BatchResponse).results

    def batch(self, *ops):
        results = self.batch_raw(*ops)
        if results and results[-1].errno:
            raise OpError(results[-1])
        assert len(results) == len(ops), results
        return results

    def op(self, **kw):
        return self.batch(pb.Op(**kw))[0]

    def wait(self, id):
        return self.finish(self.begin('Wait', pb.WaitRequest(id=id)), pb.WaitResponse)

    def attach(self, id, output=0, error=0, limit=1 << 40):
        return Stream(self, id, output, error, limit)

    def output(self, id):
        s = self.attach(id)
        return s.read_all()


class Stream:
    def __init__(self, c, id, output, error, limit):
        self.c = c
        self.data = {1: b'', 2: b''}
        self.base = {1: output, 2: error}
        self.at = {1: output, 2: error}
        self.eof = {1: False, 2: False}
        self.limit = limit
        self.credit = None
        self.status = None
        o = pb.AttachFrame(open=pb.AttachOpen(id=id, output=pb.Credit(channel=1, acked=output, limit=limit),
                                              error=pb.Credit(channel=2, acked=error, limit=limit)))
        self.id = c.begin('Attach', o, flags=2)
        self.sent = None

    def send(self, **kw):
        self.c.s.sendall(frame(self.id, 3, 0, pb.AttachFrame(**kw).SerializeToString()))

    def close(self):
        self.c.s.sendall(frame(self.id, 3, 1 | 4, b''))

    def step(self):
        kind, flags, data = self.c.next_of(self.id)
        if kind == 2:
            self.status = ttrpc.Response.FromString(data).status
            return None
        f = pb.AttachFrame.FromString(data)
        which = f.WhichOneof('frame')
        if which == 'credit':
            self.credit = f.credit
            if self.sent is None:
                self.sent = f.credit.acked
        else:
            k = f.chunk
            assert k.offset == self.at[k.channel], (k.channel, k.offset, self.at)
            assert len(k.data) <= 65536
            self.at[k.channel] += len(k.data)
            self.data[k.channel] += k.data
            self.eof[k.channel] |= k.eof
        return f

    def write(self, data, eof=False):
        while self.credit is None:
            self.step()
        while True:
            n = min(len(data), 65536, self.credit.limit - self.sent)
            last = n == len(data)
            if n or last:
                self.send(chunk=pb.Chunk(channel=0, offset=self.sent, data=data[:n], eof=eof and last))
                self.sent += n
                data = data[n:]
            if last:
                return
            if not n:
                f = self.step()
                if f and f.WhichOneof('frame') == 'chunk':
                    self.ack(f.chunk.channel)

    def ack(self, channel):
        self.send(credit=pb.Credit(channel=channel, acked=self.at[channel], limit=self.limit))

    def read_all(self):
        while True:
            f = self.step()
            if f is None:
                if self.status.code:
                    raise RpcError(self.status)
                return self.data[1], self.data[2]
            if f.WhichOneof('frame') == 'chunk':
                self.ack(f.chunk.channel)


class Agent:
    def __init__(self, binary):
        self.dir = tempfile.mkdtemp(prefix='agent-test-')
        self.path = self.dir + '/a.sock'
        self.p = subprocess.Popen([binary, '--socket', self.path])
        atexit.register(self.p.kill)
        while not os.path.exists(self.path):
            time.sleep(0.001)
            assert self.p.poll() is None

    def client(self, **kw):
        for _ in range(1000):
            try:
                return Client(self.path, **kw)
            except ConnectionRefusedError:
                time.sleep(0.001)

    def stop(self):
        self.p.terminate()
        code = self.p.wait(10)
        assert not os.path.exists(self.path)
        subprocess.call(['rm', '-rf', self.dir])
        return code


def spawn(id, *argv, **kw):
    kw.setdefault('env', ['PATH=/usr/bin:/bin:/usr/sbin:/sbin'])
    return pb.Op(spawn=pb.Spawn(id=id, argv=argv, **kw))


def release(id, **kw):
    return pb.Op(release=pb.Release(id=id, **kw))
