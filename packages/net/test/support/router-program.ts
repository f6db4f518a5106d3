/** A router in the namespace that it runs in; `outside` is moved to another one by the test. Prints its counters. */
import { createInterface } from 'node:readline';
import { NatRouter } from '../../src/nat/index.ts';

await using router = await NatRouter.start({
  inside: { name: 'in0', address: '10.7.0.2', prefixLength: 32, peer: '10.7.0.1', mtu: 1500 },
  outside: { name: 'out0' },
  nat: { inside: ['10.7.0.0/24'], gateway: '10.7.0.1', outside: '192.0.2.1' },
});
await router.publish('tcp', 8080, '10.7.0.2', 80);
process.stdout.write('ready\n');
for await (const line of createInterface({ input: process.stdin })) {
  if (line === 'counters') process.stdout.write(`${JSON.stringify(await router.counters())}\n`);
}
