/** The DHCP server against busybox's udhcpc and Debian's dhclient, over a cable between two namespaces. */
import assert from 'node:assert/strict';
import { chmod, copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { connect, Namespace, Program } from './support/namespace.ts';

const DHCLIENT = '/usr/sbin/dhclient';

test('udhcpc gets an address and every option it asks for, renews it, and gives it back', async () => {
  await using host = await Namespace.create();
  await using guest = await Namespace.create();
  await connect(host, 'h0', guest, 'eth0');
  await host.ip('addr add 10.77.0.1/24 dev h0');
  await host.ip('route add 255.255.255.255/32 dev h0');
  const directory = await mkdtemp(path.join(os.tmpdir(), 'arcbox-dhcp-'));
  try {
    const script = path.join(directory, 'script');
    const lines = [
      '#!/bin/sh',
      `env >${directory}/$1`,
      'case $1 in',
      '  deconfig) ip addr flush dev "$interface" ;;',
      '  bound) ip addr add "$ip/$mask" dev "$interface" ;;',
      'esac',
      'echo "$1 is done"',
    ];
    await writeFile(script, lines.join('\n'));
    await chmod(script, 0o755);
    await using server = await host.program(path.join(import.meta.dirname, 'support', 'dhcp-program.ts'));
    const options = ['mtu', 'search', 'staticroutes', 'broadcast', 'lease'].flatMap((name) => ['-O', name]);
    const words = ['busybox', 'udhcpc', '-f', '-R', '-T', '2', '-i', 'eth0', '-s', script, ...options];
    {
      await using client = new Program(guest.spawn(...words), 'signal');
      await client.until('bound is done');
      client.signal('SIGUSR1');
      await client.until('renew is done');
      await client[Symbol.asyncDispose]();
    }
    await server.until('releases 1\n');
    const bound = await readFile(path.join(directory, 'bound'), 'utf8');
    for (const line of [
      'ip=10.77.0.2',
      'subnet=255.255.255.0',
      'mask=24',
      'router=10.77.0.1',
      'dns=10.77.0.1',
      'mtu=1400',
      'lease=3600',
      'broadcast=10.77.0.255',
      'domain=arcbox.local',
      'search=arcbox.local example.test',
      'staticroutes=0.0.0.0/0 10.77.0.1 10.96.0.0/12 10.77.0.254',
    ]) {
      assert.ok(bound.split('\n').includes(line), `${line} is not in:\n${bound}`);
    }
    await server[Symbol.asyncDispose]();
    const { counters, bindings } = JSON.parse(server.output.split('\n').at(-2) ?? '') as {
      counters: Record<string, number>;
      bindings: unknown[];
    };
    assert.deepEqual(bindings, []);
    assert.equal(counters.releases, 1);
    // udhcpc asks for the renewal on a connected socket that it closes at once: an acknowledgement that is there before
    // it has closed it is lost with it, and it asks again.
    assert.ok((counters.acks ?? 0) >= 2, `${counters.acks} acknowledgements`);
    assert.equal(counters.malformed, 0);
    assert.equal(counters.naks, 0);
  } finally {
    await rm(directory, { recursive: true });
  }
});

test('dhclient, configured as Debian does, gets an address and every option it asks for', async () => {
  await using host = await Namespace.create();
  await using guest = await Namespace.create();
  await connect(host, 'h0', guest, 'eth0');
  await host.ip('addr add 10.77.0.1/24 dev h0');
  await host.ip('route add 255.255.255.255/32 dev h0');
  const directory = await mkdtemp(path.join(os.tmpdir(), 'arcbox-dhclient-'));
  try {
    const script = path.join(directory, 'script');
    const lines = [
      '#!/bin/sh',
      `env >${directory}/$reason`,
      'case $reason in',
      '  PREINIT) ip link set "$interface" up ;;',
      '  BOUND) ip addr add "$new_ip_address/$new_subnet_mask" dev "$interface" ;;',
      'esac',
      'echo "$reason is done"',
    ];
    await writeFile(script, lines.join('\n'));
    await chmod(script, 0o755);
    await using server = await host.program(path.join(import.meta.dirname, 'support', 'dhcp-program.ts'));
    // A copy: where there is AppArmor, the one in its own place may neither write nor run anything here.
    const dhclient = path.join(directory, 'dhclient');
    await copyFile(DHCLIENT, dhclient);
    const files = ['-lf', path.join(directory, 'leases'), '-pf', path.join(directory, 'pid'), '-sf', script];
    {
      await using client = new Program(guest.spawn(dhclient, '-4', '-d', '-q', ...files, 'eth0'), 'signal');
      await client.until('BOUND is done');
    }
    const bound = await readFile(path.join(directory, 'BOUND'), 'utf8');
    for (const line of [
      'new_ip_address=10.77.0.2',
      'new_subnet_mask=255.255.255.0',
      'new_broadcast_address=10.77.0.255',
      'new_domain_name_servers=10.77.0.1',
      'new_domain_name=arcbox.local',
      'new_domain_search=arcbox.local. example.test.',
      'new_interface_mtu=1400',
      'new_dhcp_lease_time=3600',
      'new_dhcp_server_identifier=10.77.0.1',
      'new_rfc3442_classless_static_routes=0 10 77 0 1 12 10 96 10 77 0 254',
    ]) {
      assert.ok(bound.split('\n').includes(line), `${line} is not in:\n${bound}`);
    }
    await server[Symbol.asyncDispose]();
    const { counters } = JSON.parse(server.output.split('\n').at(-2) ?? '') as {
      counters: Record<string, number>;
    };
    assert.deepEqual([counters.acks, counters.malformed, counters.naks], [1, 0, 0]);
  } finally {
    await rm(directory, { recursive: true });
  }
});
