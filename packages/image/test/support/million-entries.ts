/** Feeds the index of a layer as many entries as it takes, and one more; prints what came of it. */
import { LayerFilter } from '../../src/layer/filter.ts';
import { TarReader } from '../../src/tar/reader.ts';
import { entry } from './tars.ts';

const one = entry({ name: 'd/0000000', type: 'fifo' });
let taken = 0;
const index = LayerFilter.indexing();
const reader = new TarReader({
  onEntry: (found) => {
    taken += 1;
    index.onEntry(found);
  },
  onData: () => {},
  onEntryEnd: () => index.onEntryEnd(),
});
let refusal = '';
while (refusal === '') {
  try {
    reader.write(one);
  } catch (error) {
    refusal = String(error);
  }
}
process.stdout.write(JSON.stringify({ taken, refusal }));
