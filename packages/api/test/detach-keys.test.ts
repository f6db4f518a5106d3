import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DetachKeys, parseDetachKeys } from '../src/client/index.ts';

test('keys are characters and control characters', () => {
  assert.deepEqual(parseDetachKeys('ctrl-p,ctrl-q'), Buffer.from([16, 17]));
  assert.deepEqual(parseDetachKeys('a,ctrl-[,ctrl-@'), Buffer.from([97, 27, 0]));
  for (const bad of ['', 'ctrl-', 'ctrl-1', 'ab', 'ctrl-p,']) {
    assert.throws(() => parseDetachKeys(bad), { code: 'ERR_ARCBOX_DETACH_KEYS' }, bad);
  }
});

test('what only began like the keys is passed on, however it is cut', () => {
  const keys = Buffer.from('aab');
  const one = new DetachKeys(keys);
  assert.deepEqual(one.take(Buffer.from('xaa')), { data: Buffer.from('x'), detach: false });
  assert.deepEqual(one.take(Buffer.from('ac')), { data: Buffer.from('aaac'), detach: false });
  assert.deepEqual(one.take(Buffer.from('aa')), { data: Buffer.from(''), detach: false });
  assert.deepEqual(one.take(Buffer.from('abzzz')), { data: Buffer.from('a'), detach: true });
});

test('as a search for the keys in everything that was typed', () => {
  const letters = fc.string({ unit: fc.constantFrom('a', 'b'), minLength: 1, maxLength: 4 });
  const input = fc.array(fc.string({ unit: fc.constantFrom('a', 'b', 'c'), maxLength: 6 }), { maxLength: 8 });
  fc.assert(
    fc.property(letters, input, (keys, pieces) => {
      const detach = new DetachKeys(Buffer.from(keys));
      const typed = pieces.join('');
      const at = typed.indexOf(keys);
      let passed = '';
      let left = false;
      for (const piece of pieces) {
        if (left) break;
        const taken = detach.take(Buffer.from(piece));
        passed += taken.data.toString();
        left = taken.detach;
      }
      assert.equal(left, at >= 0);
      if (left) assert.equal(passed, typed.slice(0, at));
      else assert.ok(typed.startsWith(passed) && typed.length - passed.length < keys.length);
    }),
    { seed: 7 },
  );
});
