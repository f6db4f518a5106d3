/** Pings the address given, from several flows at once, and prints what came back to each; or that the host does not allow it. */
import { NodeNetwork } from '@arcbox/net/stack';

const TIMEOUT_MS = 60_000;
const FLOWS = 3;

const network = new NodeNetwork(new Uint8Array(65_536));
const timer = setTimeout(() => process.exit(1), TIMEOUT_MS);
const answers: string[] = [];
for (let flow = 0; flow < FLOWS; flow += 1) {
  const ping = network.ping(process.argv[2] ?? '', {
    reply(sequence, payload) {
      answers.push(`${flow}: ${sequence} ${Buffer.from(payload)}`);
      ping?.close();
      if (answers.length < FLOWS) return;
      clearTimeout(timer);
      process.stdout.write(`${answers.sort().join('\n')}\n`);
    },
  });
  if (ping === undefined) {
    clearTimeout(timer);
    process.stdout.write('not allowed\n');
    break;
  }
  ping.send(7, Buffer.from(`pong ${flow}`));
}
