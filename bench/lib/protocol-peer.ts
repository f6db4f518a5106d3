/**
 * The far end of the `protocol` benchmark, in a thread of its own. `served` speaks the agent protocol, its object
 * `source` gives `bytes` bytes again and again (one attachment each) and `sink` takes any; `raw` is the peer: the same
 * bytes over the same kind of socket, without a protocol.
 */
import net from 'node:net';
import { parentPort, workerData } from 'node:worker_threads';
import { OpFailure, ServedObject, serveAgent } from '@arcbox/protocol';

const { path, kind, bytes } = workerData as { path: string; kind: 'served' | 'raw'; bytes: number };
const block = Buffer.alloc(64 * 1024, 0x61);

async function produce(object: ServedObject): Promise<void> {
  for (let at = 0; at < bytes; at += block.length) await object.output.write(block);
  object.finish({ code: 0 });
}

function object(id: string): ServedObject {
  if (id.startsWith('source')) {
    const source = new ServedObject({ id });
    void produce(source);
    return source;
  }
  const sink: ServedObject = new ServedObject({
    id,
    input(_data, eof) {
      if (eof) sink.finish({ code: 0 });
    },
  });
  return sink;
}

async function raw(socket: net.Socket): Promise<void> {
  for (let at = 0; at < bytes; at += block.length) {
    if (!socket.write(block)) await new Promise((resolve) => socket.once('drain', resolve));
  }
  socket.end();
}

const server = net.createServer((socket) => {
  if (kind === 'raw') {
    void raw(socket);
    return;
  }
  serveAgent(socket, {
    object,
    op(op) {
      if (op.case === 'sync') return undefined;
      throw new OpFailure(38, `${op.case} is not implemented`);
    },
  });
});
server.listen(path, () => parentPort?.postMessage('listening'));
