/**
 * Two loops over bytes with SIMD: an Internet checksum sum, and a copy that sums on the way.
 *
 * They are WebAssembly, assembled here instruction by instruction: JavaScript sums about one byte a nanosecond, this
 * twenty. WebAssembly reaches only its own memory, so everything that frames go through lies in one (`Arena`).
 *
 * Both work on little-endian 16-bit words: the one's complement sum does not care (RFC 1071 section 2 B), and the two
 * bytes of the result are swapped at the end. A lane gets at most 2·65535 for 16 bytes, so 512 KiB cannot overflow one;
 * a frame has 64.
 */
import { type WasmMemory, wasm } from './webassembly.ts';

/** The kernels, bound to a memory. Lengths are at most 256 KiB. */
export interface Kernels {
  /** Folded one's complement sum (0 … 65535) of `length` bytes at `from`; an odd last byte is padded with zero. */
  sum(from: number, length: number): number;
  /** Copies forwards (the two must not overlap) and returns the sum. */
  copySum(to: number, from: number, length: number): number;
  /** Copies; overlapping is allowed. */
  copy(to: number, from: number, length: number): void;
}

const I32 = 0x7f;
const I64 = 0x7e;
const V128 = 0x7b;
const BLOCK = 0x02;
const LOOP = 0x03;
const IF = 0x04;
const END = 0x0b;
const BR = 0x0c;
const BR_IF = 0x0d;
const VOID = 0x40;
const GET = 0x20;
const SET = 0x21;
const I32_CONST = 0x41;
const I64_CONST = 0x42;
const I32_LT_U = 0x49;
const I32_EQZ = 0x45;
const I32_ADD = 0x6a;
const I32_SUB = 0x6b;
const I32_AND = 0x71;
const I32_OR = 0x72;
const I32_SHL = 0x74;
const I32_SHR_U = 0x76;
const I64_ADD = 0x7c;
const I64_AND = 0x83;
const I64_SHR_U = 0x88;
const I32_WRAP_I64 = 0xa7;
const I64_EXTEND_I32_U = 0xad;
const I32_LOAD8_U = [0x2d, 0x00, 0x00];
const I32_LOAD16_U = [0x2f, 0x00, 0x00];
const I32_STORE8 = [0x3a, 0x00, 0x00];
const I32_STORE16 = [0x3b, 0x00, 0x00];
const SIMD = 0xfd;
const I32X4_ADD = [SIMD, 0xae, 0x01];
const I32X4_EXTADD_PAIRWISE_I16X8_U = [SIMD, 0x7f];
const MEMORY_COPY = [0xfc, 0x0a, 0x00, 0x00];
const v128Load = (offset: number): number[] => [SIMD, 0x00, 0x00, offset];
const v128Store = (offset: number): number[] => [SIMD, 0x0b, 0x00, offset];
const lane = (index: number): number[] => [SIMD, 0x1b, index];

/** Signed LEB128. */
function leb(value: number): number[] {
  const out: number[] = [];
  for (let left = value; ; ) {
    const byte = left & 0x7f;
    left >>= 7;
    if ((left === 0 && (byte & 0x40) === 0) || (left === -1 && (byte & 0x40) !== 0)) return [...out, byte];
    out.push(byte | 0x80);
  }
}

const i32 = (value: number): number[] => [I32_CONST, ...leb(value)];

/** The body of `sum` or `copySum`; locals after the parameters: accumulator, vector, total. */
function sumBody(copies: boolean): number[] {
  const to = 0;
  const from = copies ? 1 : 0;
  const length = copies ? 2 : 1;
  const accumulator = length + 1;
  const vector = length + 2;
  const total = length + 3;
  const advance = (by: number): number[] => [
    ...[GET, from, ...i32(by), I32_ADD, SET, from],
    ...(copies ? [GET, to, ...i32(by), I32_ADD, SET, to] : []),
    ...[GET, length, ...i32(by), I32_SUB, SET, length],
  ];
  const sixteen = (offset: number): number[] => [
    ...[GET, from, ...v128Load(offset), SET, vector],
    ...(copies ? [GET, to, GET, vector, ...v128Store(offset)] : []),
    ...[GET, accumulator, GET, vector, ...I32X4_EXTADD_PAIRWISE_I16X8_U, ...I32X4_ADD, SET, accumulator],
  ];
  const whileAtLeast = (bytes: number, body: number[]): number[] => [
    ...[BLOCK, VOID, LOOP, VOID],
    ...[GET, length, ...i32(bytes), I32_LT_U, BR_IF, 1],
    ...body,
    ...advance(bytes),
    ...[BR, 0, END, END],
  ];
  const addLane = (index: number): number[] => [
    ...[GET, total, GET, accumulator, ...lane(index), I64_EXTEND_I32_U, I64_ADD, SET, total],
  ];
  const addTail = (load: number[], store: number[]): number[] => [
    ...(copies ? [GET, to, GET, from, ...load, ...store] : []),
    ...[GET, total, GET, from, ...load, I64_EXTEND_I32_U, I64_ADD, SET, total],
  ];
  const foldOnce = [
    ...[GET, total, I64_CONST, ...leb(0xffff), I64_AND],
    ...[GET, total, I64_CONST, ...leb(16), I64_SHR_U, I64_ADD, SET, total],
  ];
  const low = [GET, total, I32_WRAP_I64];
  return [
    ...whileAtLeast(64, [...sixteen(0), ...sixteen(16), ...sixteen(32), ...sixteen(48)]),
    ...whileAtLeast(16, sixteen(0)),
    ...whileAtLeast(2, addTail(I32_LOAD16_U, I32_STORE16)),
    ...[GET, length, I32_EQZ, I32_EQZ, IF, VOID, ...addTail(I32_LOAD8_U, I32_STORE8), END],
    ...[...addLane(0), ...addLane(1), ...addLane(2), ...addLane(3)],
    ...[...foldOnce, ...foldOnce, ...foldOnce],
    ...[...low, ...i32(8), I32_SHL, ...i32(0xff00), I32_AND],
    ...[...low, ...i32(8), I32_SHR_U, ...i32(0xff), I32_AND, I32_OR],
    END,
  ];
}

const name = (text: string): number[] => [text.length, ...Buffer.from(text, 'latin1')];

function section(id: number, items: readonly number[][]): number[] {
  const body = [...leb(items.length), ...items.flat()];
  return [id, ...unsignedLeb(body.length), ...body];
}

function unsignedLeb(value: number): number[] {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...unsignedLeb(value >>> 7)];
}

function code(locals: readonly number[], body: readonly number[]): number[] {
  const all = [locals.length, ...locals.flatMap((type) => [1, type]), ...body];
  return [...unsignedLeb(all.length), ...all];
}

function moduleBytes(pages: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00],
    ...section(1, [
      [0x60, 2, I32, I32, 1, I32],
      [0x60, 3, I32, I32, I32, 1, I32],
      [0x60, 3, I32, I32, I32, 0],
    ]),
    ...section(2, [
      [...name('arena'), ...name('memory'), 0x02, 0x01, ...unsignedLeb(pages), ...unsignedLeb(pages)],
    ]),
    ...section(3, [[0], [1], [2]]),
    ...section(7, [
      [...name('sum'), 0x00, 0],
      [...name('copySum'), 0x00, 1],
      [...name('copy'), 0x00, 2],
    ]),
    ...section(10, [
      code([V128, V128, I64], sumBody(false)),
      code([V128, V128, I64], sumBody(true)),
      code([], [GET, 0, GET, 1, GET, 2, ...MEMORY_COPY, END]),
    ]),
  ]);
}

/** Compiles the kernels for a memory of exactly `pages` pages (64 KiB each). Takes less than a millisecond. */
export function loadKernels(memory: WasmMemory, pages: number): Kernels {
  const module = new wasm.Module(moduleBytes(pages));
  const instance = new wasm.Instance(module, { arena: { memory } });
  return instance.exports as Kernels;
}
