/**
 * The far end of many connections at once, in a process of its own: `swarm-peer.ts COUNT BYTES`. It prints the port it
 * listens on, waits until all are there, sends each its own bytes and takes them back, and prints what became of it.
 */
import { createHash, randomBytes, randomFillSync } from 'node:crypto';
import { once } from 'node:events';
import net, { type AddressInfo, type Socket } from 'node:net';

const BLOCK_BYTES = 64 * 1024;
/** How far into the noise the next block begins; odd, so that it takes long until it comes to the same place. */
const STEP_BYTES = 61;
const [count = 0, bytes = 0] = process.argv.slice(2).map(Number);
/** Longer than a block, so that a block may begin anywhere in the first half. */
const noise = randomFillSync(Buffer.alloc(2 * BLOCK_BYTES));

const sockets: Socket[] = [];
const complete = Promise.withResolvers<void>();
const server = net.createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => {
  sockets.push(socket);
  if (sockets.length === count) complete.resolve();
});
server.listen(0, '127.0.0.1', 4096);
await once(server, 'listening');
process.stdout.write(`${(server.address() as AddressInfo).port}\n`);
await complete.promise;

async function exchange(socket: Socket, index: number): Promise<boolean> {
  const sent = createHash('sha256');
  const back = createHash('sha256');
  let received = 0;
  socket.on('data', (data) => {
    back.update(data);
    received += data.length;
  });
  const ended = once(socket, 'end');
  socket.resume();
  // The first bytes are this connection's alone, and no two blocks one after the other are the same.
  let piece = randomBytes(Math.min(32, bytes));
  let from = index * STEP_BYTES;
  for (let left = bytes; left > 0; from += STEP_BYTES) {
    sent.update(piece);
    left -= piece.length;
    if (!socket.write(piece)) await once(socket, 'drain');
    piece = noise.subarray(from % BLOCK_BYTES, (from % BLOCK_BYTES) + Math.min(BLOCK_BYTES, left));
  }
  socket.end();
  await ended;
  return received === bytes && sent.digest('hex') === back.digest('hex');
}

const began = performance.now();
const intact = await Promise.all(sockets.map((socket, index) => exchange(socket, index).catch(() => false)));
const seconds = (performance.now() - began) / 1000;
process.stdout.write(`${JSON.stringify({ intact: intact.filter((whole) => whole).length, seconds })}\n`);
server.close();
