/** Pings the address given, once, and prints what came back. */
import { NodeNetwork } from '@arcbox/net/stack';

const TIMEOUT_MS = 60_000;

const network = new NodeNetwork(new Uint8Array(65_536));
const timer = setTimeout(() => process.exit(1), TIMEOUT_MS);
const ping = network.ping(process.argv[2] ?? '', {
  reply(sequence, payload) {
    clearTimeout(timer);
    process.stdout.write(`${sequence} ${Buffer.from(payload)}\n`);
    ping?.close();
  },
});
if (ping === undefined) {
  clearTimeout(timer);
  process.stdout.write('not allowed\n');
} else ping.send(7, Buffer.from('pong'));
