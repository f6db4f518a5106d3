/**
 * The pcapng format (draft-ietf-opsawg-pcapng), as far as a writer needs it: a file is a sequence of blocks of type,
 * length, body, and the length again, all padded to 32 bits. A section header begins it, an interface description
 * names each place of capture, then come enhanced packets. Written little-endian, times in nanoseconds.
 */

const BLOCK_SECTION = 0x0a0d0d0a;
const BLOCK_INTERFACE = 1;
const BLOCK_STATISTICS = 5;
const BLOCK_PACKET = 6;
const BYTE_ORDER_MAGIC = 0x1a2b3c4d;
const OPTION_END = 0;
/** Around every body. */
const FRAME_BYTES = 12;

export const LINK_TYPE_ETHERNET = 1;
/** IP without a link layer. */
export const LINK_TYPE_RAW = 101;

const padded = (length: number): number => (length + 3) & ~3;

type Option = readonly [code: number, value: Uint8Array];

const text = (value: string): Uint8Array => Buffer.from(value, 'utf8');

function options(list: readonly Option[]): Uint8Array {
  if (list.length === 0) return new Uint8Array(0);
  const parts = list.map(([code, value]) => {
    const option = Buffer.alloc(4 + padded(value.length));
    option.writeUInt16LE(code, 0);
    option.writeUInt16LE(value.length, 2);
    option.set(value, 4);
    return option;
  });
  return Buffer.concat([...parts, Buffer.of(OPTION_END, 0, 0, 0)]);
}

function block(type: number, head: Uint8Array, rest: Uint8Array): Uint8Array {
  const length = FRAME_BYTES + padded(head.length) + padded(rest.length);
  const bytes = Buffer.alloc(length);
  bytes.writeUInt32LE(type, 0);
  bytes.writeUInt32LE(length, 4);
  bytes.set(head, 8);
  bytes.set(rest, 8 + padded(head.length));
  bytes.writeUInt32LE(length, length - 4);
  return bytes;
}

/** What opens a file. */
export function sectionHeader(application: string): Uint8Array {
  const head = Buffer.alloc(16);
  head.writeUInt32LE(BYTE_ORDER_MAGIC, 0);
  head.writeUInt16LE(1, 4); // version 1.0
  head.writeBigInt64LE(-1n, 8); // length of the section: not said
  return block(BLOCK_SECTION, head, options([[4, text(application)]]));
}

export interface CaptureInterface {
  readonly name: string;
  readonly description?: string;
  readonly linkType: number;
  /** Longer packets are cut to this. */
  readonly snapBytes: number;
}

/** Interfaces are numbered from zero in the order of their descriptions. */
export function interfaceDescription(described: CaptureInterface): Uint8Array {
  const head = Buffer.alloc(8);
  head.writeUInt16LE(described.linkType, 0);
  head.writeUInt32LE(described.snapBytes, 4);
  const list: Option[] = [[2, text(described.name)]];
  if (described.description !== undefined) list.push([3, text(described.description)]);
  list.push([9, Buffer.of(9)]); // times count 10⁻⁹ s
  return block(BLOCK_INTERFACE, head, options(list));
}

export type Direction = 'in' | 'out';

/** `timeNs` since 1970; `bytes` is cut to `snapBytes`. */
export function packet(
  interfaceIndex: number,
  timeNs: bigint,
  bytes: Uint8Array,
  snapBytes: number,
  direction?: Direction,
): Uint8Array {
  const captured = Math.min(bytes.length, snapBytes);
  const optionBytes = direction === undefined ? 0 : 12;
  const length = FRAME_BYTES + 20 + padded(captured) + optionBytes;
  const out = Buffer.allocUnsafe(length);
  out.writeUInt32LE(BLOCK_PACKET, 0);
  out.writeUInt32LE(length, 4);
  out.writeUInt32LE(interfaceIndex, 8);
  out.writeUInt32LE(Number(timeNs >> 32n), 12);
  out.writeUInt32LE(Number(timeNs & 0xffffffffn), 16);
  out.writeUInt32LE(captured, 20);
  out.writeUInt32LE(bytes.length, 24);
  out.set(captured === bytes.length ? bytes : bytes.subarray(0, captured), 28);
  out.fill(0, 28 + captured, 28 + padded(captured));
  if (direction !== undefined) {
    const at = 28 + padded(captured);
    out.writeUInt16LE(2, at); // epb_flags
    out.writeUInt16LE(4, at + 2);
    out.writeUInt32LE(direction === 'in' ? 1 : 2, at + 4);
    out.writeUInt32LE(OPTION_END, at + 8);
  }
  out.writeUInt32LE(length, length - 4);
  return out;
}

/** How many packets the interface saw, and how many of them are not in the file. */
export function interfaceStatistics(
  interfaceIndex: number,
  timeNs: bigint,
  counts: { readonly received: number; readonly dropped: number },
): Uint8Array {
  const head = Buffer.alloc(12);
  head.writeUInt32LE(interfaceIndex, 0);
  head.writeUInt32LE(Number(timeNs >> 32n), 4);
  head.writeUInt32LE(Number(timeNs & 0xffffffffn), 8);
  const count = (value: number): Uint8Array => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(BigInt(value));
    return bytes;
  };
  return block(
    BLOCK_STATISTICS,
    head,
    options([
      [4, count(counts.received)],
      [5, count(counts.dropped)],
    ]),
  );
}
