import { errnoName } from './errno.ts';
import type { OpResult } from './gen/arcbox/agent/v1/agent_pb.ts';
import { DETAIL_LENGTH_MAX } from './limits.ts';

/** Stable codes of what this package throws. */
export type ProtocolErrorCode =
  /** The connection ended: by the peer, by an error of the channel, or by `close`. */
  | 'ERR_ARCBOX_AGENT_CLOSED'
  /** The peer broke the protocol; the connection was ended. */
  | 'ERR_ARCBOX_AGENT_PROTOCOL'
  /** No answer in time. */
  | 'ERR_ARCBOX_AGENT_TIMEOUT'
  /** The agent speaks another version. */
  | 'ERR_ARCBOX_AGENT_VERSION'
  /** The caller asked for more than one message or one connection may hold. */
  | 'ERR_ARCBOX_AGENT_LIMIT'
  /** The agent refused a call; see `AgentCallError.status`. */
  | 'ERR_ARCBOX_AGENT_CALL'
  /** An operation of a batch failed; see `AgentOpError`. */
  | 'ERR_ARCBOX_AGENT_OP'
  /** The attachment has ended or was detached. */
  | 'ERR_ARCBOX_AGENT_STREAM_ENDED';

export class ProtocolError extends Error {
  override readonly name: string = 'ProtocolError';
  readonly code: ProtocolErrorCode;

  constructor(code: ProtocolErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** Status codes of google.rpc.Code that the agent uses. */
export const Status = {
  ok: 0,
  cancelled: 1,
  unknown: 2,
  invalidArgument: 3,
  deadlineExceeded: 4,
  notFound: 5,
  alreadyExists: 6,
  permissionDenied: 7,
  resourceExhausted: 8,
  failedPrecondition: 9,
  aborted: 10,
  outOfRange: 11,
  unimplemented: 12,
  internal: 13,
  unavailable: 14,
} as const;

/** The agent answered a call with a status other than OK. */
export class AgentCallError extends ProtocolError {
  override readonly name = 'AgentCallError';
  readonly method: string;
  /** A google.rpc.Code, see `Status`. */
  readonly status: number;
  /** What the agent said. */
  readonly detail: string;

  constructor(method: string, status: number, detail: string) {
    const name = Object.entries(Status).find(([, code]) => code === status)?.[0] ?? String(status);
    const said = clip(detail);
    super('ERR_ARCBOX_AGENT_CALL', `The agent refused ${method} (${name}): ${said || 'no reason given'}`);
    this.method = method;
    this.status = status;
    this.detail = said;
  }
}

/** An operation of a batch failed; those before it were done, those after it were not begun. */
export class AgentOpError extends ProtocolError {
  override readonly name = 'AgentOpError';
  /** Which operation of the batch, from 0. */
  readonly index: number;
  /** Its name, as in `Op.op.case`. */
  readonly op: string;
  /** Linux errno. */
  readonly errno: number;
  /** For example `ENOENT`. */
  readonly errnoName: string;
  /** What the agent said. */
  readonly detail: string;
  /** Results up to and including the failed one. */
  readonly results: readonly OpResult[];

  constructor(index: number, op: string, errno: number, detail: string, results: readonly OpResult[]) {
    const name = errnoName(errno);
    const said = clip(detail);
    super(
      'ERR_ARCBOX_AGENT_OP',
      `Operation ${index} (${op}) failed with ${name}: ${said || 'no reason given'}`,
    );
    this.index = index;
    this.op = op;
    this.errno = errno;
    this.errnoName = name;
    this.detail = said;
    this.results = results;
  }
}

/** A hostile agent's megabytes get into neither logs nor the state. */
function clip(detail: string): string {
  return detail.length <= DETAIL_LENGTH_MAX ? detail : `${detail.slice(0, DETAIL_LENGTH_MAX)}…`;
}

/** What a peer that broke the protocol is answered with, locally. */
export function violation(message: string, options?: ErrorOptions): ProtocolError {
  return new ProtocolError('ERR_ARCBOX_AGENT_PROTOCOL', message, options);
}
