/**
 * Echo requests through the host's sockets, by one of two ways:
 *
 * - A ping socket (`SOCK_DGRAM`, `IPPROTO_ICMP`), which libuv takes for UDP: what it sends and gets are ICMP messages. The
 *   kernel gives the identifier, and tells us our own replies only. Not every host lets us: Debian's default is nobody.
 * - A raw socket, which needs CAP_NET_RAW and sees everybody's echo replies: ours are those with the identifier that we
 *   chose. Node opens no such descriptor. It opens a UDP socket, and before the event loop has looked at that for the
 *   first time, which is when this turn is over, the raw one takes its place.
 */
import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { closeFd, openDatagramSocket, openPingSocket, openRawPingSocket, replaceFd } from '@arcbox/sys';
import type { HostPing, HostPingEvents } from '../stack/host-network.ts';
import { putU16, u16 } from '../wire/bytes.ts';
import { checksum } from '../wire/checksum.ts';
import {
  ICMP_CHECKSUM,
  ICMP_ECHO_ID,
  ICMP_ECHO_REPLY,
  ICMP_ECHO_REQUEST,
  ICMP_ECHO_SEQUENCE,
  ICMP_HEADER_BYTES,
  ICMPV6_ECHO_REPLY,
  ICMPV6_ECHO_REQUEST,
  writeIcmp,
} from '../wire/icmp.ts';
import { IPV4_HEADER_BYTES } from '../wire/ipv4.ts';

const IDS = 65_536;
/** Node wants a port; ping sockets and IPv4 do not look at it, IPv6 takes it for the protocol. */
const PORT = 58;

/** Opens what the host allows; `undefined`: nothing. @throws {SysError} when there are too many descriptors. */
export function openPing(address: string, events: HostPingEvents): HostPing | undefined {
  const family = address.includes(':') ? 6 : 4;
  const fd = openPingSocket(family);
  if (fd !== undefined) return new NodePing(bound(fd, family), family, address, events, undefined);
  if (idsTaken.size >= IDS) return undefined;
  const raw = openRawPingSocket(family);
  if (raw === undefined) return undefined;
  let socket: UdpSocket | undefined;
  try {
    const place = openDatagramSocket(family);
    socket = bound(place, family);
    replaceFd(place, raw);
  } catch (error) {
    closeFd(raw);
    socket?.close();
    throw error;
  }
  return new NodePing(socket, family, address, events, freeId());
}

/** Closes the descriptor when it fails. */
function bound(fd: number, family: 4 | 6): UdpSocket {
  const socket = createSocket({
    type: family === 4 ? 'udp4' : 'udp6',
    lookup: (host, _options, callback) => callback(null, host, family),
  });
  // An address that cannot be reached is not answered, as by a network that drops.
  socket.on('error', () => {});
  try {
    socket.bind({ fd, exclusive: true });
  } catch (error) {
    closeFd(fd);
    throw error;
  }
  return socket;
}

/** Identifiers of raw sockets. */
const idsTaken = new Set<number>();

function freeId(): number {
  let id = Math.floor(Math.random() * IDS);
  while (idsTaken.has(id)) id = (id + 1) % IDS;
  idsTaken.add(id);
  return id;
}

class NodePing implements HostPing {
  readonly #socket: UdpSocket;
  readonly #family: 4 | 6;
  readonly #address: string;
  /** Of a raw socket. */
  readonly #id: number | undefined;
  #closed = false;

  constructor(
    socket: UdpSocket,
    family: 4 | 6,
    address: string,
    events: HostPingEvents,
    id: number | undefined,
  ) {
    this.#socket = socket;
    this.#family = family;
    this.#address = address;
    this.#id = id;
    const reply = family === 4 ? ICMP_ECHO_REPLY : ICMPV6_ECHO_REPLY;
    socket.on('message', (packet) => {
      const message = id !== undefined && family === 4 ? withoutIpHeader(packet) : packet;
      if (message.length < ICMP_HEADER_BYTES || message[0] !== reply) return;
      if (id !== undefined && u16(message, ICMP_ECHO_ID) !== id) return;
      events.reply(u16(message, ICMP_ECHO_SEQUENCE), message.subarray(ICMP_HEADER_BYTES));
    });
  }

  send(sequence: number, payload: Uint8Array): void {
    if (this.#closed) return;
    const message = new Uint8Array(ICMP_HEADER_BYTES + payload.length);
    const request = this.#family === 4 ? ICMP_ECHO_REQUEST : ICMPV6_ECHO_REQUEST;
    message.set(payload, writeIcmp(message, 0, request, 0, 0));
    putU16(message, ICMP_ECHO_SEQUENCE, sequence);
    // Without an identifier the kernel fills in its own, and the checksum; that of ICMPv6 in any case.
    if (this.#id !== undefined) {
      putU16(message, ICMP_ECHO_ID, this.#id);
      if (this.#family === 4) putU16(message, ICMP_CHECKSUM, checksum(message, 0, message.length));
    }
    this.#socket.send(message, PORT, this.#address, () => {});
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#id !== undefined) idsTaken.delete(this.#id);
    this.#socket.close();
  }
}

function withoutIpHeader(packet: Uint8Array): Uint8Array {
  const words = (packet[0] ?? 0) & 15;
  return packet.subarray(Math.max(IPV4_HEADER_BYTES, words * 4));
}
