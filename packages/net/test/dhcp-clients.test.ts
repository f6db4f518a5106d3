/** What Debian's, Alpine's and systemd's clients ask for, as they ask for it, and all that they are answered with. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DhcpServer, decodeMessage, MessageType } from '../src/dhcp/index.ts';
import { AddressPool } from '../src/index.ts';
import { formatIpv4 } from '../src/wire/index.ts';

const MAC = [2, 0x42, 10, 5, 0, 9];
const ADDRESS = '10.5.0.9';
type Option = readonly [code: number, value: readonly number[]];

interface Client {
  readonly name: string;
  readonly discover: readonly Option[];
  /** Beside the address and the server. */
  readonly request: readonly Option[];
  readonly broadcast?: boolean;
  /** Codes of what it gets, but for the type. */
  readonly gets: readonly number[];
}

const text = (value: string): number[] => [...Buffer.from(value)];
const ip = (value: string): number[] => value.split('.').map(Number);

/** Mask, broadcast, time offset, routers, domain, name servers, search, name, NetBIOS (2), MTU, routes, NTP. */
const DHCLIENT: readonly Option[] = [
  [12, text('debian')],
  [55, [1, 28, 2, 3, 15, 6, 119, 12, 44, 47, 26, 121, 42]],
];
const UDHCPC: readonly Option[] = [
  [61, [1, ...MAC]],
  [57, [2, 64]],
  [55, [1, 3, 6, 12, 15, 28, 42]],
  [60, text('udhcp 1.36.1')],
  [12, text('alpine')],
];
/** An identifier by RFC 4361: an interface's number and the machine's own (DUID-EN of systemd's enterprise number). */
const NETWORKD_ID = [255, 0xb6, 0x22, 0x0f, 0xeb, 0, 2, 0, 0, 0xab, 0x11, 1, 2, 3, 4, 5, 6, 7, 8];
const NETWORKD: readonly Option[] = [
  [61, NETWORKD_ID],
  [55, [1, 3, 6, 12, 15, 26, 33, 42, 119, 120, 121]],
  [57, [0x05, 0xc0]],
  [12, text('systemd')],
];

const ALWAYS = [51, 54, 58, 59];
const CLIENTS: readonly Client[] = [
  {
    name: 'dhclient of Debian',
    discover: DHCLIENT,
    request: DHCLIENT,
    gets: [...ALWAYS, 1, 3, 6, 12, 15, 26, 28, 42, 119, 121],
  },
  {
    name: 'udhcpc of Alpine',
    discover: UDHCPC,
    request: UDHCPC,
    gets: [...ALWAYS, 61, 1, 3, 6, 12, 15, 28, 42],
  },
  {
    name: 'systemd-networkd',
    discover: NETWORKD,
    request: NETWORKD,
    gets: [...ALWAYS, 61, 1, 3, 6, 12, 15, 26, 42, 119, 121],
  },
  {
    name: 'systemd-networkd, in a hurry, without an address that it could be answered at',
    discover: [...NETWORKD, [80, []]],
    request: [],
    broadcast: true,
    gets: [...ALWAYS, 61, 80, 1, 3, 6, 12, 15, 26, 42, 119, 121],
  },
];

const VALUES: ReadonlyMap<number, readonly number[]> = new Map([
  [1, ip('255.255.255.0')],
  [3, ip('10.5.0.1')],
  [6, ip('10.5.0.1')],
  [12, text('web')],
  [15, text('arcbox.local')],
  [26, [0x23, 0x28]],
  [28, ip('10.5.0.255')],
  [42, ip('10.5.0.3')],
  [51, [0, 0, 0x0e, 0x10]],
  [54, ip('10.5.0.1')],
  [58, [0, 0, 0x07, 0x08]],
  [59, [0, 0, 0x0c, 0x4e]],
  [119, [6, ...text('arcbox'), 5, ...text('local'), 0]],
  [121, [0, ...ip('10.5.0.1'), 12, 10, 96, ...ip('10.5.0.2')]],
]);

function packet(type: number, options: readonly Option[], broadcast: boolean): Uint8Array {
  const bytes = Buffer.alloc(240);
  bytes.set([1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef]);
  if (broadcast) bytes.writeUInt16BE(0x8000, 10);
  bytes.set(MAC, 28);
  bytes.writeUInt32BE(0x63825363, 236);
  const all: readonly Option[] = [[53, [type]], ...options];
  const encoded = all.flatMap(([code, value]) => [code, value.length, ...value]);
  const whole = Buffer.concat([bytes, Buffer.from([...encoded, 255])]);
  // BOOTP's shortest message, which all of them pad to.
  return Buffer.concat([whole, Buffer.alloc(Math.max(0, 300 - whole.length))]);
}

for (const { name, discover, request, broadcast = false, gets } of CLIENTS) {
  test(name, () => {
    const server = new DhcpServer({
      pool: new AddressPool({ subnet: '10.5.0.0/24' }),
      leaseS: 3600,
      mtu: 9000,
      domainName: 'arcbox.local',
      domainSearch: ['arcbox.local'],
      ntpServers: ['10.5.0.3'],
      routes: [
        { destination: '0.0.0.0/0', gateway: '10.5.0.1' },
        { destination: '10.96.0.0/12', gateway: '10.5.0.2' },
      ],
      reservedOnly: true,
      reservation: () => ({ address: ADDRESS, hostName: 'web' }),
    });
    const answerTo = (type: number, options: readonly Option[], expected: number): void => {
      const reply = server.handle(packet(type, options, broadcast), 0);
      assert.ok(reply !== undefined);
      assert.deepEqual(
        [reply.address, reply.port],
        [broadcast ? '255.255.255.255' : ADDRESS, 68],
        'where the answer goes',
      );
      const message = decodeMessage(reply.payload);
      assert.ok(message !== undefined);
      assert.equal(formatIpv4(message.yourAddress), ADDRESS);
      const { options: got } = message;
      assert.deepEqual([...(got.get(53) ?? [])], [expected]);
      const codes = [...got.keys()].filter((code) => code !== 53);
      assert.deepEqual(
        codes.toSorted((a, b) => a - b),
        gets.toSorted((a, b) => a - b),
      );
      for (const code of codes) {
        const sent = discover.find(([each]) => each === code && (code === 61 || code === 80))?.[1];
        assert.deepEqual([...(got.get(code) ?? [])], sent ?? VALUES.get(code), `option ${code}`);
      }
    };
    if (discover.some(([code]) => code === 80)) {
      answerTo(MessageType.discover, discover, MessageType.ack);
      return;
    }
    answerTo(MessageType.discover, discover, MessageType.offer);
    const chosen: readonly Option[] = [
      [54, ip('10.5.0.1')],
      [50, ip(ADDRESS)],
    ];
    answerTo(MessageType.request, [...chosen, ...request], MessageType.ack);
  });
}
