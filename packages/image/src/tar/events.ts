/** A tar as a sequence of events, for a reader that has to wait for something in between. */
import type { TarEntry } from './header.ts';
import { TarReader } from './reader.ts';

export type TarEvent =
  | { readonly type: 'entry'; readonly entry: TarEntry }
  | { readonly type: 'data'; readonly data: Buffer }
  | { readonly type: 'end' };

/** Throws `ERR_ARCBOX_LAYER_INVALID`. Reads the source to its end, also beyond the end of the archive. */
export async function* tarEvents(
  source: AsyncIterable<Buffer>,
  entriesMax: number,
): AsyncGenerator<TarEvent, void, undefined> {
  let events: TarEvent[] = [];
  const reader = new TarReader(
    {
      onEntry: (entry) => events.push({ type: 'entry', entry }),
      onData: (data) => events.push({ type: 'data', data }),
      onEntryEnd: () => events.push({ type: 'end' }),
    },
    entriesMax,
  );
  for await (const chunk of source) {
    reader.write(chunk);
    if (events.length === 0) continue;
    const batch = events;
    events = [];
    yield* batch;
  }
  reader.end();
}
