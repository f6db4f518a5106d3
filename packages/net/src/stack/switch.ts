/**
 * The switch of a worker: links on one side, networks on the other. A link carries several networks, told apart by
 * their 802.1Q tag (no tag is a network too); a network spans several links, and frames between its machines are
 * forwarded here, by addresses that were learned.
 */
import { NetError } from '../errors.ts';
import { NETWORKS_MAX, SWITCH_ADDRESSES_MAX } from '../limits.ts';
import type { Link } from '../link/link.ts';
import { Port, type PortOwner } from '../link/port.ts';
import { u16 } from '../wire/bytes.ts';
import {
  ETH_DESTINATION,
  ETH_HEADER_BYTES,
  ETH_SOURCE,
  ETH_TYPE,
  ETHERTYPE_SERVICE_VLAN,
  ETHERTYPE_VLAN,
  isGroupMac,
  isTagged,
  sameMac,
  VLAN_ID_MAX,
  VLAN_TAG_BYTES,
  vlanOf,
  writeEthernet,
} from '../wire/ethernet.ts';
import type { Attachment, StackEnvironment } from './environment.ts';
import { type NetworkOptions, NetworkStack } from './network-stack.ts';
import { macKey } from './quota.ts';

interface Member {
  readonly stack: NetworkStack;
  /** Where a MAC address was seen last; filled only when the network has more than one place. */
  readonly places: Map<number, Attachment>;
  /** Has had frames in this batch. */
  busy: boolean;
}

interface PortState {
  readonly members: Map<number, { member: Member; attachment: Attachment }>;
  readonly gone: (error: Error | undefined) => void;
}

export interface SwitchCounters {
  /** Frames with a tag that belongs to no network of their link, with two tags, or too short to be frames. */
  strays: number;
  forwarded: number;
}

export class Switch implements PortOwner {
  readonly environment: StackEnvironment;
  readonly counters: SwitchCounters = { strays: 0, forwarded: 0 };
  readonly #networks = new Map<string, Member>();
  readonly #ports = new Map<Port, PortState>();
  readonly #busy: Member[] = [];

  constructor(environment: StackEnvironment) {
    this.environment = environment;
  }

  get ports(): IterableIterator<Port> {
    return this.#ports.keys();
  }

  /** @throws {NetError} ERR_ARCBOX_NET_CONFIG, ERR_ARCBOX_NET_EXHAUSTED */
  addNetwork(options: NetworkOptions): NetworkStack {
    if (this.#networks.has(options.name)) {
      throw new NetError(
        'ERR_ARCBOX_NET_CONFIG',
        `There is a network ${options.name} already; remove it first`,
      );
    }
    if (this.#networks.size >= NETWORKS_MAX) {
      throw new NetError(
        'ERR_ARCBOX_NET_EXHAUSTED',
        `There are ${NETWORKS_MAX} networks already; remove one before making ${options.name}`,
      );
    }
    const stack = new NetworkStack(options, this.environment);
    this.#networks.set(options.name, { stack, places: new Map(), busy: false });
    return stack;
  }

  network(name: string): NetworkStack | undefined {
    return this.#networks.get(name)?.stack;
  }

  networks(): NetworkStack[] {
    return [...this.#networks.values()].map((member) => member.stack);
  }

  removeNetwork(name: string): void {
    const member = this.#networks.get(name);
    if (member === undefined) return;
    member.stack.close();
    for (const state of this.#ports.values()) {
      for (const [vlan, entry] of state.members) if (entry.member === member) state.members.delete(vlan);
    }
    this.#networks.delete(name);
  }

  /** Plugs a link in. `gone` is called once when it is gone by itself. */
  plug(link: Link, gone: (error: Error | undefined) => void): Port {
    const port = new Port(this.environment.arena, link, this);
    this.#ports.set(port, { members: new Map(), gone });
    port.start();
    return port;
  }

  /** Joins a link's VLAN with a network. @throws {NetError} ERR_ARCBOX_NET_CONFIG */
  attach(port: Port, vlan: number, name: string): void {
    const member = this.#networks.get(name);
    const state = this.#ports.get(port);
    if (
      member === undefined ||
      state === undefined ||
      vlan < 0 ||
      vlan > VLAN_ID_MAX ||
      state.members.has(vlan)
    ) {
      throw new NetError(
        'ERR_ARCBOX_NET_CONFIG',
        `VLAN ${vlan} of ${port.link.name} cannot be joined with the network ${name}: the network must exist and the VLAN be free`,
      );
    }
    const attachment = { port, vlan };
    state.members.set(vlan, { member, attachment });
    member.stack.attachments.push(attachment);
  }

  /** Takes a link's VLAN out of its network. */
  detach(port: Port, vlan: number): void {
    const state = this.#ports.get(port);
    const entry = state?.members.get(vlan);
    if (state === undefined || entry === undefined) return;
    state.members.delete(vlan);
    entry.member.stack.unplug(port);
    forget(entry.member, port);
    port.flush();
  }

  unplug(port: Port): void {
    if (!this.#ports.has(port)) return;
    this.#leave(port);
    port.close();
  }

  frame(port: Port, start: number, end: number): void {
    const { bytes } = this.environment.arena;
    const tagged = isTagged(bytes, start);
    const state = this.#ports.get(port);
    const short = tagged && end - start < ETH_HEADER_BYTES + VLAN_TAG_BYTES;
    const entry =
      short || isStacked(bytes, start, tagged) ? undefined : state?.members.get(vlanOf(bytes, start));
    if (entry === undefined) {
      this.counters.strays += 1;
      return;
    }
    const { member, attachment } = entry;
    const { stack } = member;
    if (!member.busy) {
      member.busy = true;
      this.#busy.push(member);
    }
    const shared = stack.attachments.length > 1;
    if (shared) learn(member, bytes, start + ETH_SOURCE, attachment);
    if (sameMac(bytes, start + ETH_DESTINATION, stack.mac, 0)) {
      stack.input(port, attachment.vlan, start, end);
      return;
    }
    const group = isGroupMac(bytes, start + ETH_DESTINATION);
    if (group) stack.input(port, attachment.vlan, start, end);
    if (!shared) return;
    const place = group ? undefined : member.places.get(macKey(bytes, start + ETH_DESTINATION));
    if (place !== undefined) {
      if (place !== attachment) this.#forward(place, start, end);
      return;
    }
    for (const other of stack.attachments) if (other !== attachment) this.#forward(other, start, end);
  }

  batchEnd(_port: Port): void {
    for (const member of this.#busy) {
      member.busy = false;
      member.stack.batchEnd();
    }
    this.#busy.length = 0;
    for (const port of this.#ports.keys()) port.flush();
  }

  portClosed(port: Port, error: Error | undefined): void {
    const state = this.#ports.get(port);
    this.#leave(port);
    state?.gone(error);
  }

  /** Does what time asks for. */
  advance(): void {
    this.environment.wheel.advance(this.environment.clock.nowMs());
    for (const port of this.#ports.keys()) port.flush();
  }

  close(): void {
    for (const name of [...this.#networks.keys()]) this.removeNetwork(name);
    for (const port of [...this.#ports.keys()]) this.unplug(port);
  }

  #leave(port: Port): void {
    const state = this.#ports.get(port);
    if (state === undefined) return;
    this.#ports.delete(port);
    for (const { member } of state.members.values()) {
      member.stack.unplug(port);
      forget(member, port);
    }
  }

  /** Copies a frame to another place, with the tag that the network has there. */
  #forward(to: Attachment, start: number, end: number): void {
    const { bytes, kernels } = this.environment.arena;
    const payload = start + ETH_HEADER_BYTES + (isTagged(bytes, start) ? VLAN_TAG_BYTES : 0);
    const size = ETH_HEADER_BYTES + VLAN_TAG_BYTES + end - payload;
    const frame = to.port.reserve(size);
    if (frame < 0) {
      to.port.counters.droppedFrames += 1;
      return;
    }
    const destination = bytes.subarray(start + ETH_DESTINATION, start + ETH_DESTINATION + 6);
    const source = bytes.subarray(start + ETH_SOURCE, start + ETH_SOURCE + 6);
    const at = writeEthernet(bytes, frame, destination, source, to.vlan, u16(bytes, payload - 2));
    kernels.copy(at, payload, end - payload);
    to.port.commit(at - frame + end - payload);
    this.counters.forwarded += 1;
  }
}

/** Whether another tag follows: taken off here, it would name a network of the machine that the frame goes to. */
function isStacked(bytes: Uint8Array, start: number, tagged: boolean): boolean {
  const type = u16(bytes, start + ETH_TYPE + (tagged ? VLAN_TAG_BYTES : 0));
  return type === ETHERTYPE_VLAN ? tagged : type === ETHERTYPE_SERVICE_VLAN;
}

function learn(member: Member, bytes: Uint8Array, at: number, attachment: Attachment): void {
  if (isGroupMac(bytes, at)) return;
  const key = macKey(bytes, at);
  if (member.places.get(key) === attachment) return;
  member.places.delete(key);
  member.places.set(key, attachment);
  if (member.places.size > SWITCH_ADDRESSES_MAX) {
    for (const oldest of member.places.keys()) {
      member.places.delete(oldest);
      break;
    }
  }
}

function forget(member: Member, port: Port): void {
  for (const [mac, place] of member.places) if (place.port === port) member.places.delete(mac);
}
