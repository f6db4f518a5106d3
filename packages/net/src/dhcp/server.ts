/**
 * A DHCP server (RFC 2131) that is a function of the packet, its bindings and the clock: no socket, no timer.
 *
 * A client is known by its client identifier (option 61), else by its hardware address. An address is offered, then
 * bound; an offer that is not taken up is forgotten, and a binding that has expired keeps its address for as long as
 * nobody else needs it, so that a client comes back to the address it had (§4.3.1). Addresses come from an
 * {@link AddressPool}, shared with whoever leases from it by other means.
 *
 * We are the only server on our links, so a client that asks for an address it cannot have gets a NAK at once
 * instead of silence (§4.3.2), and one that asks for an address nobody has gets it, whether we remember it or not.
 */

import { NetError } from '../errors.ts';
import type { AddressPool } from '../ipam/index.ts';
import { formatIpv4, formatMac, parseIpv4 } from '../wire/index.ts';
import {
  type DhcpMessage,
  decodeMessage,
  encodeReply,
  MESSAGE_BYTES_DEFAULT,
  MESSAGE_BYTES_MAX,
  MessageType,
  Op,
  OptionCode,
} from './message.ts';
import * as values from './option-values.ts';

export const DHCP_SERVER_PORT = 67;
export const DHCP_CLIENT_PORT = 68;
/** How long an offer is kept for the client that asked, in milliseconds. */
export const OFFER_MS = 60_000;
/** How long an address that a client found in use is not given out, in milliseconds. */
export const DECLINED_MS = 600_000;
export const LEASE_S_DEFAULT = 86_400;
export const LEASE_S_MIN = 60;
/** 0xffffffff means for ever (§3.3). */
export const LEASE_S_MAX = 0xffffffff;
/** Longest client identifier that is taken, in bytes. */
export const CLIENT_ID_BYTES_MAX = 100;
/** Longest host name of a client that is kept. */
const HOST_NAME_LENGTH_MAX = 63;
/** Before the client's name, in the pool. */
const OWNER_PREFIX = 'dhcp/';
const BROADCAST = 0xffffffff;

export interface DhcpServerOptions {
  readonly pool: AddressPool;
  /** Our address on the link, which clients send to; default: the pool's gateway. */
  readonly serverAddress?: string;
  /** Default: the pool's gateway. Empty: clients get no default route. */
  readonly routers?: readonly string[];
  /** Default: the pool's gateway. */
  readonly dnsServers?: readonly string[];
  readonly ntpServers?: readonly string[];
  readonly leaseS?: number;
  readonly mtu?: number;
  readonly domainName?: string;
  readonly domainSearch?: readonly string[];
  /** Clients that take these ignore `routers` (RFC 3442), so a default route belongs in here too. */
  readonly routes?: readonly values.Route[];
  /** What is settled about a client by its hardware address (`02:00:00:00:00:01`). */
  readonly reservation?: (hardwareAddress: string) => Reservation | undefined;
  /** Clients without a reservation are not answered: somebody else gives out the pool's addresses. */
  readonly reservedOnly?: boolean;
}

export interface Reservation {
  /** Leased from the pool by whoever reserved it; the server neither leases it nor gives it back. */
  readonly address: string;
  readonly hostName?: string;
}

export interface DhcpReply {
  /** The UDP payload. */
  readonly payload: Uint8Array;
  /** Where it goes: a relay, the client, or `255.255.255.255`. */
  readonly address: string;
  readonly port: number;
  /** The client's hardware address; `undefined`: the Ethernet broadcast address, or as the route to a relay says. */
  readonly hardwareAddress: Uint8Array | undefined;
}

export interface Binding {
  /** The client identifier, or the hardware address, in hexadecimal digits. */
  readonly client: string;
  readonly address: string;
  readonly state: 'offered' | 'bound' | 'declined';
  /** On the clock of `handle`'s `nowMs`. */
  readonly expiresAtMs: number;
  readonly hardwareAddress: string;
  /** What the client calls itself. */
  readonly hostName?: string;
}

/** Survives JSON. The pool's state is stored by its owner. */
export interface DhcpState {
  readonly version: 1;
  readonly bindings: readonly Binding[];
}

export interface DhcpCounters {
  received: number;
  /** Too short, no magic number, an option beyond the end, not Ethernet. */
  malformed: number;
  /** Well-formed and not for us: a reply, another server's, of no type that we serve. */
  ignored: number;
  offers: number;
  acks: number;
  naks: number;
  releases: number;
  declines: number;
  /** A client went without an address, since the pool had none. */
  exhausted: number;
}

type Settled = readonly (readonly [code: number, value: Uint8Array])[];

export class DhcpServer {
  readonly counters: DhcpCounters = {
    received: 0,
    malformed: 0,
    ignored: 0,
    offers: 0,
    acks: 0,
    naks: 0,
    releases: 0,
    declines: 0,
    exhausted: 0,
  };
  readonly #pool: AddressPool;
  readonly #serverAddress: number;
  readonly #leaseS: number;
  readonly #settled: Settled;
  readonly #reservation: NonNullable<DhcpServerOptions['reservation']>;
  readonly #reservedOnly: boolean;
  readonly #bindings = new Map<string, Binding>();
  /** No offer ends before this. */
  #offersEndMs = Infinity;
  /** No binding ends before this. */
  #soonestEndMs = Infinity;

  /** @throws {NetError} `ERR_ARCBOX_NET_ADDRESS` when an option cannot be said in DHCP. */
  constructor(options: DhcpServerOptions) {
    const { pool, leaseS = LEASE_S_DEFAULT } = options;
    if (!Number.isInteger(leaseS) || leaseS < LEASE_S_MIN || leaseS > LEASE_S_MAX) {
      throw new NetError(
        'ERR_ARCBOX_NET_ADDRESS',
        `a lease of ${leaseS} s is not offered; ask for ${LEASE_S_MIN} s or more`,
      );
    }
    this.#pool = pool;
    this.#leaseS = leaseS;
    this.#serverAddress = parseIpv4(options.serverAddress ?? pool.gateway);
    this.#reservation = options.reservation ?? (() => undefined);
    this.#reservedOnly = options.reservedOnly ?? false;
    this.#settled = settledOptions(options);
  }

  /**
   * Puts bindings back: those whose address the pool has for them or has free. What the pool has leased to clients
   * that are not among them it gets back.
   *
   * @throws {NetError} `ERR_ARCBOX_NET_STATE`
   */
  restore(state: DhcpState): void {
    if (state.version !== 1) {
      throw new NetError('ERR_ARCBOX_NET_STATE', `DHCP state has version ${state.version}, not 1`);
    }
    for (const binding of state.bindings) {
      const owner = ownerOf(binding);
      const leased = this.#pool.addressOf(owner);
      if (leased === undefined && this.#pool.isFree(binding.address))
        this.#pool.lease(owner, binding.address);
      else if (leased !== binding.address) continue;
      this.#bindings.set(binding.client, binding);
    }
    for (const [owner] of [...this.#pool.leases()]) {
      if (owner.startsWith(OWNER_PREFIX) && !this.#bindings.has(owner.slice(OWNER_PREFIX.length))) {
        this.#pool.release(owner);
      }
    }
    this.#offersEndMs = 0;
    this.#soonestEndMs = 0;
  }

  toState(): DhcpState {
    return { version: 1, bindings: [...this.#bindings.values()] };
  }

  get bindings(): Iterable<Binding> {
    return this.#bindings.values();
  }

  /**
   * Takes a message that came to port 67, and gives the answer, if there is one. Never throws for what a client sent.
   * `nowMs` is a wall clock, since bindings outlive the process.
   */
  handle(packet: Uint8Array, nowMs: number): DhcpReply | undefined {
    this.counters.received++;
    const message = decodeMessage(packet);
    const type = message?.options.get(OptionCode.messageType);
    if (message === undefined || type?.length !== 1) {
      this.counters.malformed++;
      return undefined;
    }
    const client = clientOf(message);
    if (message.op !== Op.request || client === undefined) return this.#ignore();
    if (this.#reservedOnly && this.#reservation(formatMac(message.hardwareAddress)) === undefined) {
      return this.#ignore();
    }
    switch (type[0]) {
      case MessageType.discover:
        return this.#discover(message, client, nowMs);
      case MessageType.request:
        return this.#request(message, client, nowMs);
      case MessageType.decline:
        return this.#decline(message, client, nowMs);
      case MessageType.release:
        return this.#release(message, client);
      case MessageType.inform:
        return this.#inform(message);
      default:
        return this.#ignore();
    }
  }

  #ignore(): undefined {
    this.counters.ignored++;
    return undefined;
  }

  #discover(message: DhcpMessage, client: string, nowMs: number): DhcpReply | undefined {
    const wanted = addressOption(message, OptionCode.requestedAddress);
    const address =
      this.#addressOf(message, client) ?? this.#grant(client, wanted, nowMs) ?? this.#grantAny(client, nowMs);
    if (address === undefined) {
      this.counters.exhausted++;
      return undefined;
    }
    if (message.options.has(OptionCode.rapidCommit)) return this.#ack(message, client, address, nowMs);
    this.counters.offers++;
    const bound = this.#bindings.get(client);
    if (bound?.state !== 'bound' || bound.expiresAtMs <= nowMs) {
      this.#bind(message, client, address, 'offered', nowMs + OFFER_MS);
    }
    return this.#reply(message, MessageType.offer, address, client);
  }

  #request(message: DhcpMessage, client: string, nowMs: number): DhcpReply | undefined {
    const server = addressOption(message, OptionCode.serverId);
    const requested = addressOption(message, OptionCode.requestedAddress);
    if (server !== undefined && server !== this.#serverAddress) {
      // The client took another server's offer; ours is free again.
      if (this.#bindings.get(client)?.state === 'offered') this.#forget(client);
      return this.#ignore();
    }
    const wanted = message.clientAddress !== 0 ? message.clientAddress : requested;
    if (wanted === undefined) return this.#ignore();
    const text = formatIpv4(wanted);
    const address = this.#addressOf(message, client) ?? this.#grant(client, wanted, nowMs);
    if (address !== text) return this.#nak(message, client, `${text} is not yours here`);
    return this.#ack(message, client, address, nowMs);
  }

  #decline(message: DhcpMessage, client: string, nowMs: number): undefined {
    const declined = addressOption(message, OptionCode.requestedAddress);
    const binding = this.#bindings.get(client);
    if (declined === undefined || binding === undefined || binding.address !== formatIpv4(declined)) {
      return this.#ignore();
    }
    this.counters.declines++;
    this.#forget(client);
    // Kept under a name of its own, so that nobody gets it for a while.
    const kept: Binding = {
      client: `declined-${binding.address}`,
      address: binding.address,
      state: 'declined',
      expiresAtMs: nowMs + DECLINED_MS,
      hardwareAddress: binding.hardwareAddress,
    };
    this.#pool.lease(ownerOf(kept), kept.address);
    this.#bindings.set(kept.client, kept);
    return undefined;
  }

  #release(message: DhcpMessage, client: string): undefined {
    const binding = this.#bindings.get(client);
    if (binding === undefined || parseIpv4(binding.address) !== message.clientAddress) return this.#ignore();
    this.counters.releases++;
    this.#forget(client);
    return undefined;
  }

  #inform(message: DhcpMessage): DhcpReply | undefined {
    if (message.clientAddress === 0) return this.#ignore();
    this.counters.acks++;
    return this.#reply(message, MessageType.ack, undefined, undefined);
  }

  /** What is reserved for the client, or what it has. */
  #addressOf(message: DhcpMessage, client: string): string | undefined {
    return (
      this.#reservation(formatMac(message.hardwareAddress))?.address ?? this.#bindings.get(client)?.address
    );
  }

  /** Leases the address that the client wants, if nobody has it. */
  #grant(client: string, wanted: number | undefined, nowMs: number): string | undefined {
    this.#expireOffers(nowMs);
    if (wanted === undefined) return undefined;
    const text = formatIpv4(wanted);
    if (!this.#pool.contains(text) || !this.#pool.isFree(text)) return undefined;
    return this.#pool.lease(ownerName(client), text);
  }

  #grantAny(client: string, nowMs: number): string | undefined {
    if (this.#pool.free === 0 && !this.#reclaim(nowMs)) return undefined;
    return this.#pool.lease(ownerName(client));
  }

  #ack(message: DhcpMessage, client: string, address: string, nowMs: number): DhcpReply {
    this.counters.acks++;
    const expiresAtMs = this.#leaseS === LEASE_S_MAX ? Number.MAX_SAFE_INTEGER : nowMs + this.#leaseS * 1000;
    this.#bind(message, client, address, 'bound', expiresAtMs);
    return this.#reply(message, MessageType.ack, address, client);
  }

  #bind(
    message: DhcpMessage,
    client: string,
    address: string,
    state: 'offered' | 'bound',
    expiresAtMs: number,
  ): void {
    const hardwareAddress = formatMac(message.hardwareAddress);
    // What is reserved is somebody else's to keep; what the client had before that goes back.
    if (this.#reservation(hardwareAddress) !== undefined) {
      this.#forget(client);
      return;
    }
    const hostName = hostNameOf(message);
    if (state === 'offered') this.#offersEndMs = Math.min(this.#offersEndMs, expiresAtMs);
    this.#soonestEndMs = Math.min(this.#soonestEndMs, expiresAtMs);
    this.#bindings.set(client, {
      client,
      address,
      state,
      expiresAtMs,
      hardwareAddress,
      ...(hostName === undefined ? {} : { hostName }),
    });
  }

  #forget(client: string): void {
    const binding = this.#bindings.get(client);
    if (binding === undefined) return;
    this.#bindings.delete(client);
    this.#pool.release(ownerOf(binding));
  }

  /** Looks at all bindings only when one can have expired: a client may send as many messages as it likes. */
  #expireOffers(nowMs: number): void {
    if (nowMs < this.#offersEndMs) return;
    this.#offersEndMs = Infinity;
    for (const binding of this.#bindings.values()) {
      if (binding.state === 'bound') continue;
      if (binding.expiresAtMs <= nowMs) this.#forget(binding.client);
      else this.#offersEndMs = Math.min(this.#offersEndMs, binding.expiresAtMs);
    }
  }

  /** Frees the binding that expired first. False when none has. */
  #reclaim(nowMs: number): boolean {
    if (nowMs < this.#soonestEndMs) return false;
    let oldest: Binding | undefined;
    for (const binding of this.#bindings.values()) {
      if (binding.expiresAtMs < (oldest?.expiresAtMs ?? Infinity)) oldest = binding;
    }
    this.#soonestEndMs = oldest?.expiresAtMs ?? Infinity;
    if (oldest === undefined || oldest.expiresAtMs > nowMs) return false;
    this.#forget(oldest.client);
    return true;
  }

  #nak(message: DhcpMessage, client: string, reason: string): DhcpReply {
    this.counters.naks++;
    const options: [number, Uint8Array][] = [
      [OptionCode.messageType, Uint8Array.of(MessageType.nak)],
      [OptionCode.serverId, values.uint32(this.#serverAddress)],
      [OptionCode.message, values.text(reason)],
    ];
    const clientId = message.options.get(OptionCode.clientId);
    if (clientId !== undefined) options.push([OptionCode.clientId, clientId]);
    if (this.#bindings.get(client)?.state === 'offered') this.#forget(client);
    const relayed = message.relayAddress !== 0;
    return {
      payload: encodeReply({
        transactionId: message.transactionId,
        broadcast: relayed || message.broadcast,
        clientAddress: 0,
        yourAddress: 0,
        serverAddress: 0,
        relayAddress: message.relayAddress,
        hardwareAddress: message.hardwareAddress,
        options,
        bytesMax: bytesMaxOf(message),
      }),
      // A client whose address is wrong cannot be reached at it (§4.3.2).
      address: formatIpv4(relayed ? message.relayAddress : BROADCAST),
      port: relayed ? DHCP_SERVER_PORT : DHCP_CLIENT_PORT,
      hardwareAddress: undefined,
    };
  }

  /** An offer or an ACK; without `address` the answer to an INFORM, which has no lease. */
  #reply(
    message: DhcpMessage,
    type: number,
    address: string | undefined,
    client: string | undefined,
  ): DhcpReply {
    const options: [number, Uint8Array][] = [
      [OptionCode.messageType, Uint8Array.of(type)],
      [OptionCode.serverId, values.uint32(this.#serverAddress)],
    ];
    if (address !== undefined) {
      options.push([OptionCode.leaseTime, values.uint32(this.#leaseS)]);
      const times = [Math.floor(this.#leaseS / 2), Math.floor(this.#leaseS * 0.875)] as const;
      options.push([OptionCode.renewalTime, values.uint32(times[0])]);
      options.push([OptionCode.rebindingTime, values.uint32(times[1])]);
    }
    const clientId = message.options.get(OptionCode.clientId);
    if (clientId !== undefined) options.push([OptionCode.clientId, clientId]); // RFC 6842
    if (
      type === MessageType.ack &&
      message.options.get(OptionCode.messageType)?.[0] === MessageType.discover
    ) {
      options.push([OptionCode.rapidCommit, new Uint8Array(0)]);
    }
    const wanted = message.options.get(OptionCode.parameterList);
    const hostName = this.#reservation(formatMac(message.hardwareAddress))?.hostName;
    const offered: Settled =
      hostName === undefined
        ? this.#settled
        : [...this.#settled, [OptionCode.hostName, values.text(hostName)]];
    for (const option of offered) {
      if (wanted === undefined || wanted.includes(option[0])) options.push([...option]);
    }
    const yours = address === undefined ? 0 : parseIpv4(address);
    const payload = encodeReply({
      transactionId: message.transactionId,
      broadcast: message.broadcast,
      clientAddress: message.clientAddress,
      yourAddress: yours,
      serverAddress: this.#serverAddress,
      relayAddress: message.relayAddress,
      hardwareAddress: message.hardwareAddress,
      options,
      bytesMax: bytesMaxOf(message),
    });
    const { hardwareAddress } = message;
    // §4.1: the relay, the address the client has, everybody, or the address it is about to have.
    if (message.relayAddress !== 0) {
      return {
        payload,
        address: formatIpv4(message.relayAddress),
        port: DHCP_SERVER_PORT,
        hardwareAddress: undefined,
      };
    }
    const to = { payload, port: DHCP_CLIENT_PORT };
    if (message.clientAddress !== 0)
      return { ...to, address: formatIpv4(message.clientAddress), hardwareAddress };
    if (message.broadcast || client === undefined) {
      return { ...to, address: formatIpv4(BROADCAST), hardwareAddress: undefined };
    }
    return { ...to, address: formatIpv4(yours), hardwareAddress };
  }
}

/** The options that are the same for every client. What a client cannot do without comes first. */
function settledOptions(options: DhcpServerOptions): Settled {
  const { pool, routers = [pool.gateway], dnsServers = [pool.gateway] } = options;
  const list: [number, Uint8Array][] = [
    [OptionCode.subnetMask, values.uint32((0xffffffff << (32 - pool.prefix)) >>> 0)],
    [OptionCode.broadcast, values.addresses([pool.broadcast])],
  ];
  // Before the routers: a client that takes both reads this one (RFC 3442).
  if (options.routes !== undefined && options.routes.length > 0) {
    list.push([OptionCode.classlessRoutes, values.classlessRoutes(options.routes)]);
  }
  if (routers.length > 0) list.push([OptionCode.router, values.addresses(routers)]);
  if (dnsServers.length > 0) list.push([OptionCode.dnsServers, values.addresses(dnsServers)]);
  if (options.mtu !== undefined) {
    if (!Number.isInteger(options.mtu) || options.mtu < 68 || options.mtu > 65535) {
      throw new NetError(
        'ERR_ARCBOX_NET_ADDRESS',
        `an MTU of ${options.mtu} is not possible; it is 68 to 65535`,
      );
    }
    list.push([OptionCode.mtu, values.uint16(options.mtu)]);
  }
  if (options.domainName !== undefined) list.push([OptionCode.domainName, values.text(options.domainName)]);
  if (options.domainSearch !== undefined && options.domainSearch.length > 0) {
    list.push([OptionCode.domainSearch, values.domainSearch(options.domainSearch)]);
  }
  if (options.ntpServers !== undefined && options.ntpServers.length > 0) {
    list.push([OptionCode.ntpServers, values.addresses(options.ntpServers)]);
  }
  return list;
}

function clientOf(message: DhcpMessage): string | undefined {
  const id = message.options.get(OptionCode.clientId);
  if (id === undefined) return Buffer.from(message.hardwareAddress).toString('hex');
  return id.length < 2 || id.length > CLIENT_ID_BYTES_MAX ? undefined : Buffer.from(id).toString('hex');
}

function ownerName(client: string): string {
  return OWNER_PREFIX + client;
}

function ownerOf(binding: Binding): string {
  return ownerName(binding.client);
}

function addressOption(message: DhcpMessage, code: number): number | undefined {
  const value = message.options.get(code);
  if (value?.length !== 4) return undefined;
  return new DataView(value.buffer, value.byteOffset).getUint32(0);
}

function bytesMaxOf(message: DhcpMessage): number {
  const value = message.options.get(OptionCode.maxMessageSize);
  if (value?.length !== 2) return MESSAGE_BYTES_DEFAULT;
  const datagram = ((value[0] ?? 0) << 8) | (value[1] ?? 0);
  return Math.min(Math.max(datagram - 28, MESSAGE_BYTES_DEFAULT), MESSAGE_BYTES_MAX);
}

function hostNameOf(message: DhcpMessage): string | undefined {
  const value = message.options.get(OptionCode.hostName);
  if (value === undefined) return undefined;
  const name = Buffer.from(value).toString('latin1').replace(/\0+$/, '').toLowerCase();
  return name.length <= HOST_NAME_LENGTH_MAX && /^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/.test(name)
    ? name
    : undefined;
}
