/** The network worker: a thread with the stack, its links, the name server and the published ports. */
import { setTimeout as sleep } from 'node:timers/promises';
import { parentPort, workerData } from 'node:worker_threads';
import { DnsServer, ForwardingUpstream, HostResolvers, NameTable } from '../dns/index.ts';
import { NetError } from '../errors.ts';
import { FLOWS_LISTED_MAX } from '../limits.ts';
import type { Port } from '../link/port.ts';
import { StreamLink } from '../link/stream-link.ts';
import { TunUplink, type UplinkOptions } from '../nat/index.ts';
import { RingProducer } from '../ring/spsc-ring.ts';
import { listFlows } from '../stack/flow-list.ts';
import type { NetworkStack } from '../stack/network-stack.ts';
import type { Flow, FlowPolicy, Verdict } from '../stack/policy.ts';
import { formatIpv4, formatMac } from '../wire/address.ts';
import { PROTOCOL_TCP, PROTOCOL_UDP } from '../wire/ipv4.ts';
import { WorkerPolicies } from './policies.ts';
import {
  type AskedFlow,
  CAPTURE_HEADER_BYTES,
  type Command,
  type FromWorker,
  type FunctionAnswer,
  type NetworkSetup,
  type PolicySubject,
  type ToWorker,
  type WorkerFlows,
  type WorkerStats,
} from './protocol.ts';
import { PublishedPorts } from './published-ports.ts';
import { StackRunner } from './runner.ts';
import { serveAddresses, serveNames } from './services.ts';

const PLUG_TIMEOUT_MS = 10_000;
const PLUG_RETRY_MS_MAX = 50;

export interface WorkerData {
  /** Captured frames go here. */
  readonly captureRing: SharedArrayBuffer;
}

class NetworkWorkerMain {
  readonly #post: (message: FromWorker) => void;
  readonly #runner = new StackRunner();
  readonly #links = new Map<string, Port>();
  readonly #ports: PublishedPorts;
  readonly #names = new NameTable();
  readonly #policies: WorkerPolicies;
  readonly #dns: DnsServer;
  readonly #ring: RingProducer;
  /** Networks that lead to the world, and their subnets. */
  readonly #routed = new Map<NetworkStack, string>();
  #uplink: TunUplink | undefined;
  /** Names of networks that lead nowhere. */
  readonly #internal = new Set<string>();
  readonly #questions = new Map<number, (verdict: Verdict) => void>();
  readonly #functionQuestions = new Map<number, (answer: FunctionAnswer) => void>();
  #question = 0;

  constructor(data: WorkerData, post: (message: FromWorker) => void) {
    this.#post = post;
    this.#ports = new PublishedPorts(this.#runner.switch);
    this.#ring = new RingProducer(data.captureRing);
    this.#policies = new WorkerPolicies(
      this.#names,
      (flow) => post({ kind: 'denied', flow }),
      (subject, flow) => this.#askFunction(subject, flow),
    );
    this.#dns = new DnsServer({
      upstream: new ForwardingUpstream(new HostResolvers()),
      names: this.#names,
      onAnswer: (answer) => this.#policies.resolved(answer),
      // A question to the world is a way out: the name says something to whoever serves it.
      mayAsk: (source, name) =>
        !this.#internal.has(source.network ?? '') && this.#policies.mayAsk(source, name),
      onFailure: (name, reason) => post({ kind: 'warning', what: `name ${name}`, detail: reason }),
    });
  }

  message(message: ToWorker): void {
    if (message.kind === 'verdict') {
      this.#questions.get(message.id)?.(message.verdict);
      this.#questions.delete(message.id);
      return;
    }
    if (message.kind === 'answer') {
      this.#functionQuestions.get(message.id)?.(message.answer);
      this.#functionQuestions.delete(message.id);
      return;
    }
    const { id } = message;
    this.#do(message.command).then(
      (value) => this.#post({ kind: 'done', id, value }),
      (error: unknown) => {
        const code = error instanceof NetError ? error.code : 'ERR_ARCBOX_NET_HOST';
        const text = error instanceof Error ? error.message : String(error);
        this.#post({ kind: 'failed', id, code, message: text });
      },
    );
  }

  async #do(command: Command): Promise<unknown> {
    const hub = this.#runner.switch;
    switch (command.do) {
      case 'addNetwork':
        return this.#addNetwork(command.network);
      case 'setUplink':
        return this.#setUplink(command.uplink);
      case 'removeNetwork':
        this.#withdrawn(command.name);
        hub.removeNetwork(command.name);
        this.#names.removeNetwork(command.name);
        this.#internal.delete(command.name);
        return undefined;
      case 'plug':
        return this.#plug(command.link, command.path);
      case 'unplug':
        hub.unplug(this.#port(command.link));
        this.#links.delete(command.link);
        return undefined;
      case 'attach':
        return hub.attach(this.#port(command.link), command.vlan, command.network);
      case 'detach':
        return hub.detach(this.#port(command.link), command.vlan);
      case 'addEndpoint':
        this.#names.add(command.endpoint);
        for (const address of command.endpoint.addresses) {
          hub.network(command.endpoint.network)?.neighbours.forget(address);
        }
        return undefined;
      case 'removeEndpoint':
        this.#names.remove(command.owner, command.network);
        return undefined;
      case 'reset':
        for (const connection of command.connections) hub.network(command.network)?.resetHalfOpen(connection);
        return undefined;
      case 'publish':
        return this.#ports.open(command.publication);
      case 'unpublish':
        return this.#ports.close(command.id);
      case 'setPolicy':
        return this.#policies.set(command.subject, command.policy);
      case 'capture':
        return this.#capture(this.#port(command.link), command.on);
      case 'stats':
        return this.#stats();
      case 'flows':
        return this.#flows();
    }
  }

  #addNetwork(setup: NetworkSetup): void {
    const { name, mtu, subnet, gateway, subnet6, gateway6 } = setup;
    const gateways = [{ address: gateway, prefixLength: prefixOf(subnet) }];
    if (subnet6 !== undefined && gateway6 !== undefined) {
      gateways.push({ address: gateway6, prefixLength: prefixOf(subnet6) });
    }
    const policy = this.#policyOf(setup);
    const stack = this.#runner.switch.addNetwork({
      name,
      mac: gatewayMac(gateway),
      mtu,
      gateways,
      hostAddresses: gateways.map(({ address }) => address),
      ...(setup.advertises === undefined ? {} : { advertises: setup.advertises }),
      policy,
    });
    this.#names.addNetwork(name, {
      subnet,
      ...(subnet6 === undefined ? {} : { subnet6 }),
      gateway: gateways.map(({ address }) => address),
    });
    serveNames(stack, this.#dns);
    serveAddresses(stack, setup, this.#names);
    // What is sent to a container's address must not go to a neighbour that claims it (ARP is anybody's to answer).
    stack.neighbours.accepts = (address, hop) => {
      const mac = this.#names.endpointAt(name, address)?.mac;
      return mac === undefined || mac === formatMac(hop.mac);
    };
    if (setup.internal) {
      this.#internal.add(name);
      return;
    }
    this.#routed.set(stack, subnet);
    this.#uplink?.add(stack, subnet);
  }

  /** The device goes with this thread's descriptors. */
  #setUplink(options: UplinkOptions): void {
    if (this.#uplink !== undefined) {
      throw new NetError('ERR_ARCBOX_NET_CONFIG', `There is an uplink ${this.#uplink.name} already`);
    }
    const uplink = new TunUplink(
      options,
      (protocol, source, sourcePort, destination, destinationPort) =>
        this.#admits(uplink, protocol, source, sourcePort, destination, destinationPort),
      (error) => {
        throw error;
      },
    );
    this.#uplink = uplink;
    for (const [stack, subnet] of this.#routed) uplink.add(stack, subnet);
  }

  /** A policy of rules answers at once; what a function says later is too late for a packet. */
  #admits(
    uplink: TunUplink,
    protocol: number,
    source: number,
    sourcePort: number,
    destination: number,
    destinationPort: number,
  ): boolean {
    const network = uplink.networkOf(source)?.name;
    if (network === undefined) return false;
    const from = formatIpv4(source);
    const hop = uplink.networkOf(source)?.neighbours.get(from);
    const verdict = this.#policies.judge({
      protocol: protocol === PROTOCOL_TCP ? 'tcp' : protocol === PROTOCOL_UDP ? 'udp' : 'icmp',
      network,
      link: hop?.port.link.name ?? '',
      sourceMac: hop === undefined ? '' : formatMac(hop.mac),
      source: from,
      sourcePort,
      destination: formatIpv4(destination),
      destinationPort,
    });
    return 'action' in verdict && verdict.action === 'allow';
  }

  #withdrawn(name: string): void {
    const stack = this.#runner.switch.network(name);
    if (stack === undefined) return;
    this.#routed.delete(stack);
    this.#uplink?.remove(stack);
  }

  #policyOf({ internal, asks }: NetworkSetup): FlowPolicy {
    if (internal) return () => ({ action: 'deny', reason: 'the network is internal' });
    return asks ? (flow) => this.#ask(flow) : (flow) => this.#policies.judge(flow);
  }

  #ask(flow: Flow): Promise<Verdict> {
    this.#question += 1;
    const id = this.#question;
    this.#post({ kind: 'ask', id, flow });
    return new Promise((resolve) => this.#questions.set(id, resolve));
  }

  #askFunction(subject: PolicySubject, flow: AskedFlow): Promise<FunctionAnswer> {
    this.#question += 1;
    const id = this.#question;
    this.#post({ kind: 'askFunction', id, subject, flow });
    return new Promise((resolve) => this.#functionQuestions.set(id, resolve));
  }

  async #plug(link: string, path: string): Promise<void> {
    if (this.#links.has(link)) {
      throw new NetError('ERR_ARCBOX_NET_CONFIG', `There is a link ${link} already; unplug it first`);
    }
    // QEMU takes one peer at a time and lets one more wait: after a peer has left the queue can be full for a moment.
    const endMs = performance.now() + PLUG_TIMEOUT_MS;
    for (let waitMs = 1; ; waitMs = Math.min(waitMs * 2, PLUG_RETRY_MS_MAX)) {
      try {
        await this.#connect(link, path);
        return;
      } catch (error) {
        const busy = (error as NodeJS.ErrnoException).code === 'EAGAIN';
        if (!busy || performance.now() > endMs) throw error;
      }
      await sleep(waitMs);
    }
  }

  async #connect(link: string, path: string): Promise<void> {
    const cable = new StreamLink(link, path);
    let connected = false;
    const port = this.#runner.switch.plug(cable, (error) => {
      if (this.#links.get(link) === port) this.#links.delete(link);
      if (connected) {
        this.#post({ kind: 'unplugged', link, reason: error?.message ?? 'the machine closed it' });
      }
    });
    this.#links.set(link, port);
    await cable.ready;
    connected = true;
  }

  #port(link: string): Port {
    const port = this.#links.get(link);
    if (port === undefined) throw new NetError('ERR_ARCBOX_NET_CONFIG', `There is no link ${link}`);
    return port;
  }

  /**
   * A record is: time in µs (8), length of the name (1), direction (1), frames that were lost before it, since the
   * capture began (4), the name, the frame.
   */
  #capture(port: Port, on: boolean): void {
    if (!on) {
      port.tap = undefined;
      return;
    }
    const name = Buffer.from(port.link.name).subarray(0, 255);
    const head = Buffer.concat([Buffer.alloc(CAPTURE_HEADER_BYTES), name]);
    head[8] = name.length;
    const { bytes } = port.arena;
    let lost = 0;
    port.tap = (_port, direction, start, end) => {
      head.writeBigUInt64LE(BigInt(Math.round((performance.timeOrigin + performance.now()) * 1000)), 0);
      head[9] = direction === 'in' ? 0 : 1;
      head.writeUInt32LE(lost, 10);
      // A full ring loses frames, not time.
      if (!this.#ring.put(head, bytes.subarray(start, end))) lost = (lost + 1) >>> 0;
      else if (this.#ring.consumerWaits) this.#post({ kind: 'captured' });
    };
  }

  #flows(): WorkerFlows {
    const hub = this.#runner.switch;
    const all = hub
      .networks()
      .flatMap((stack) => Array.from(stack.flows(), (flow) => ({ network: stack.name, flow })));
    const { flows, omitted } = listFlows(all, FLOWS_LISTED_MAX, hub.environment.clock.nowMs());
    return {
      flows: flows.map((flow) => ({
        ...flow,
        owner: this.#names.endpointAt(flow.network, flow.machineAddress)?.owner,
      })),
      omitted,
    };
  }

  #stats(): WorkerStats {
    const hub = this.#runner.switch;
    const { arena } = hub.environment;
    return {
      links: [...hub.ports].map((port) => ({ link: port.link.name, counters: { ...port.counters } })),
      networks: hub.networks().map((stack) => ({
        network: stack.name,
        tcpConnections: stack.tcp.size,
        tcpOpened: stack.tcp.counters.opened,
        udpFlows: stack.udp.size,
        denied: stack.counters.denied,
        malformed: stack.counters.malformed + stack.tcp.counters.malformed + stack.udp.counters.malformed,
        badChecksums: stack.tcp.counters.badChecksums + stack.udp.counters.badChecksums,
      })),
      policies: this.#policies.stats(),
      dns: { ...this.#dns.counters },
      nat: this.#uplink?.counters,
      chunksFree: arena.freeChunks,
      chunksTotal: arena.chunksTotal,
    };
  }
}

function prefixOf(subnet: string): number {
  return Number(subnet.split('/')[1]);
}

/** Locally administered, and the same for ever: a machine that is restored still knows it. */
function gatewayMac(gateway: string): Uint8Array {
  return Uint8Array.of(2, 0xac, ...gateway.split('.').map(Number));
}

if (parentPort !== null) {
  const port = parentPort;
  const main = new NetworkWorkerMain(workerData as WorkerData, (message) => port.postMessage(message));
  port.on('message', (message: ToWorker) => main.message(message));
  port.postMessage({ kind: 'ready' } satisfies FromWorker);
}
