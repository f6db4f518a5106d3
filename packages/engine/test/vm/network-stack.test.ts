/** A machine on the network worker: what programs in its networks can reach, byte for byte. */
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import net, { type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { NetworkWorker } from '@arcbox/net/worker';
import type { AgentClient, Attachment } from '@arcbox/protocol';
import { QemuDriver, type RunningVm } from '@arcbox/vm';
import { bootDirectory, loadBootAssets } from '../../src/boot-assets.ts';
import { namespacePath } from '../../src/machine/guest-layout.ts';
import { type GuestInterface, GuestNetwork } from '../../src/network/guest-network.ts';

const MTU = 65_520;
const GATEWAY = '10.9.5.1';
const MEGABYTES = 128;

let runRoot: string;
let vm: RunningVm;
let client: AgentClient;
let worker: NetworkWorker;

function endpoint(number: number, vlan: number, host: number): GuestInterface {
  return {
    number,
    vlan,
    position: 0,
    mac: Buffer.from([2, 0x42, 10, 9, vlan, host]),
    addresses: [{ address: Buffer.from([10, 9, vlan, host]), prefix: 24 }],
    gateways: [Buffer.from([10, 9, vlan, 1])],
  };
}

/** Runs a shell line in a container's network namespace. */
async function runIn(container: string, line: string): Promise<string> {
  const id = `run-${randomBytes(6).toString('hex')}`;
  let output = '';
  const taken = [0, 0, 0];
  const argv = [
    '/bin/busybox',
    'nsenter',
    `--net=${namespacePath(container)}`,
    '/bin/busybox',
    'sh',
    '-c',
    line,
  ];
  await client.batch([{ case: 'spawn', value: { id, argv, env: ['PATH=/bin'], cwd: '/' } }]);
  let attachment: Attachment | undefined;
  attachment = await client.attach(id, {
    output: { offset: 0, windowBytes: 65_536 },
    error: { offset: 0, windowBytes: 65_536 },
    onChunk: ({ channel, offset, data }) => {
      output += Buffer.from(data).toString('latin1');
      taken[channel] = offset + data.length;
      attachment?.ack(channel, offset + data.length);
    },
  });
  for (const channel of [1, 2] as const) attachment.ack(channel, taken[channel] ?? 0);
  await client.wait(id);
  await attachment.closed;
  await client.batch([{ case: 'release', value: { id } }]);
  return output;
}

describe('a machine on the network worker', () => {
  before(async () => {
    runRoot = await mkdtemp(join(tmpdir(), 'arcbox-net-'));
    const assets = await loadBootAssets(bootDirectory(process.env));
    const driver = await QemuDriver.detect({ runRoot, bootDirectory: assets.directory });
    const prepared = await driver.create({
      name: 'network-stack',
      architecture: assets.architecture,
      vcpus: 1,
      memoryMib: 384,
      memory: { kind: 'memfd' },
      kernel: assets.kernel,
      initramfs: assets.initramfs,
      kernelArgs: [],
      disks: [],
      nics: [{ mac: '52:54:00:00:00:01', mtu: MTU }],
      lifetime: { kind: 'ephemeral' },
      bootTimeoutMs: 60_000,
    });
    vm = await prepared.boot();
    client = await vm.openAgent();
    worker = await NetworkWorker.start({ warn: (what, detail) => console.error(what, detail) });
    for (const vlan of [5, 6]) {
      await worker.addNetwork({
        name: `n${vlan}`,
        mtu: MTU,
        subnet: `10.9.${vlan}.0/24`,
        gateway: `10.9.${vlan}.1`,
        internal: false,
        asks: false,
      });
    }
    const path = vm.nicPath(0);
    assert.ok(path !== undefined);
    await worker.plug('vm', path);
    await worker.attach('vm', 5, 'n5');
    await worker.attach('vm', 6, 'n6');
    const network = new GuestNetwork(client, MTU);
    await network.plugIn('a', [endpoint(1, 5, 2)]);
    await network.plugIn('b', [endpoint(2, 5, 3)]);
    const mac = '02:42:0a:09:05:02';
    await worker.addEndpoint({ owner: 'a', network: 'n5', addresses: ['10.9.5.2'], mac, names: ['alpha'] });
    await worker.addEndpoint({ owner: 'b', network: 'n5', addresses: ['10.9.5.3'], names: ['beta'] });
  });

  after(async () => {
    // What the first hook did not come to is not there.
    await worker?.[Symbol.asyncDispose]();
    await vm?.kill();
    await rm(runRoot, { recursive: true, force: true });
  });

  it('pings its gateway', async () => {
    assert.match(await runIn('a', `ping -c 3 -i 0.1 -W 20 ${GATEWAY}`), / 3 packets received/);
    assert.match(await runIn('a', `ping -c 1 -s 60000 -W 20 ${GATEWAY}`), / 1 packets received/);
  });

  it('tells an endpoint its address by DHCP, and nobody else', async () => {
    const ask = (container: string, tries: number): Promise<string> =>
      runIn(container, `udhcpc -i eth0 -n -q -f -t ${tries} -T 2 -s /bin/true 2>&1; echo ended with $?`);
    assert.match(await ask('a', 10), /lease of 10\.9\.5\.2 obtained from 10\.9\.5\.1[\s\S]*ended with 0/);
    // Nobody has said which card is b's.
    assert.match(await ask('b', 1), /no lease[\s\S]*ended with 1/);
  });

  it('resolves the names of its network, and the host', async () => {
    const answer = await runIn('a', `nslookup beta ${GATEWAY}; nslookup host.docker.internal ${GATEWAY}`);
    assert.match(answer, /10\.9\.5\.3/);
    assert.match(answer, /Address.*10\.9\.5\.1\n/);
  });

  it(`gets ${MEGABYTES} MB from a server on the host's loopback, and gives as much`, async () => {
    const block = randomBytes(1024 * 1024);
    const digest = createHash('sha256');
    for (let i = 0; i < MEGABYTES; i += 1) digest.update(block);
    const expected = digest.digest('hex');
    const up = createHash('sha256');
    const server = createServer((_request, response) => {
      let sent = 0;
      const go = (): void => {
        while (sent < MEGABYTES) {
          sent += 1;
          if (!response.write(block)) {
            response.once('drain', go);
            return;
          }
        }
        response.end();
      };
      go();
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const sink = net.createServer((socket) => socket.pipe(up, { end: false }));
    sink.listen(0, '127.0.0.1');
    await once(sink, 'listening');
    const { port } = server.address() as AddressInfo;
    const down = await runIn('a', `wget -q -O - http://${GATEWAY}:${port}/ | sha256sum`);
    assert.equal(down.split(' ')[0], expected);
    const sinkPort = (sink.address() as AddressInfo).port;
    const ended = once(sink, 'connection').then(([socket]) => once(socket as net.Socket, 'end'));
    await runIn('a', `wget -q -O - http://${GATEWAY}:${port}/ | nc -w 60 ${GATEWAY} ${sinkPort} >/dev/null`);
    await ended;
    assert.equal(up.digest('hex'), expected);
    server.close();
    sink.close();
  });

  it('goes where a function of this thread sends it, and nowhere once that says no', async () => {
    const server = createServer((_request, response) => response.end('elsewhere'));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const owner = { kind: 'owner', name: 'a' } as const;
    await worker.setPolicy(owner, async ({ destination, destinationPort }) =>
      destination === '192.0.2.7' && destinationPort === 80
        ? { action: 'redirect', address: '127.0.0.1', port }
        : 'deny',
    );
    const fetch = (url: string): Promise<string> => runIn('a', `wget -q -O - ${url} 2>&1 || echo failed`);
    assert.equal(await fetch('http://192.0.2.7/'), 'elsewhere');
    assert.match(await fetch(`http://${GATEWAY}:${port}/`), /failed/);
    await worker.setPolicy(owner, undefined);
    assert.equal(await fetch(`http://${GATEWAY}:${port}/`), 'elsewhere');
    server.close();
  });

  it('is refused at once where nobody listens', async () => {
    const taken = net.createServer();
    taken.listen(0, '127.0.0.1');
    await once(taken, 'listening');
    const { port } = taken.address() as AddressInfo;
    taken.close();
    await once(taken, 'close');
    assert.match(await runIn('a', `nc -w 20 ${GATEWAY} ${port} </dev/null || echo refused`), /refused/);
  });

  it('serves a published port, with half-close in both directions', async () => {
    const served = runIn('b', 'nc -l -p 80 -e /bin/busybox sh -c "/bin/busybox tr a-z A-Z"');
    const hostPort = await worker.publish({
      id: 'web',
      network: 'n5',
      protocol: 'tcp',
      hostAddress: '127.0.0.1',
      hostPort: 0,
      address: '10.9.5.3',
      port: 80,
    });
    // Until the program listens there the client is reset at once, which it sees as an error.
    let answer = '';
    for (let waitMs = 1; answer === '' && waitMs < 20_000; waitMs *= 2) {
      const socket = net.connect({ host: '127.0.0.1', port: hostPort, allowHalfOpen: true });
      socket.end('half close');
      try {
        for await (const data of socket) answer += String(data);
      } catch (error) {
        assert.match(String(error), /ECONNRESET|EPIPE/);
      }
      if (answer === '') await delay(waitMs);
    }
    assert.equal(answer, 'HALF CLOSE');
    await served;
    await worker.unpublish('web');
  });
});
