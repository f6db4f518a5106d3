/** IPv4 packets for tests, with all checksums right; and a judge that reads them without the code under test. */
import assert from 'node:assert/strict';

const ip = (text: string): number[] => text.split('.').map(Number);

/** RFC 1071, the plain way. */
export function plainChecksum(bytes: Uint8Array, initial = 0): number {
  let sum = initial;
  for (let at = 0; at < bytes.length; at += 2) sum += ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return ~sum & 0xffff;
}

function pseudo(source: string, destination: string, protocol: number, length: number): number {
  const bytes = Buffer.from([...ip(source), ...ip(destination), 0, protocol, length >> 8, length & 0xff]);
  return ~plainChecksum(bytes) & 0xffff;
}

export interface IpFields {
  readonly from: string;
  readonly to: string;
  readonly ttl?: number;
  readonly id?: number;
  /** Flags and offset. */
  readonly fragment?: number;
  /** A multiple of four bytes. */
  readonly options?: readonly number[];
}

export function ipPacket(fields: IpFields, protocol: number, payload: Uint8Array): Buffer {
  const { options = [], ttl = 64, id = 7, fragment = 0 } = fields;
  const header = 20 + options.length;
  const packet = Buffer.alloc(header + payload.length);
  packet[0] = 0x40 | (header / 4);
  packet.writeUInt16BE(packet.length, 2);
  packet.writeUInt16BE(id, 4);
  packet.writeUInt16BE(fragment, 6);
  packet[8] = ttl;
  packet[9] = protocol;
  packet.set(ip(fields.from), 12);
  packet.set(ip(fields.to), 16);
  packet.set(options, 20);
  packet.writeUInt16BE(plainChecksum(packet.subarray(0, header)), 10);
  packet.set(payload, header);
  return packet;
}

export function tcpSegment(fields: IpFields, from: number, to: number, flags: number, data = ''): Buffer {
  const segment = Buffer.alloc(20 + data.length);
  segment.writeUInt16BE(from, 0);
  segment.writeUInt16BE(to, 2);
  segment.writeUInt32BE(1000, 4);
  segment.writeUInt32BE((flags & 0x10) !== 0 ? 5000 : 0, 8);
  segment[12] = 0x50;
  segment[13] = flags;
  segment.write(data, 20);
  segment.writeUInt16BE(plainChecksum(segment, pseudo(fields.from, fields.to, 6, segment.length)), 16);
  return ipPacket(fields, 6, segment);
}

export function udpDatagram(
  fields: IpFields,
  from: number,
  to: number,
  data = 'x',
  checksummed = true,
): Buffer {
  const datagram = Buffer.alloc(8 + data.length);
  datagram.writeUInt16BE(from, 0);
  datagram.writeUInt16BE(to, 2);
  datagram.writeUInt16BE(datagram.length, 4);
  datagram.write(data, 8);
  const sum = plainChecksum(datagram, pseudo(fields.from, fields.to, 17, datagram.length));
  if (checksummed) datagram.writeUInt16BE(sum === 0 ? 0xffff : sum, 6);
  return ipPacket(fields, 17, datagram);
}

export function icmpEcho(fields: IpFields, type: 0 | 8, id: number, data = 'ping'): Buffer {
  const message = Buffer.alloc(8 + data.length);
  message[0] = type;
  message.writeUInt16BE(id, 4);
  message.write(data, 8);
  message.writeUInt16BE(plainChecksum(message), 2);
  return ipPacket(fields, 1, message);
}

export function icmpAbout(fields: IpFields, type: number, code: number, quoted: Uint8Array): Buffer {
  const message = Buffer.alloc(8 + quoted.length);
  message[0] = type;
  message[1] = code;
  message.set(quoted, 8);
  message.writeUInt16BE(plainChecksum(message), 2);
  return ipPacket(fields, 1, message);
}

export interface Read {
  readonly from: string;
  readonly to: string;
  readonly ttl: number;
  readonly protocol: number;
  /** Of an echo its identifier, twice. */
  readonly fromPort: number;
  readonly toPort: number;
  readonly payload: Buffer;
}

/** Reads a packet; fails when one of its checksums is wrong. `whole` is false for a fragment or a quoted part. */
export function read(packet: Buffer, whole = true): Read {
  const header = ((packet[0] ?? 0) & 15) * 4;
  assert.equal(plainChecksum(packet.subarray(0, header)), 0, 'IP checksum');
  const from = packet.subarray(12, 16).join('.');
  const to = packet.subarray(16, 20).join('.');
  const protocol = packet[9] ?? 0;
  const payload = packet.subarray(header, whole ? packet.readUInt16BE(2) : undefined);
  if (whole && (protocol === 6 || (protocol === 17 && payload.readUInt16BE(6) !== 0))) {
    assert.equal(
      plainChecksum(payload, pseudo(from, to, protocol, payload.length)),
      0,
      `checksum of ${protocol}`,
    );
  }
  if (whole && protocol === 1) assert.equal(plainChecksum(payload), 0, 'ICMP checksum');
  const echo = protocol === 1;
  return {
    from,
    to,
    ttl: packet[8] ?? 0,
    protocol,
    fromPort: payload.readUInt16BE(echo ? 4 : 0),
    toPort: payload.readUInt16BE(echo ? 4 : 2),
    payload,
  };
}
