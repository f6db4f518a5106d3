/** A thread that waits for packets of the uplink and puts them into a ring: waiting is all it does. */
import { readSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { PacketBuffers, Poller } from '@arcbox/sys';
import { RingProducer } from '../ring/spsc-ring.ts';
import { PACKET_BYTES_MAX } from './limits.ts';

export interface ReaderData {
  readonly fd: number;
  /** Readable: stop. */
  readonly stopFd: number;
  readonly ring: SharedArrayBuffer;
}

const DEVICE = 0;
const STOP = 1;
const { fd, stopFd, ring } = workerData as ReaderData;
const producer = new RingProducer(ring);
const buffers = new PacketBuffers(1, PACKET_BYTES_MAX);
const poller = new Poller([fd, stopFd]);
for (;;) {
  poller.wait(-1);
  if (poller.ready(STOP)) break;
  if (poller.broken(DEVICE)) throw new Error('the uplink’s device is gone');
  for (;;) {
    const length = buffers.read(fd, 0);
    if (length <= 0) break;
    // A full ring loses packets, as a full queue does.
    if (producer.put(buffers.bytes.subarray(0, length)) && producer.consumerWaits) parentPort?.postMessage(0);
  }
}
readSync(stopFd, Buffer.alloc(8));
