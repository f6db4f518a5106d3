/** What is stored of networks, and of containers' places in them. */

export interface NetworkRecord {
  /** 64 hex digits. */
  readonly id: string;
  readonly name: string;
  /** IEEE 802.1Q, 1 to 4094: names the network on every machine's card. */
  readonly vlan: number;
  /** `10.88.0.0/16`. */
  readonly subnet: string;
  /** Where our stack answers. */
  readonly gateway: string;
  /** Addresses are taken from here when none is asked for; the whole subnet when undefined. */
  readonly range: string | undefined;
  /** IPv6, which it may have beside IPv4: `fd00:1::/64`, its gateway, and the part that addresses are taken from. */
  readonly subnet6: string | undefined;
  readonly gateway6: string | undefined;
  readonly range6: string | undefined;
  /** Nothing leaves it. */
  readonly internal: boolean;
  readonly labels: Readonly<Record<string, string>>;
  readonly createdMs: number;
}

/** A container's place in a network; it keeps its address until it leaves. */
export interface EndpointRecord {
  /** Unique for ever. */
  readonly number: number;
  readonly networkId: string;
  readonly containerId: string;
  /** Of the interface in the container: `eth0` is 0. */
  readonly position: number;
  readonly address: string;
  /** In a network that has IPv6. */
  readonly address6: string | undefined;
  /** `02:42:…`. */
  readonly mac: string;
  /** Names besides the container's own that are resolved in this network. */
  readonly aliases: readonly string[];
}
