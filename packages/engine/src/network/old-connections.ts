/**
 * Connections of a container from before this daemon. Their other ends were sockets of a process that is gone, and
 * nobody tells the container: what waits for data would wait for ever. The container's kernel knows which there are
 * (`/proc/PID/net/tcp`), and our stack has each of them reset.
 */
import { formatIp, type IpAddress, unmapped } from '@arcbox/net/ipam';
import { CONNECTIONS_READ_BYTES_MAX } from '../limits.ts';
import type { BatchRunner } from './guest-network.ts';

export interface OldConnection {
  readonly address: string;
  readonly port: number;
  readonly peer: string;
  readonly peerPort: number;
}

/** Linux's numbers of states in which an end may wait and say nothing: ESTABLISHED, FIN_WAIT2, CLOSE_WAIT. */
const WAITING = new Set(['01', '05', '08']);
const LINE = /^\s*\d+: ([0-9A-F]+):([0-9A-F]{4}) ([0-9A-F]+):([0-9A-F]{4}) ([0-9A-F]{2}) /;
const WORD_DIGITS = 8;

/** The connections that the network namespace of a process has, both families. */
export async function connectionsOf(agent: BatchRunner, pid: number): Promise<OldConnection[]> {
  const results = await agent.batch(
    ['tcp', 'tcp6'].map((file) => ({
      case: 'read',
      value: { path: `/proc/${pid}/net/${file}`, limit: CONNECTIONS_READ_BYTES_MAX },
    })),
  );
  return results.flatMap(({ result }) =>
    result.case === 'data' ? parseConnections(Buffer.from(result.value.data).toString('latin1')) : [],
  );
}

/** Of the text of `/proc/net/tcp` or `tcp6`. */
export function parseConnections(text: string): OldConnection[] {
  return text.split('\n').flatMap((line) => {
    const [, address = '', port = '', peer = '', peerPort = '', state = ''] = LINE.exec(line) ?? [];
    if (!WAITING.has(state)) return [];
    return [
      {
        address: addressText(address),
        port: Number.parseInt(port, 16),
        peer: addressText(peer),
        peerPort: Number.parseInt(peerPort, 16),
      },
    ];
  });
}

/** Words of 32 bits, each as this kind of processor has it in memory: the lowest byte first. */
function addressText(hex: string): string {
  let value = 0n;
  for (let at = 0; at < hex.length; at += WORD_DIGITS) {
    const word = Buffer.from(hex.slice(at, at + WORD_DIGITS), 'hex').reverse();
    value = (value << 32n) | BigInt(word.readUInt32BE());
  }
  const address: IpAddress = { family: hex.length === WORD_DIGITS ? 4 : 6, value };
  return formatIp(unmapped(address));
}
