/**
 * Messages of rtnetlink (rtnetlink(7), linux/rtnetlink.h), as many as are needed to set up links in a guest.
 *
 * A message is a header of 16 bytes (length, type, flags, sequence, port), a fixed struct, and attributes: length and
 * type, 16 bits each, then the value, padded to four bytes; an attribute's value may be attributes again. Integers are
 * little-endian, as the guests' processors are; addresses are in network order. Several messages in one buffer are
 * carried out one after the other, each on its own: one that fails does not keep the next from being tried.
 */

const NLM_F_REQUEST = 1;
const NLM_F_ACK = 4;
const NLM_F_REPLACE = 0x100;
const NLM_F_EXCL = 0x200;
const NLM_F_CREATE = 0x400;

const NLMSG_ERROR = 2;
const RTM_NEWLINK = 16;
const RTM_DELLINK = 17;
const RTM_GETLINK = 18;
const RTM_SETLINK = 19;
const RTM_NEWADDR = 20;
const RTM_NEWROUTE = 24;
const RTM_NEWNEIGH = 28;

const IFLA_ADDRESS = 1;
const IFLA_IFNAME = 3;
const IFLA_MTU = 4;
const IFLA_LINK = 5;
const IFLA_MASTER = 10;
const IFLA_PROTINFO = 12;
const IFLA_LINKINFO = 18;
const IFLA_NET_NS_PID = 19;
const IFLA_AF_SPEC = 26;
const IFLA_INET6_ADDR_GEN_MODE = 8;
const IN6_ADDR_GEN_MODE_NONE = 1;
const IFLA_INFO_KIND = 1;
const IFLA_INFO_DATA = 2;
const IFLA_VLAN_ID = 1;
const VETH_INFO_PEER = 1;
const NLA_F_NESTED = 0x8000;
const IFLA_BRPORT_LEARNING = 8;
const IFLA_BRPORT_LOCKED = 39;

const NDA_LLADDR = 2;
const NTF_MASTER = 4;
const NUD_NOARP = 0x40;

const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const IFA_BROADCAST = 4;
const IFA_FLAGS = 8;
/** No duplicate address detection: the address is ours by decree, and usable at once. */
const IFA_F_NODAD = 2;

const RTA_GATEWAY = 5;
const RTA_OIF = 4;
const RT_TABLE_MAIN = 254;
const RTPROT_STATIC = 4;
const RTN_UNICAST = 1;

const IFF_UP = 1;
const AF_INET = 2;
const AF_BRIDGE = 7;
const AF_INET6 = 10;

const HEADER_BYTES = 16;

/** One message, still without its sequence number. */
export interface NetlinkMessage {
  readonly type: number;
  readonly flags: number;
  readonly payload: Buffer;
}

function attribute(type: number, value: Buffer): Buffer {
  const padded = Buffer.alloc(4 + ((value.length + 3) & ~3));
  padded.writeUInt16LE(4 + value.length, 0);
  padded.writeUInt16LE(type, 2);
  value.copy(padded, 4);
  return padded;
}

function text(type: number, value: string): Buffer {
  return attribute(type, Buffer.from(`${value}\0`));
}

function u32(type: number, value: number): Buffer {
  const buffer = Buffer.alloc(4);
  buffer.writeUInt32LE(value);
  return attribute(type, buffer);
}

function u16(type: number, value: number): Buffer {
  const buffer = Buffer.alloc(2);
  buffer.writeUInt16LE(value);
  return attribute(type, buffer);
}

function nested(type: number, ...attributes: readonly Buffer[]): Buffer {
  return attribute(type, Buffer.concat(attributes));
}

/** struct ifinfomsg. */
function linkHeader(index: number, up: boolean | undefined): Buffer {
  const header = Buffer.alloc(16);
  header.writeInt32LE(index, 4);
  if (up !== undefined) {
    header.writeUInt32LE(up ? IFF_UP : 0, 8);
    header.writeUInt32LE(IFF_UP, 12);
  }
  return header;
}

function newLink(index: number, up: boolean, kind: string, data: readonly Buffer[], rest: readonly Buffer[]) {
  const info = [text(IFLA_INFO_KIND, kind), ...(data.length === 0 ? [] : [nested(IFLA_INFO_DATA, ...data)])];
  return {
    type: RTM_NEWLINK,
    flags: NLM_F_CREATE | NLM_F_EXCL,
    payload: Buffer.concat([linkHeader(index, up), ...rest, nested(IFLA_LINKINFO, ...info)]),
  };
}

/** A bridge, up, without an address. */
export function newBridge(link: { index: number; name: string; mtu: number }): NetlinkMessage {
  return newLink(link.index, true, 'bridge', [], [text(IFLA_IFNAME, link.name), u32(IFLA_MTU, link.mtu)]);
}

/** The VLAN `id` (IEEE 802.1Q, 1 to 4094) of the link `parent`, as a port of the bridge `master`, up. */
export function newVlan(link: {
  index: number;
  name: string;
  parent: number;
  id: number;
  master: number;
}): NetlinkMessage {
  return newLink(
    link.index,
    true,
    'vlan',
    [u16(IFLA_VLAN_ID, link.id)],
    [text(IFLA_IFNAME, link.name), u32(IFLA_LINK, link.parent), u32(IFLA_MASTER, link.master)],
  );
}

/** A cable: one end here, the other in the network namespace of the process `peer.netnsPid`. Both are down. */
export function newVeth(link: {
  index: number;
  name: string;
  mac: Buffer;
  mtu: number;
  peer: { index: number; name: string; netnsPid: number };
}): NetlinkMessage {
  const { peer } = link;
  const far = Buffer.concat([
    linkHeader(peer.index, undefined),
    text(IFLA_IFNAME, peer.name),
    u32(IFLA_MTU, link.mtu),
    u32(IFLA_NET_NS_PID, peer.netnsPid),
  ]);
  return newLink(
    link.index,
    false,
    'veth',
    [attribute(VETH_INFO_PEER, far)],
    [text(IFLA_IFNAME, link.name), attribute(IFLA_ADDRESS, link.mac), u32(IFLA_MTU, link.mtu)],
  );
}

/** Changes a link, named by its index or, with 0, by `name`. */
export function setLink(link: {
  index?: number;
  name?: string;
  up: boolean;
  master?: number;
  mtu?: number;
}): NetlinkMessage {
  return {
    type: RTM_SETLINK,
    flags: 0,
    payload: Buffer.concat([
      linkHeader(link.index ?? 0, link.up),
      ...(link.name === undefined ? [] : [text(IFLA_IFNAME, link.name)]),
      ...(link.mtu === undefined ? [] : [u32(IFLA_MTU, link.mtu)]),
      ...(link.master === undefined ? [] : [u32(IFLA_MASTER, link.master)]),
    ]),
  };
}

/** The link, which is down, will not make an IPv6 address of its own, nor tell anybody of one. */
export function noLinkLocal(index: number): NetlinkMessage {
  const mode = attribute(IFLA_INET6_ADDR_GEN_MODE, Buffer.from([IN6_ADDR_GEN_MODE_NONE]));
  const families = attribute(IFLA_AF_SPEC, attribute(AF_INET6, mode));
  return {
    type: RTM_SETLINK,
    flags: 0,
    payload: Buffer.concat([linkHeader(index, undefined), families]),
  };
}

/** What comes in at the bridge port `index` passes only from addresses that {@link newPortAddress} gave it. */
export function lockPort(index: number): NetlinkMessage {
  const header = linkHeader(index, undefined);
  header[0] = AF_BRIDGE;
  const port = nested(
    IFLA_PROTINFO | NLA_F_NESTED,
    attribute(IFLA_BRPORT_LEARNING, Buffer.of(0)),
    attribute(IFLA_BRPORT_LOCKED, Buffer.of(1)),
  );
  return { type: RTM_SETLINK, flags: 0, payload: Buffer.concat([header, port]) };
}

/** The MAC address is behind the bridge port `index`, and nowhere else. */
export function newPortAddress(index: number, mac: Buffer): NetlinkMessage {
  const header = Buffer.alloc(12);
  header[0] = AF_BRIDGE;
  header.writeInt32LE(index, 4);
  header.writeUInt16LE(NUD_NOARP, 8);
  header[10] = NTF_MASTER;
  return {
    type: RTM_NEWNEIGH,
    flags: NLM_F_CREATE | NLM_F_REPLACE,
    payload: Buffer.concat([header, attribute(NDA_LLADDR, mac)]),
  };
}

/** Removes a link by its index; the other end of a cable goes with it. */
export function deleteLink(index: number): NetlinkMessage {
  return { type: RTM_DELLINK, flags: 0, payload: linkHeader(index, undefined) };
}

/** Asks for a link by name; see {@link linkIndexes}. */
export function getLink(name: string): NetlinkMessage {
  return {
    type: RTM_GETLINK,
    flags: 0,
    payload: Buffer.concat([linkHeader(0, undefined), text(IFLA_IFNAME, name)]),
  };
}

/** Gives the link `index` an address of 4 or 16 bytes. */
export function newAddress(index: number, address: Buffer, prefix: number): NetlinkMessage {
  const header = Buffer.alloc(8);
  header[0] = address.length === 4 ? AF_INET : AF_INET6;
  header[1] = prefix;
  header.writeUInt32LE(index, 4);
  const attributes = [attribute(IFA_LOCAL, address), attribute(IFA_ADDRESS, address)];
  if (address.length === 4) {
    const mask = prefix === 0 ? 0 : (0xffffffff << (32 - prefix)) >>> 0;
    const broadcast = Buffer.alloc(4);
    broadcast.writeUInt32BE((address.readUInt32BE(0) | ~mask) >>> 0);
    attributes.push(attribute(IFA_BROADCAST, broadcast));
  } else {
    attributes.push(u32(IFA_FLAGS, IFA_F_NODAD));
  }
  return {
    type: RTM_NEWADDR,
    flags: NLM_F_CREATE | NLM_F_EXCL,
    payload: Buffer.concat([header, ...attributes]),
  };
}

/** The default route of the gateway's address family, through the link `index`. */
export function newDefaultRoute(index: number, gateway: Buffer): NetlinkMessage {
  const header = Buffer.alloc(12);
  header[0] = gateway.length === 4 ? AF_INET : AF_INET6;
  header[4] = RT_TABLE_MAIN;
  header[5] = RTPROT_STATIC;
  header[7] = RTN_UNICAST;
  return {
    type: RTM_NEWROUTE,
    flags: NLM_F_CREATE | NLM_F_EXCL,
    payload: Buffer.concat([header, attribute(RTA_GATEWAY, gateway), u32(RTA_OIF, index)]),
  };
}

/** One request of several messages, numbered from 1, each of which is answered. */
export function encodeRequest(messages: readonly NetlinkMessage[]): Buffer {
  return Buffer.concat(
    messages.map(({ type, flags, payload }, at) => {
      const header = Buffer.alloc(HEADER_BYTES);
      header.writeUInt32LE(HEADER_BYTES + payload.length, 0);
      header.writeUInt16LE(type, 4);
      header.writeUInt16LE(NLM_F_REQUEST | NLM_F_ACK | flags, 6);
      header.writeUInt32LE(at + 1, 8);
      return Buffer.concat([header, payload]);
    }),
  );
}

/** What the kernel said to each message: its errno, 0 when it was done, undefined when there was no answer. */
export function decodeErrors(answer: Uint8Array, messages: number): (number | undefined)[] {
  const errors = new Array<number | undefined>(messages).fill(undefined);
  for (const { type, sequence, body } of walk(answer)) {
    if (type === NLMSG_ERROR && body.length >= 4 && sequence >= 1 && sequence <= messages)
      errors[sequence - 1] = Math.abs(body.readInt32LE(0));
  }
  return errors;
}

/** The indexes of the links that an answer describes, by name. */
export function linkIndexes(answer: Uint8Array): Map<string, number> {
  const indexes = new Map<string, number>();
  for (const { type, body } of walk(answer)) {
    if (type !== RTM_NEWLINK || body.length < 16) continue;
    for (let at = 16; at + 4 <= body.length; ) {
      const length = body.readUInt16LE(at);
      if (length < 4 || at + length > body.length) break;
      if (body.readUInt16LE(at + 2) === IFLA_IFNAME)
        indexes.set(body.toString('utf8', at + 4, at + length - 1), body.readInt32LE(4));
      at += (length + 3) & ~3;
    }
  }
  return indexes;
}

function* walk(answer: Uint8Array): Generator<{ type: number; sequence: number; body: Buffer }> {
  const bytes = Buffer.from(answer.buffer, answer.byteOffset, answer.byteLength);
  for (let at = 0; at + HEADER_BYTES <= bytes.length; ) {
    const length = bytes.readUInt32LE(at);
    // A guest answers; it may be anything.
    if (length < HEADER_BYTES || at + length > bytes.length) return;
    yield {
      type: bytes.readUInt16LE(at + 4),
      sequence: bytes.readUInt32LE(at + 8),
      body: bytes.subarray(at + HEADER_BYTES, at + length),
    };
    at += (length + 3) & ~3;
  }
}
