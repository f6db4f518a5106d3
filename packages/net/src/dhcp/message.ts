/**
 * The DHCP message (RFC 2131 §2): a BOOTP header of 236 bytes, a magic number, then options of code, length and
 * value. Options may go on in the header's `file` and `sname` fields (option 52), and one that is longer than 255
 * bytes comes in pieces (RFC 3396).
 */

export const HEADER_BYTES = 236;
const MAGIC = 0x63825363;
const OPTIONS_AT = HEADER_BYTES + 4;
const FILE_AT = 108;
const FILE_BYTES = 128;
const SNAME_AT = 44;
const SNAME_BYTES = 64;
/** Smallest message that every BOOTP relay and client takes. */
export const MESSAGE_BYTES_MIN = 300;
/** What a client takes when it does not say (RFC 2131 §2: 576 bytes of IP datagram, 28 of them headers). */
export const MESSAGE_BYTES_DEFAULT = 576 - 28;
/** What we never exceed, whatever a client says: an Ethernet frame. */
export const MESSAGE_BYTES_MAX = 1500 - 28;

export const Op = { request: 1, reply: 2 } as const;

export const MessageType = {
  discover: 1,
  offer: 2,
  request: 3,
  decline: 4,
  ack: 5,
  nak: 6,
  release: 7,
  inform: 8,
} as const;

/** The codes of the options that we read or write. */
export const OptionCode = {
  pad: 0,
  subnetMask: 1,
  router: 3,
  dnsServers: 6,
  hostName: 12,
  domainName: 15,
  mtu: 26,
  broadcast: 28,
  ntpServers: 42,
  requestedAddress: 50,
  leaseTime: 51,
  overload: 52,
  messageType: 53,
  serverId: 54,
  parameterList: 55,
  message: 56,
  maxMessageSize: 57,
  renewalTime: 58,
  rebindingTime: 59,
  clientId: 61,
  rapidCommit: 80,
  domainSearch: 119,
  classlessRoutes: 121,
  end: 255,
} as const;

/** Addresses are unsigned numbers of 32 bits; views are of the packet that was decoded. */
export interface DhcpMessage {
  readonly op: number;
  readonly transactionId: number;
  readonly secs: number;
  readonly broadcast: boolean;
  readonly clientAddress: number;
  readonly yourAddress: number;
  readonly serverAddress: number;
  readonly relayAddress: number;
  /** Of Ethernet: six bytes. */
  readonly hardwareAddress: Uint8Array;
  readonly options: ReadonlyMap<number, Uint8Array>;
}

/** Decodes a message; `undefined` when it is malformed or not of an Ethernet client. Never throws. */
export function decodeMessage(packet: Uint8Array): DhcpMessage | undefined {
  if (packet.byteLength < OPTIONS_AT) return undefined;
  const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength);
  if (view.getUint32(HEADER_BYTES) !== MAGIC) return undefined;
  // Hardware type 1, six bytes: Ethernet.
  if (view.getUint8(1) !== 1 || view.getUint8(2) !== 6) return undefined;
  const options = new Map<number, Uint8Array>();
  if (!readOptions(packet.subarray(OPTIONS_AT), options)) return undefined;
  const overload = options.get(OptionCode.overload)?.[0] ?? 0;
  if (overload > 3) return undefined;
  if ((overload & 1) !== 0 && !readOptions(packet.subarray(FILE_AT, FILE_AT + FILE_BYTES), options)) {
    return undefined;
  }
  if ((overload & 2) !== 0 && !readOptions(packet.subarray(SNAME_AT, SNAME_AT + SNAME_BYTES), options)) {
    return undefined;
  }
  return {
    op: view.getUint8(0),
    transactionId: view.getUint32(4),
    secs: view.getUint16(8),
    broadcast: (view.getUint16(10) & 0x8000) !== 0,
    clientAddress: view.getUint32(12),
    yourAddress: view.getUint32(16),
    serverAddress: view.getUint32(20),
    relayAddress: view.getUint32(24),
    hardwareAddress: packet.subarray(28, 34),
    options,
  };
}

function readOptions(field: Uint8Array, into: Map<number, Uint8Array>): boolean {
  for (let at = 0; at < field.length; ) {
    const code = field[at++];
    if (code === undefined || code === OptionCode.end) return true;
    if (code === OptionCode.pad) continue;
    const length = field[at++];
    if (length === undefined || at + length > field.length) return false;
    const value = field.subarray(at, at + length);
    const before = into.get(code);
    into.set(code, before === undefined ? value : Buffer.concat([before, value]));
    at += length;
  }
  // The end option is missing; what was read is whole.
  return true;
}

export interface ReplyFields {
  readonly transactionId: number;
  readonly broadcast: boolean;
  readonly clientAddress: number;
  readonly yourAddress: number;
  readonly serverAddress: number;
  readonly relayAddress: number;
  readonly hardwareAddress: Uint8Array;
  /** In the order of their importance: what does not fit is left out, from the end. */
  readonly options: readonly (readonly [code: number, value: Uint8Array])[];
  readonly bytesMax: number;
}

/** Encodes a reply of the server. */
export function encodeReply(fields: ReplyFields): Uint8Array {
  const packet = new Uint8Array(Math.max(MESSAGE_BYTES_MIN, Math.min(fields.bytesMax, MESSAGE_BYTES_MAX)));
  const view = new DataView(packet.buffer);
  packet.set([Op.reply, 1, 6, 0]);
  view.setUint32(4, fields.transactionId);
  view.setUint16(10, fields.broadcast ? 0x8000 : 0);
  view.setUint32(12, fields.clientAddress);
  view.setUint32(16, fields.yourAddress);
  view.setUint32(20, fields.serverAddress);
  view.setUint32(24, fields.relayAddress);
  packet.set(fields.hardwareAddress.subarray(0, 6), 28);
  view.setUint32(HEADER_BYTES, MAGIC);
  let at = OPTIONS_AT;
  for (const [code, value] of fields.options) {
    const pieces = Math.max(1, Math.ceil(value.length / 255));
    // One byte is kept for the end.
    if (at + pieces * 2 + value.length + 1 > packet.length) continue;
    for (let piece = 0; piece < pieces; piece++) {
      const part = value.subarray(piece * 255, (piece + 1) * 255);
      packet[at++] = code;
      packet[at++] = part.length;
      packet.set(part, at);
      at += part.length;
    }
  }
  packet[at++] = OptionCode.end;
  return packet.subarray(0, Math.max(at, MESSAGE_BYTES_MIN));
}
