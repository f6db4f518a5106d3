import assert from 'node:assert/strict';
import { test } from 'node:test';
import { filterRows, hasLabel, parseFilters, type RowFilters, truth } from '../src/row-filters.ts';

interface Row {
  readonly name: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly used: boolean;
}

const KNOWN: RowFilters<Row> = {
  name: ({ name }, value) => name.includes(value),
  label: ({ labels }, value) => hasLabel(labels, value),
  dangling: ({ used }, value) => !used === truth('dangling', value),
};
const ROWS: readonly Row[] = [
  { name: 'data', labels: { tier: 'back', a: 'b=c' }, used: true },
  { name: 'cache', labels: { tier: '' }, used: false },
  { name: 'bare', used: false },
];

test('one key’s values are alternatives, labels and different keys all count', () => {
  const table: readonly [string[], string[]][] = [
    [[], ['data', 'cache', 'bare']],
    [
      ['name=data', 'name=ache'],
      ['data', 'cache'],
    ],
    [['label=tier'], ['data', 'cache']],
    [['label=tier=back', 'label=a=b=c'], ['data']],
    [['label=tier', 'dangling=true'], ['cache']],
    [['dangling=0'], ['data']],
    [['name=nothing'], []],
  ];
  for (const [filters, names] of table) {
    const found = filterRows(ROWS, parseFilters(filters, KNOWN), KNOWN);
    assert.deepEqual(
      found.map(({ name }) => name),
      names,
      filters.join(' '),
    );
  }
});

test('what is no filter, or no value of one, is refused', () => {
  assert.throws(() => parseFilters(['size=1'], KNOWN), /is no filter; there are name=…, label=…, dangling=…/);
  assert.throws(() => parseFilters(['name'], KNOWN), /is no filter/);
  const wanted = parseFilters(['dangling=perhaps'], KNOWN);
  assert.throws(() => filterRows(ROWS, wanted, KNOWN), /dangling is true or false/);
});
