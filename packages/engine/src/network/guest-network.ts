/**
 * Networks inside a machine: links, and nothing else.
 *
 * A machine has one network card. A container network is a VLAN on it and a bridge that the VLAN is a port of; a
 * container on that network has a cable to the bridge, with its own MAC and its own address at its end. The guest
 * translates nothing, routes nothing and has no address on a bridge: a frame leaves the machine as the container sent
 * it, tagged with its network, and whoever is at the other end of the card is the gateway.
 *
 *   container: eth0 ═══ e17 ─┐
 *   container: eth0 ═══ e18 ─┤ b5 (bridge) ── v5 (VLAN 5 on eth0) ── eth0 (the card)
 *
 * A container's network namespace is made before its process and pinned at a path, so that the process never runs
 * without its network, and so that others can join it. Links of ours in the machine's own namespace have indexes that
 * follow from their numbers, so nothing has to be looked up or remembered.
 */
import { AgentOpError, errnoName, type OpInput, type OpResult } from '@arcbox/protocol';
import { faultPoint } from '@arcbox/sys';
import { EngineError } from '../errors.ts';
import { NAMESPACES, namespacePath } from '../machine/guest-layout.ts';
import {
  decodeErrors,
  deleteLink,
  encodeRequest,
  getLink,
  linkIndexes,
  lockPort,
  type NetlinkMessage,
  newAddress,
  newBridge,
  newDefaultRoute,
  newPortAddress,
  newVeth,
  newVlan,
  noLinkLocal,
  setLink,
} from './rtnetlink.ts';

/** What runs batches: an `AgentSession`, or a test's client. */
export interface BatchRunner {
  batch(ops: readonly OpInput[]): Promise<OpResult[]>;
}

export interface GuestInterface {
  /** Of the endpoint; unique for ever. */
  readonly number: number;
  readonly vlan: number;
  /** `eth0` is 0. */
  readonly position: number;
  /** 6 bytes. */
  readonly mac: Buffer;
  /** 4 or 16 bytes each. */
  readonly addresses: readonly { readonly address: Buffer; readonly prefix: number }[];
  /** Default gateways, one for each address family at most. */
  readonly gateways: readonly Buffer[];
}

/** An endpoint of a container that runs. */
export interface GuestCable {
  readonly containerId: string;
  readonly endpoint: GuestInterface;
}

/** What is there already, in the machine's own namespace. */
export interface GuestLinks {
  /** The card's index, where networks were made. */
  readonly card?: number;
  /** Networks that have their bridge. */
  readonly vlans: readonly number[];
}

/** Messages for the links of one network namespace; of the machine's own without a path. */
interface LinkRequest {
  readonly messages: readonly NetlinkMessage[];
  readonly netnsPath?: string;
}

const NETLINK_ROUTE = 0;
const CARD = 'eth0';
const AGENT_PID = 1;
const LOOPBACK_INDEX = 1;
const BRIDGE_INDEX_FIRST = 10_000;
const VLAN_INDEX_FIRST = 20_000;
const CABLE_INDEX_FIRST = 100_000;
const IPV6_BYTES = 16;
const EEXIST = 17;
const ENODEV = 19;

/** Where the kernel lists the links of the machine's own namespace. */
export const GUEST_LINKS = '/sys/class/net';

export class GuestNetwork {
  readonly #agent: BatchRunner;
  readonly #mtu: number;
  #card: Promise<number> | undefined;
  readonly #networks = new Map<number, Promise<void>>();

  /** `mtu` is the card's; `links` are those that are known to be there. */
  constructor(agent: BatchRunner, mtu: number, links: GuestLinks = { vlans: [] }) {
    this.#agent = agent;
    this.#mtu = mtu;
    if (links.card !== undefined) this.#card = Promise.resolve(links.card);
    for (const vlan of links.vlans) this.#networks.set(vlan, Promise.resolve());
  }

  /** What this machine has by now, for whoever takes it up again. */
  async links(): Promise<GuestLinks> {
    const card = await this.#card?.catch(() => undefined);
    const made = await Promise.allSettled([...this.#networks].map(([vlan, ready]) => ready.then(() => vlan)));
    const vlans = made.flatMap((network) => (network.status === 'fulfilled' ? [network.value] : []));
    return card === undefined ? { vlans } : { card, vlans };
  }

  /**
   * Makes the container's namespace, with its loopback interface up, and connects it to networks: in one batch, since
   * every container's start waits for this. A namespace that a crash left there is replaced. Throws `ERR_ARCBOX_NETWORK`.
   */
  async plugIn(containerId: string, endpoints: readonly GuestInterface[]): Promise<void> {
    await Promise.all(endpoints.map(({ vlan }) => this.#network(vlan)));
    const path = namespacePath(containerId);
    const requests: LinkRequest[] = [
      {
        messages: [
          setLink({ index: LOOPBACK_INDEX, up: true }),
          ...endpoints.flatMap((endpoint) => this.#cable(endpoint)),
        ],
        netnsPath: path,
      },
      ...(endpoints.length === 0 ? [] : [{ messages: endpoints.flatMap(port) }]),
    ];
    const make: OpInput[] = [
      { case: 'mkdir', value: { path: NAMESPACES, mode: 0o700, parents: true } },
      { case: 'netNamespace', value: { path } },
    ];
    faultPoint('network.namespace');
    try {
      await this.#links(requests, make);
    } catch (error) {
      if (!(error instanceof AgentOpError) || error.errnoName !== 'EEXIST') throw error;
      await this.releaseNamespace(containerId);
      await this.#links(requests, make);
    }
  }

  /** Lets go of the namespace: it ends with its last process, and its cables with it. Again: nothing. */
  async releaseNamespace(containerId: string): Promise<void> {
    const path = namespacePath(containerId);
    try {
      await this.#agent.batch([{ case: 'unmount', value: { target: path, detach: true } }]);
    } catch (error) {
      if (!(error instanceof AgentOpError) || !['ENOENT', 'EINVAL'].includes(error.errnoName)) throw error;
    }
    await this.#agent.batch([{ case: 'remove', value: { path, missingOk: true } }]);
  }

  /** Connects a container's namespace to one more network. Throws `ERR_ARCBOX_NETWORK`. */
  async connect(containerId: string, endpoint: GuestInterface): Promise<void> {
    await this.#network(endpoint.vlan);
    faultPoint('network.cable');
    await this.#links([
      { messages: this.#cable(endpoint), netnsPath: namespacePath(containerId) },
      { messages: port(endpoint) },
    ]);
  }

  /** Gives the machine itself an address on its card, for containers that use its network. Again: nothing. */
  async connectMachine(address: Buffer, prefix: number, gateway: Buffer): Promise<void> {
    const card = await this.#theCard();
    await this.#netlink(
      [
        setLink({ index: card, up: true, mtu: this.#mtu }),
        newAddress(card, address, prefix),
        newDefaultRoute(card, gateway),
      ],
      [EEXIST],
    );
  }

  /** Takes a container from a network; the namespace may be gone already. */
  async disconnect(endpointNumber: number): Promise<void> {
    faultPoint('network.uncable');
    await this.#netlink([deleteLink(CABLE_INDEX_FIRST + endpointNumber)], [ENODEV]);
  }

  /** Removes a network's links. Nothing is connected to it any more. */
  async removeNetwork(vlan: number): Promise<void> {
    this.#networks.delete(vlan);
    faultPoint('network.unbridge');
    await this.#netlink(
      [deleteLink(VLAN_INDEX_FIRST + vlan), deleteLink(BRIDGE_INDEX_FIRST + vlan)],
      [ENODEV],
    );
  }

  /**
   * Brings the machine's links together with what is stored, after a crash. `links` are the names of those that are there,
   * `vlans` the networks that exist, `cables` the endpoints, with their container, that have to be connected: those of
   * containers that run. What is of nobody goes; what is missing is made. `failed` is told of what could not be.
   */
  async reconcile(
    links: readonly string[],
    vlans: ReadonlySet<number>,
    cables: readonly GuestCable[],
    failed: (what: string, error: unknown) => void,
  ): Promise<void> {
    const numbers = new Set(cables.map(({ endpoint }) => endpoint.number));
    const stale = links.flatMap((name) => {
      const [, kind, digits] = /^([ebv])(\d+)$/.exec(name) ?? [];
      if (kind === undefined) return [];
      const number = Number(digits);
      if ((kind === 'e' ? numbers : vlans).has(number)) return [];
      const first = { e: CABLE_INDEX_FIRST, b: BRIDGE_INDEX_FIRST, v: VLAN_INDEX_FIRST }[kind] ?? 0;
      return [deleteLink(first + number)];
    });
    // A cable goes by itself when the namespace at its other end has gone.
    if (stale.length > 0) await this.#netlink(stale, [ENODEV]).catch((error) => failed('links', error));
    const present = new Set(links);
    for (const { containerId, endpoint } of cables) {
      if (present.has(`e${endpoint.number}`)) continue;
      await this.connect(containerId, endpoint).catch((error) => failed(containerId, error));
    }
  }

  #network(vlan: number): Promise<void> {
    let ready = this.#networks.get(vlan);
    if (ready === undefined) {
      ready = this.#createNetwork(vlan);
      this.#networks.set(vlan, ready);
      ready.catch(() => this.#networks.delete(vlan));
    }
    return ready;
  }

  async #createNetwork(vlan: number): Promise<void> {
    const card = await this.#theCard();
    const bridge = BRIDGE_INDEX_FIRST + vlan;
    faultPoint('network.bridge');
    // A daemon that took the machine over finds them there.
    await this.#netlink(
      [
        setLink({ index: card, up: true, mtu: this.#mtu }),
        newBridge({ index: bridge, name: `b${vlan}`, mtu: this.#mtu }),
        newVlan({ index: VLAN_INDEX_FIRST + vlan, name: `v${vlan}`, parent: card, id: vlan, master: bridge }),
      ],
      [EEXIST],
    );
  }

  #theCard(): Promise<number> {
    this.#card ??= this.#findCard();
    this.#card.catch(() => {
      this.#card = undefined;
    });
    return this.#card;
  }

  /** The index of the card. */
  async #findCard(): Promise<number> {
    // Bridges and their ports are no hosts: no addresses of their own making, no router solicitations.
    const quiet = ['default', CARD].map((name): OpInput => {
      const path = `/proc/sys/net/ipv6/conf/${name}/disable_ipv6`;
      return { case: 'write', value: { path, data: Buffer.from('1') } };
    });
    const [answer = new Uint8Array()] = await this.#links([{ messages: [getLink(CARD)] }], quiet);
    const index = linkIndexes(answer).get(CARD);
    if (index === undefined)
      throw new EngineError('ERR_ARCBOX_NETWORK', `the machine has no network card ${CARD}`);
    return index;
  }

  /** A container's end of its cable, whose other end appears in the machine. */
  #cable(endpoint: GuestInterface): NetlinkMessage[] {
    const { position, mac, number, addresses, gateways } = endpoint;
    const index = LOOPBACK_INDEX + 1 + position;
    const peer = { index: CABLE_INDEX_FIRST + number, name: `e${number}`, netnsPid: AGENT_PID };
    return [
      newVeth({ index, name: `eth${position}`, mac, mtu: this.#mtu, peer }),
      ...(addresses.some(({ address }) => address.length === IPV6_BYTES) ? [] : [noLinkLocal(index)]),
      ...addresses.map(({ address, prefix }) => newAddress(index, address, prefix)),
      setLink({ index, up: true }),
      ...gateways.map((gateway) => newDefaultRoute(index, gateway)),
    ];
  }

  /** In the machine's own namespace; the answer. */
  async #netlink(
    messages: readonly NetlinkMessage[],
    tolerated: readonly number[] = [],
  ): Promise<Uint8Array> {
    const [answer] = await this.#links([{ messages }], [], tolerated);
    return answer ?? new Uint8Array();
  }

  /** One batch: first `before`, then each request; their answers. */
  async #links(
    requests: readonly LinkRequest[],
    before: readonly OpInput[] = [],
    tolerated: readonly number[] = [],
  ): Promise<Uint8Array[]> {
    const results = await this.#agent.batch([
      ...before,
      ...requests.map(({ messages, netnsPath = '' }): OpInput => {
        return {
          case: 'netlink',
          value: { protocol: NETLINK_ROUTE, request: encodeRequest(messages), netnsPath },
        };
      }),
    ]);
    return requests.map(({ messages, netnsPath }, at) => {
      const answer = results[before.length + at]?.result;
      if (answer?.case !== 'data')
        throw new EngineError('ERR_ARCBOX_NETWORK', 'the agent did not answer a netlink request with data');
      const failed = decodeErrors(answer.value.data, messages.length).find(
        (errno) => errno !== undefined && errno !== 0 && !tolerated.includes(errno),
      );
      if (failed === undefined) return answer.value.data;
      throw new EngineError(
        'ERR_ARCBOX_NETWORK',
        `the links of ${netnsPath ?? 'the machine'} could not be set up: ${errnoName(failed)}`,
      );
    });
  }
}

/** The machine's end of a cable, as a port of its network's bridge. */
function port({ number, vlan, mac }: GuestInterface): NetlinkMessage[] {
  const index = CABLE_INDEX_FIRST + number;
  return [
    // A port that is up before its cable's other end exists would be one more event for everybody.
    setLink({ index, up: false, master: BRIDGE_INDEX_FIRST + vlan }),
    // A container that makes frames by itself must not be able to say that it is another one.
    newPortAddress(index, mac),
    lockPort(index),
    setLink({ index, up: true }),
  ];
}
