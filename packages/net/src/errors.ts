/** Every error this package throws carries one of these codes; they are part of the API. */
export type NetErrorCode =
  /** A text is no address, subnet or range; or the address is not in the subnet. */
  | 'ERR_ARCBOX_NET_ADDRESS'
  /** Somebody else has the address. */
  | 'ERR_ARCBOX_NET_ADDRESS_TAKEN'
  /** A pool of addresses, subnets or ports has nothing left. */
  | 'ERR_ARCBOX_NET_EXHAUSTED'
  /** State that was read back is not what this package wrote. */
  | 'ERR_ARCBOX_NET_STATE'
  /** A name cannot be resolved: it is malformed, or no resolver answered. */
  | 'ERR_ARCBOX_NET_DNS'
  /** A rule of a policy is malformed. */
  | 'ERR_ARCBOX_NET_POLICY'
  /** A published port is malformed. */
  | 'ERR_ARCBOX_NET_PORT_SPEC'
  /** An address to publish on is none of this host's, or of a family that it does not have. */
  | 'ERR_ARCBOX_NET_NO_ADDRESS'
  /** A host port is in use by somebody else, or we may not bind it. */
  | 'ERR_ARCBOX_NET_PORT_TAKEN'
  /** A configuration of the stack that cannot work. */
  | 'ERR_ARCBOX_NET_CONFIG'
  /** The far end of a link sent what no frame can be. */
  | 'ERR_ARCBOX_NET_LINK'
  /** The host does not offer what is needed, for example a TAP device. */
  | 'ERR_ARCBOX_NET_HOST';

export class NetError extends Error {
  override readonly name = 'NetError';
  readonly code: NetErrorCode;

  constructor(code: NetErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** What an unknown thrown value says, for a message around it. */
export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
