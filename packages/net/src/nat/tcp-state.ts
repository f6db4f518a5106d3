/** What the flags of a TCP segment do to a connection that passes. It is not ours: whatever happens, it goes on. */
import { TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN } from '../wire/index.ts';
import { type ConnectionTable, Seen, State } from './table.ts';

/** Flags that change something. */
export const TCP_EVENTS: number = TCP_SYN | TCP_FIN | TCP_RST;

export function advanceTcp(table: ConnectionTable, entry: number, flags: number, outgoing: boolean): void {
  let seen = table.seen[entry] as number;
  const state = table.state[entry] as number;
  if ((flags & TCP_RST) !== 0) {
    table.state[entry] = State.closed;
    return;
  }
  if ((flags & TCP_SYN) !== 0) {
    // The same ports again, for a new connection.
    if ((flags & TCP_ACK) === 0 && state >= State.closing) {
      seen = 0;
      table.state[entry] = State.opening;
    }
    seen |= outgoing ? Seen.synOut : Seen.synIn;
    const both = Seen.synOut | Seen.synIn;
    if (table.state[entry] === State.opening && (seen & both) === both)
      table.state[entry] = State.established;
  }
  if ((flags & TCP_FIN) !== 0) {
    seen |= outgoing ? Seen.finOut : Seen.finIn;
    const both = Seen.finOut | Seen.finIn;
    table.state[entry] = (seen & both) === both ? State.closing : State.halfClosed;
  }
  table.seen[entry] = seen;
}
