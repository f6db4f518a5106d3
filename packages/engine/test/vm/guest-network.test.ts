/** Container networks inside a machine, without anybody at the other end of its card. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import type { AgentClient, Attachment } from '@arcbox/protocol';
import { QemuDriver } from '@arcbox/vm';
import { bootDirectory, loadBootAssets } from '../../src/boot-assets.ts';
import { namespacePath } from '../../src/machine/guest-layout.ts';
import { type GuestInterface, GuestNetwork } from '../../src/network/guest-network.ts';

const MTU = 65_520;

function endpoint(number: number, vlan: number, host: number): GuestInterface {
  return {
    number,
    vlan,
    position: 0,
    mac: Buffer.from([2, 0x42, 10, 9, vlan, host]),
    addresses: [
      { address: Buffer.from([10, 9, vlan, host]), prefix: 24 },
      {
        address: Buffer.from(
          `fd00000000000000000000000000${vlan.toString(16).padStart(2, '0')}${host.toString(16).padStart(2, '0')}`,
          'hex',
        ),
        prefix: 120,
      },
    ],
    gateways: [Buffer.from([10, 9, vlan, 1])],
  };
}

/** Runs a program of the machine's inside a container's network namespace. */
async function runIn(
  client: AgentClient,
  container: string,
  ...argv: string[]
): Promise<{ code: number; output: string }> {
  const id = `run-${Math.random().toString(36).slice(2)}`;
  let output = '';
  const taken = [0, 0, 0];
  await client.batch([
    {
      case: 'spawn',
      value: {
        id,
        argv: ['/bin/busybox', 'nsenter', `--net=${namespacePath(container)}`, '/bin/busybox', ...argv],
        env: [],
        cwd: '/',
      },
    },
  ]);
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
  // What came before the call returned.
  for (const channel of [1, 2] as const) attachment.ack(channel, taken[channel] ?? 0);
  const { code } = await client.wait(id);
  await attachment.closed;
  await client.batch([{ case: 'release', value: { id } }]);
  return { code, output };
}

it('containers of a network reach each other, those of another do not, and nothing is left', async () => {
  const runRoot = await mkdtemp(join(tmpdir(), 'arcbox-net-'));
  try {
    const assets = await loadBootAssets(bootDirectory(process.env));
    const driver = await QemuDriver.detect({ runRoot, bootDirectory: assets.directory });
    await using prepared = await driver.create({
      name: 'guest-network',
      architecture: assets.architecture,
      vcpus: 1,
      memoryMib: 256,
      memory: { kind: 'memfd' },
      kernel: assets.kernel,
      initramfs: assets.initramfs,
      kernelArgs: [],
      disks: [],
      nics: [{ mac: '52:54:00:00:00:01', mtu: MTU }],
      lifetime: { kind: 'ephemeral' },
      bootTimeoutMs: 30_000,
    });
    const vm = await prepared.boot();
    try {
      await using client = await vm.openAgent();
      const network = new GuestNetwork(client, MTU);
      await network.plugIn('a', [endpoint(1, 5, 2)]);
      await network.plugIn('b', [endpoint(2, 5, 3)]);
      await network.plugIn('c', []);
      await network.connect('c', endpoint(3, 6, 3));

      assert.match(
        (await runIn(client, 'a', 'ping', '-c', '1', '-W', '20', '-s', '60000', '10.9.5.3')).output,
        / 1 packets received/,
      );
      assert.match(
        (await runIn(client, 'b', 'ping', '-c', '1', '-W', '20', 'fd00::502')).output,
        / 1 packets received/,
      );
      assert.match(
        (await runIn(client, 'c', 'ping', '-c', '1', '-W', '1', '10.9.5.3')).output,
        / 0 packets received/,
      );
      const links = (await runIn(client, 'a', 'ip', 'addr')).output;
      assert.match(links, /eth0@.*mtu 65520/);
      assert.match(links, /02:42:0a:09:05:02/);
      assert.match((await runIn(client, 'a', 'ip', 'route')).output, /default via 10\.9\.5\.1 dev eth0/);

      // With another MAC address, its neighbour's for one, nothing of it passes.
      for (const [mac, received] of [
        ['02:42:0a:09:05:03', 0],
        ['02:42:0a:09:05:77', 0],
        ['02:42:0a:09:05:02', 1],
      ] as const) {
        for (const change of [['down'], ['address', mac], ['up']]) {
          assert.deepEqual(await runIn(client, 'a', 'ip', 'link', 'set', 'eth0', ...change), {
            code: 0,
            output: '',
          });
        }
        const { output } = await runIn(client, 'a', 'ping', '-c', '1', '-W', '1', '10.9.5.3');
        assert.match(output, new RegExp(` ${received} packets received`), mac);
      }

      // A daemon that takes the machine over knows nothing of what is there.
      const again = new GuestNetwork(client, MTU);
      await again.disconnect(2);
      await again.disconnect(2);
      await again.connect('b', endpoint(4, 6, 4));
      assert.match(
        (await runIn(client, 'c', 'ping', '-c', '1', '-W', '20', '10.9.6.4')).output,
        / 1 packets received/,
      );
      await again.plugIn('a', []);
      await assert.rejects(again.connect('b', endpoint(5, 5, 5)), { code: 'ERR_ARCBOX_NETWORK' });

      for (const container of ['a', 'b', 'c', 'nobody']) await again.releaseNamespace(container);
      for (const vlan of [5, 6, 7]) await again.removeNetwork(vlan);
      // Namespaces end behind our back; a cable that was just cut may still be listed.
      const [left] = await client.batch([{ case: 'list', value: { path: '/run/n' } }]);
      assert.ok(left?.result.case === 'list');
      assert.deepEqual(left.result.value.entries, []);
    } finally {
      await vm.kill();
    }
  } finally {
    await rm(runRoot, { recursive: true, force: true });
  }
});
