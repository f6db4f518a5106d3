import { type Duplex, duplexPair } from 'node:stream';
import {
  AgentClient,
  type AgentHandlers,
  type AgentSession,
  OpFailure,
  type ServedObject,
  serveAgent,
} from '../src/index.ts';

export const SECRET = new Uint8Array(16).fill(7);

export interface Pair extends AsyncDisposable {
  readonly client: AgentClient;
  readonly session: AgentSession;
}

/** A client and a served agent over an in-memory channel. */
export async function connectedPair(handlers: AgentHandlers): Promise<Pair> {
  const [ours, theirs] = duplexPair();
  const session = serveAgent(theirs, handlers);
  const client = await AgentClient.connect(ours, { secret: SECRET, timeoutMs: 5000 });
  return {
    client,
    session,
    async [Symbol.asyncDispose]() {
      await client.close();
      await session.close();
    },
  };
}

/** Handlers that know the given objects and refuse every operation. */
export function objectsOnly(...objects: ServedObject[]): AgentHandlers {
  const table = new Map(objects.map((object) => [object.id, object]));
  return {
    op(op) {
      throw new OpFailure(38, `${op.case} is not implemented`);
    },
    object: (id) => table.get(id),
  };
}

/** Everything that can be read from the channel now and later, as it comes. */
export function collect(channel: Duplex): Buffer[] {
  const pieces: Buffer[] = [];
  channel.on('data', (piece: Buffer) => pieces.push(piece));
  return pieces;
}
