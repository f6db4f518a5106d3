"""Writes the fuzzer's seed corpus: good conversations, one a file."""
import importlib, os, struct, subprocess, sys, tempfile

PROTO = os.path.join(os.path.dirname(os.path.abspath(__file__)), '../../../packages/protocol/proto')
SECRET = b'0123456789abcdef'
out = sys.argv[1]

with tempfile.TemporaryDirectory(prefix='agent-pb-') as generated:
    subprocess.check_call(['protoc', '-I', PROTO, '--python_out', generated, 'arcbox/agent/v1/agent.proto', 'ttrpc/ttrpc.proto'])
    sys.path.insert(0, generated)
    pb = importlib.import_module('arcbox.agent.v1.agent_pb2')
    ttrpc = importlib.import_module('ttrpc.ttrpc_pb2')


def frame(stream, kind, flags, data):
    return struct.pack('>IIBB', len(data), stream, kind, flags) + data


# A timeout passes at once, or never: a stream that is over takes no frames any more.
def request(stream, method, message, flags=0, timeout=0):
    r = ttrpc.Request(service='arcbox.agent.v1.Agent', method=method, payload=message.SerializeToString(), timeout_nano=timeout,
                      metadata=[ttrpc.KeyValue(key='k', value='v')])
    return frame(stream, 1, flags, r.SerializeToString())


def data(stream, flags=0, **kw):
    return frame(stream, 3, flags, pb.AttachFrame(**kw).SerializeToString())


def fill(message, depth=0):
    """Every field of a message set to something."""
    for f in message.DESCRIPTOR.fields:
        if f.containing_oneof and message.WhichOneof(f.containing_oneof.name):
            continue
        many = f.label == f.LABEL_REPEATED
        if f.type == f.TYPE_MESSAGE:
            if depth < 3:
                fill(getattr(message, f.name).add() if many else getattr(message, f.name), depth + 1)
                if not many:
                    getattr(message, f.name).SetInParent()
        else:
            value = {f.TYPE_STRING: 'a', f.TYPE_BYTES: b'\x01\xff', f.TYPE_BOOL: True, f.TYPE_ENUM: 1}.get(f.type, 7)
            if many:
                getattr(message, f.name).extend([value, value])
            else:
                setattr(message, f.name, value)
    return message


seeds = {}
hello = request(1, 'Hello', pb.HelloRequest(protocol_version=1, nonce=bytes(range(16)), secret=SECRET))
seeds['hello'] = hello
seeds['wait'] = hello + request(3, 'Wait', pb.WaitRequest(id='a')) + request(5, 'Wait', pb.WaitRequest(id='b')) + request(7, 'Wait', pb.WaitRequest(id='c'))
for f in pb.Op.DESCRIPTOR.fields:
    op = pb.Op()
    fill(getattr(op, f.name))
    getattr(op, f.name).SetInParent()
    seeds[f'op-{f.name}'] = request(3, 'Batch', pb.BatchRequest(ops=[op, op]))
seeds['timeout'] = hello + request(3, 'Wait', pb.WaitRequest(id='a'), timeout=5) + request(5, 'Wait', pb.WaitRequest(id='a'), timeout=1 << 62)
seeds['ops'] = request(3, 'Batch', pb.BatchRequest(ops=[pb.Op(list_objects=pb.ListObjects())] * 256))
seeds['wrong-wire-type'] = hello + frame(3, 1, 0, b'\x0a\x15arcbox.agent.v1.Agent\x12\x05Batch\x18\x05')
for name, output in (('a', 0), ('a', 100), ('b', 5000), ('b', 6000)):
    seeds[f'attach-{name}-{output}'] = b''.join([
        hello,
        request(3, 'Attach', pb.AttachFrame(open=pb.AttachOpen(id=name, output=pb.Credit(channel=1, acked=output, limit=120000), error=pb.Credit(channel=2, limit=99))), 2),
        data(3, chunk=pb.Chunk(channel=0, offset=0, data=b'x' * 100)), data(3, chunk=pb.Chunk(channel=0, offset=100, data=b'y', eof=True)),
        data(3, credit=pb.Credit(channel=1, acked=5000, limit=300000)), data(3, credit=pb.Credit(channel=2, acked=10, limit=20)),
        request(5, 'Attach', pb.AttachFrame(open=pb.AttachOpen(id=name)), 2), frame(5, 3, 5, b''), request(7, 'Batch', pb.BatchRequest(ops=[pb.Op(release=pb.Release(id=name))]))])
wait = pb.Op(wait_device=pb.WaitDevice(serial='s'))
seeds['pending'] = hello + b''.join(request(stream, 'Batch', pb.BatchRequest(ops=[wait, pb.Op(list_objects=pb.ListObjects()), wait, pb.Op(stat=pb.Stat(path='p' * stream))])) for stream in (3, 5, 7, 9)) + request(11, 'Batch', pb.BatchRequest(ops=[wait]), timeout=5)
# More than a pipe takes, in pieces that come again; a reader that is gone; an end; what may not be.
attach = request(3, 'Attach', pb.AttachFrame(open=pb.AttachOpen(id='a', output=pb.Credit(channel=1, limit=1 << 20), error=pb.Credit(channel=2, limit=99))), 2)
def chunks(*pieces):
    return b''.join(data(3, chunk=pb.Chunk(channel=0, offset=offset, data=b'z' * size, eof=eof)) for offset, size, eof in pieces)
seeds['input-much'] = hello + attach + chunks((0, 4000, False), (4000, 4000, False), (2000, 9000, False), (11000, 60000, False), (71000, 0, True))
seeds['input-twice'] = hello + attach + chunks((0, 100, False), (50, 50, True), (100, 0, True), (100, 1, False))
seeds['input-gone'] = hello + attach + chunks((0, 5, False), (5, 9000, False), (9005, 1, False), (9006, 9, True))
seeds['input-gap'] = hello + attach + chunks((7, 5, False))
seeds['credit'] = hello + attach + b''.join(data(3, credit=pb.Credit(channel=channel, acked=acked, limit=1 << 20)) for channel, acked in ((1, 0), (1, 100), (2, 10), (1, 5000), (1, 8000), (1, 9000)))
seeds['credit-none'] = hello + attach + data(3, credit=pb.Credit(channel=0, acked=1, limit=1))
seeds['detach'] = hello + attach + chunks((0, 9000, False)) + frame(3, 3, 5, b'') + attach.replace(b'\x00\x00\x00\x03\x01', b'\x00\x00\x00\x05\x01', 1)

for name, content in seeds.items():
    with open(os.path.join(out, name), 'wb') as f:
        f.write(content)
