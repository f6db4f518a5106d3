/** What passes now: the flows of a network and what each has carried. Counters are kept anyway; listing them costs only whoever asks. */
import type { PingFlow } from '../icmp/echo.ts';
import { TCP_STATE_NAMES, type TcpConnection } from '../tcp/connection.ts';
import type { UdpFlow } from '../udp/layer.ts';
import { ipText } from '../wire/address.ts';
import { putU32 } from '../wire/bytes.ts';

export interface FlowRecord {
  readonly protocol: 'tcp' | 'udp' | 'icmp';
  readonly network: string;
  /** Name of the link, which is the machine's. */
  readonly link: string;
  /** The machine's end. */
  readonly machineAddress: string;
  /** 0 for ICMP, as is the other. */
  readonly machinePort: number;
  readonly peerAddress: string;
  readonly peerPort: number;
  /** Who began it; `peer`: the host's side, through a published port. */
  readonly begun: 'machine' | 'peer';
  /** Of TCP in RFC 9293's words, `dialing` before the SYN is answered; else `dialing`, `open` or `denied`. */
  readonly state: string;
  /** Payload from the machine; of TCP in order, each byte once. */
  readonly bytesFromMachine: number;
  /** Payload to the machine; each byte of TCP once, however often it was sent. */
  readonly bytesToMachine: number;
  readonly ageMs: number;
}

export interface FlowList {
  readonly flows: FlowRecord[];
  /** Flows that there was no room for. */
  readonly omitted: number;
}

/** What carries something, as the layers have it. */
export type AnyFlow = TcpConnection | UdpFlow | PingFlow;

/** A flow, and the network that it is in. */
export interface PlacedFlow {
  readonly network: string;
  readonly flow: AnyFlow;
}

/** At most `max` records; of more flows those that have carried most. */
export function listFlows(all: PlacedFlow[], max: number, nowMs: number): FlowList {
  const omitted = Math.max(0, all.length - max);
  if (omitted > 0) all.sort((a, b) => carried(b.flow) - carried(a.flow));
  return { flows: all.slice(0, max).map(({ network, flow }) => recordOf(network, flow, nowMs)), omitted };
}

function carried(flow: AnyFlow): number {
  return flow.bytesIn + flow.bytesOut;
}

function recordOf(network: string, flow: AnyFlow, nowMs: number): FlowRecord {
  const common = {
    network,
    bytesFromMachine: flow.bytesIn,
    bytesToMachine: flow.bytesOut,
    ageMs: Math.max(0, Math.floor(nowMs - flow.beganMs)),
  };
  if ('pair' in flow) {
    const { pair, hop } = flow;
    const ports = 'machinePort' in flow;
    return {
      ...common,
      protocol: ports ? 'udp' : 'icmp',
      link: hop.port.link.name,
      machineAddress: ipText(pair.destination),
      machinePort: ports ? flow.machinePort : 0,
      peerAddress: ipText(pair.source),
      peerPort: ports ? flow.peerPort : 0,
      begun: ports && flow.openedBy === undefined ? 'peer' : 'machine',
      state: flow.state,
    };
  }
  const { key } = flow;
  const ports = key[8] as number;
  return {
    ...common,
    protocol: 'tcp',
    link: flow.port.link.name,
    machineAddress: addressIn(key, 0),
    machinePort: ports >>> 16,
    peerAddress: addressIn(key, 4),
    peerPort: ports & 0xffff,
    begun: flow.begunByPeer ? 'peer' : 'machine',
    state: TCP_STATE_NAMES[flow.state],
  };
}

/** The text of an address in a flow's key. */
function addressIn(key: Int32Array, from: number): string {
  const bytes = new Uint8Array(16);
  for (let word = 0; word < 4; word += 1) putU32(bytes, word * 4, key[from + word] as number);
  return ipText(bytes);
}
