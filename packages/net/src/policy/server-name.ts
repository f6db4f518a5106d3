/**
 * The name that a client says it wants, in the first bytes of a connection: TLS's server_name (RFC 6066 §3, in the
 * ClientHello of RFC 8446 §4.1.2) or HTTP/1's Host (RFC 9112 §3.2). The bytes are the machine's and may be anything; what
 * is read is bounded, and so is how long one waits for more.
 */
import { u16 } from '../wire/index.ts';
import { FIRST_BYTES_MAX } from './limits.ts';

export type SeenName =
  /** Lower case, without port and without the dot at the end. */
  | { readonly kind: 'name'; readonly name: string }
  /** It is TLS or HTTP, and which name it says cannot be told: there are two, or none in as much as one looks at. */
  | { readonly kind: 'ambiguous' }
  /** It is TLS or HTTP, and says no name. */
  | { readonly kind: 'none' }
  /** Neither TLS nor HTTP, or broken. */
  | { readonly kind: 'unknown' }
  /** So far so good; show it again with more bytes. */
  | { readonly kind: 'more' };

const NONE: SeenName = { kind: 'none' };
const UNKNOWN: SeenName = { kind: 'unknown' };
const AMBIGUOUS: SeenName = { kind: 'ambiguous' };
const MORE: SeenName = { kind: 'more' };

const RECORD_HANDSHAKE = 22;
const CLIENT_HELLO = 1;
const EXTENSION_SERVER_NAME = 0;
const RECORD_HEADER_BYTES = 5;
const HANDSHAKE_HEADER_BYTES = 4;
/** RFC 8446 §5.1. */
const RECORD_BYTES_MAX = 16_384;

/** What the first bytes from a client say; `bytes` begins with the connection. */
export function seenName(bytes: Uint8Array): SeenName {
  const first = bytes[0];
  if (first === undefined) return MORE;
  const seen = first === RECORD_HANDSHAKE ? tlsName(bytes) : httpName(bytes);
  return seen.kind === 'more' && bytes.length >= FIRST_BYTES_MAX ? AMBIGUOUS : seen;
}

function tlsName(bytes: Uint8Array): SeenName {
  // A ClientHello may come in several records; put its pieces together.
  const pieces: Uint8Array[] = [];
  let have = 0;
  let wanted = HANDSHAKE_HEADER_BYTES;
  for (let at = 0; have < wanted; ) {
    if (at + RECORD_HEADER_BYTES > bytes.length) return MORE;
    if (bytes[at] !== RECORD_HANDSHAKE || bytes[at + 1] !== 3) return UNKNOWN;
    const length = u16(bytes, at + 3);
    if (length === 0 || length > RECORD_BYTES_MAX) return UNKNOWN;
    const piece = bytes.subarray(at + RECORD_HEADER_BYTES, at + RECORD_HEADER_BYTES + length);
    pieces.push(piece);
    have += piece.length;
    if (wanted === HANDSHAKE_HEADER_BYTES && have >= HANDSHAKE_HEADER_BYTES) {
      const head = Buffer.concat(pieces);
      if (head[0] !== CLIENT_HELLO) return UNKNOWN;
      wanted += head.readUIntBE(1, 3);
      if (wanted > FIRST_BYTES_MAX) return AMBIGUOUS;
    }
    if (piece.length < length && have < wanted) return MORE;
    at += RECORD_HEADER_BYTES + length;
  }
  return clientHelloName(Buffer.concat(pieces).subarray(HANDSHAKE_HEADER_BYTES, wanted));
}

function clientHelloName(hello: Uint8Array): SeenName {
  let at = 2 + 32; // version, random
  const skip = (prefixBytes: 1 | 2): boolean => {
    if (at + prefixBytes > hello.length) return false;
    at += prefixBytes + (prefixBytes === 1 ? (hello[at] as number) : u16(hello, at));
    return at <= hello.length;
  };
  // Session id, cipher suites, compression methods.
  if (!skip(1) || !skip(2) || !skip(1)) return UNKNOWN;
  if (at === hello.length) return NONE;
  if (at + 2 > hello.length || at + 2 + u16(hello, at) !== hello.length) return UNKNOWN;
  at += 2;
  while (at + 4 <= hello.length) {
    const type = u16(hello, at);
    const end = at + 4 + u16(hello, at + 2);
    if (end > hello.length) return UNKNOWN;
    if (type === EXTENSION_SERVER_NAME) return serverName(hello.subarray(at + 4, end));
    at = end;
  }
  return at === hello.length ? NONE : UNKNOWN;
}

function serverName(extension: Uint8Array): SeenName {
  // A list with one entry: length, type 0, length, name.
  if (extension.length < 5 || extension[2] !== 0) return UNKNOWN;
  const length = u16(extension, 3);
  if (u16(extension, 0) !== extension.length - 2 || length + 5 !== extension.length) return UNKNOWN;
  return cleaned(Buffer.from(extension.subarray(5)).toString('latin1'));
}

/** The longest method there is, and a space. */
const METHOD_BYTES_MAX = 20;

function httpName(bytes: Uint8Array): SeenName {
  // Servers take a bare line feed for the end of a line too (RFC 9112 section 2.2).
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, FIRST_BYTES_MAX))
    .toString('latin1')
    .replaceAll('\r\n', '\n');
  const space = text.indexOf(' ');
  if (space < 0) return text.length <= METHOD_BYTES_MAX && /^[A-Z]+$/.test(text) ? MORE : UNKNOWN;
  if (space > METHOD_BYTES_MAX || !/^[A-Z]+ /.test(text)) return UNKNOWN;
  const end = text.indexOf('\n\n');
  const lines = (end < 0 ? text : text.slice(0, end)).split('\n');
  const request = lines[0] ?? '';
  if (end < 0 && lines.length === 1)
    return /^[A-Z]+ [\x21-\x7e]*( [HTP/1.0]*)?\r?$/.test(request) ? MORE : UNKNOWN;
  const target = /^[A-Z]+ ([\x21-\x7e]+) HTTP\/1\.[01]$/.exec(request)?.[1];
  if (target === undefined) return UNKNOWN;
  if (end < 0) return MORE;
  const hosts = lines.slice(1).flatMap((line) => (/^host:/i.test(line) ? [line.slice(5).trim()] : []));
  if (hosts.length > 1) return AMBIGUOUS; // which one counts is the server's secret (RFC 9112 section 3.2)
  // The target's own host counts before the field (RFC 9112 §3.2.2); CONNECT's target is one.
  const absolute =
    /^[a-z]+:\/\/([^/?#]*)/i.exec(target)?.[1] ?? (request.startsWith('CONNECT ') ? target : undefined);
  const host = absolute ?? hosts[0];
  return host === undefined || host === '' ? NONE : cleaned(host.replace(/:\d*$/, ''));
}

function cleaned(name: string): SeenName {
  const lower = name.toLowerCase().replace(/\.$/, '');
  if (lower.length === 0 || lower.length > 253 || !/^[a-z0-9_.:[\]-]+$/.test(lower)) return UNKNOWN;
  return { kind: 'name', name: lower };
}
