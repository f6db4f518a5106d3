/** The producing thread of the ring's benchmark: `count` records through the ring, or as messages. */
import { parentPort, workerData } from 'node:worker_threads';
import { RingProducer } from '@arcbox/net/ring';

const { memory, count, bytes } = workerData as { memory: SharedArrayBuffer; count: number; bytes: number };
const producer = new RingProducer(memory);
const record = new Uint8Array(bytes).fill(7);

parentPort?.on('message', (how: 'ring' | 'messages') => {
  for (let i = 0; i < count; ) {
    if (how === 'ring') {
      if (producer.put(record)) i += 1;
    } else {
      parentPort?.postMessage(record);
      i += 1;
    }
  }
});
