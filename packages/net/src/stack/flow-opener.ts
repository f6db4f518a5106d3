/** What happens to a new flow: a service of the gateway has it, or the policy is asked and the host is dialled. */
import type { PingFlow } from '../icmp/echo.ts';
import type { Refusal } from '../icmp/messages.ts';
import type { FirstBytes } from '../policy/index.ts';
import { TcpRelay } from '../relay/tcp-relay.ts';
import { DIALING, type TcpConnection } from '../tcp/connection.ts';
import type { TcpOpener } from '../tcp/layer.ts';
import type { UdpFlow, UdpOpener } from '../udp/layer.ts';
import { formatMac, ipText, isMapped4 } from '../wire/address.ts';
import { i32, putU16, putU32 } from '../wire/bytes.ts';
import { ICMP_ECHO_REQUEST, ICMPV6_ECHO_REQUEST } from '../wire/icmp.ts';
import { PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP } from '../wire/ipv4.ts';
import { PROTOCOL_ICMPV6 } from '../wire/ipv6.ts';
import type { StackEnvironment } from './environment.ts';
import type { AddressPair, Hop } from './hop.ts';
import type { Endpoint, HostStream, HostStreamEvents } from './host-network.ts';
import { addressOf, hopOf, type Packet } from './packet.ts';
import { type Flow, type FlowPolicy, judge, type Verdict } from './policy.ts';

/** Serves a connection to a port of the gateway: it is the host's end of it. `connected` must be called by it. */
export type TcpService = (flow: Flow, events: HostStreamEvents) => HostStream;

export interface FlowOpenerOptions {
  readonly network: string;
  /** 16 bytes each: these stand for the host's loopback. */
  readonly hosts: readonly Uint8Array[];
  readonly policy: FlowPolicy | undefined;
  readonly environment: StackEnvironment;
  learn(packet: Packet): void;
  isOurs(address: Uint8Array): boolean;
  /** Sends an ICMP error about a flow, from its peer to the machine. */
  refuse(hop: Hop, pair: AddressPair, why: Refusal, protocol: number, upper: Uint8Array): void;
}

/** Failures of a dial that mean "nobody is there", rather than "nobody listens". */
const UNREACHABLE = new Set([
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ETIMEDOUT',
  'EHOSTDOWN',
  'ENETDOWN',
  'EACCES',
  'EPERM',
]);

export class FlowOpener implements TcpOpener, UdpOpener {
  policy: FlowPolicy | undefined;
  readonly #options: FlowOpenerOptions;
  readonly #services = new Map<number, TcpService>();

  constructor(options: FlowOpenerOptions) {
    this.#options = options;
    this.policy = options.policy;
  }

  listen(port: number, service: TcpService): Disposable {
    this.#services.set(port, service);
    return {
      [Symbol.dispose]: () => {
        if (this.#services.get(port) === service) this.#services.delete(port);
      },
    };
  }

  incoming(c: TcpConnection, packet: Packet): void {
    const { environment } = this.#options;
    const { bytes } = environment.arena;
    const ports = i32(bytes, packet.upper);
    const destination = addressOf(bytes, packet, 1);
    const hop = hopOf(bytes, packet);
    const pair = { version: packet.version, source: destination, destination: addressOf(bytes, packet, 0) };
    this.#options.learn(packet);
    const flow = this.#flow('tcp', packet, ports >>> 16, ports & 0xffff);
    const upper = new Uint8Array(8);
    putU32(upper, 0, ports);
    putU32(upper, 4, c.irs);
    const refuse = (why: Refusal): void => this.#options.refuse(hop, pair, why, PROTOCOL_TCP, upper);
    const relay = (inspect?: FirstBytes): TcpRelay =>
      new TcpRelay(c, {
        gate: environment.gate,
        ...(inspect === undefined ? {} : { inspect }),
        dialFailed: (_connection, code) => {
          if (UNREACHABLE.has(code)) refuse('host');
        },
      });
    const ours = this.#options.isOurs(destination);
    const service = ours ? this.#services.get(ports & 0xffff) : undefined;
    if (service !== undefined) {
      const joined = relay();
      joined.attach(service(flow, joined));
      return;
    }
    if (ours && !this.#isHost(destination)) {
      c.abort();
      return;
    }
    judge(this.policy, flow, (verdict) => {
      if (c.state !== DIALING) return;
      if (verdict.action === 'deny') {
        refuse('prohibited');
        c.abort();
        return;
      }
      const joined = relay(verdict.action === 'allow' ? verdict.inspect : undefined);
      try {
        joined.attach(environment.host.connect(this.#target(flow, destination, verdict), joined));
      } catch (error) {
        joined.failed(codeOf(error));
      }
    });
  }

  incomingUdp(flow: UdpFlow, packet: Packet): void {
    const { environment } = this.#options;
    const destination = addressOf(environment.arena.bytes, packet, 1);
    this.#options.learn(packet);
    if (this.#options.isOurs(destination) && !this.#isHost(destination)) {
      flow.drop();
      this.refused(flow);
      return;
    }
    const what = this.#flow('udp', packet, flow.machinePort, flow.peerPort);
    judge(this.policy, what, (verdict) => {
      if (verdict.action === 'deny') {
        flow.drop();
        this.#refuseUdp(flow, 'prohibited');
      } else {
        try {
          flow.open((events) => environment.host.datagrams(this.#target(what, destination, verdict), events));
        } catch {
          // As if the host had failed it later: the flow ends, and the machine may try again.
          flow.failed();
        }
      }
    });
  }

  refused(flow: UdpFlow): void {
    this.#refuseUdp(flow, 'port');
  }

  ping(flow: PingFlow, packet: Packet): void {
    const { environment } = this.#options;
    const destination = addressOf(environment.arena.bytes, packet, 1);
    this.#options.learn(packet);
    const what = this.#flow('icmp', packet, 0, 0);
    judge(this.policy, what, (verdict) => {
      if (verdict.action === 'allow') {
        try {
          flow.open((events) => environment.host.ping(ipText(destination), events));
        } catch {
          // Nothing answers, as where the host has no ping sockets.
          flow.drop();
        }
        return;
      }
      flow.drop();
      const v4 = flow.pair.version === 4;
      const upper = new Uint8Array(8);
      upper[0] = v4 ? ICMP_ECHO_REQUEST : ICMPV6_ECHO_REQUEST;
      putU16(upper, 4, flow.id);
      const protocol = v4 ? PROTOCOL_ICMP : PROTOCOL_ICMPV6;
      this.#options.refuse(flow.hop, flow.pair, 'prohibited', protocol, upper);
    });
  }

  #refuseUdp(flow: UdpFlow, why: Refusal): void {
    const upper = new Uint8Array(8);
    putU16(upper, 0, flow.machinePort);
    putU16(upper, 2, flow.peerPort);
    putU16(upper, 4, 8);
    this.#options.refuse(flow.hop, flow.pair, why, PROTOCOL_UDP, upper);
  }

  #flow(protocol: Flow['protocol'], packet: Packet, sourcePort: number, destinationPort: number): Flow {
    const { bytes } = this.#options.environment.arena;
    return {
      protocol,
      network: this.#options.network,
      link: packet.port.link.name,
      sourceMac: formatMac(bytes, packet.frame + 6),
      source: ipText(addressOf(bytes, packet, 0)),
      sourcePort,
      destination: ipText(addressOf(bytes, packet, 1)),
      destinationPort,
    };
  }

  #isHost(address: Uint8Array): boolean {
    return this.#options.hosts.some((host) => Buffer.compare(host, address) === 0);
  }

  #target(flow: Flow, destination: Uint8Array, verdict: Verdict): Endpoint {
    if (verdict.action === 'redirect') return { address: verdict.address, port: verdict.port };
    if (!this.#isHost(destination)) return { address: flow.destination, port: flow.destinationPort };
    return { address: isMapped4(destination) ? '127.0.0.1' : '::1', port: flow.destinationPort };
  }
}

/** What a host that throws at once says. */
function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : 'EIO';
}
