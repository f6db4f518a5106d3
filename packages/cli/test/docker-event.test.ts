import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eventFields, eventJson } from '../src/docker-event.ts';
import { compileTemplate } from '../src/template/evaluate.ts';

const EVENT = {
  seq: '7',
  timeMs: '1700000000123',
  type: 'container',
  action: 'die',
  id: 'abc',
  attributes: { name: 'web', image: 'busybox', exitCode: '3' },
};

test('a template finds what it finds in docker', () => {
  const text =
    '{{.Time}} {{.TimeNano}} {{.Type}} {{.Action}} {{.Actor.ID}} {{.Actor.Attributes.exitCode}} {{.From}}';
  assert.equal(
    compileTemplate(text)(eventFields(EVENT)),
    '1700000000 1700000000123000000 container die abc 3 busybox',
  );
});

test('its JSON is docker’s, with nanoseconds to the last digit', () => {
  const text = eventJson(EVENT);
  assert.match(text, /"timeNano":1700000000123000000}$/);
  const { timeNano: _, ...rest } = JSON.parse(text) as Record<string, unknown>;
  assert.deepEqual(rest, {
    status: 'die',
    id: 'abc',
    from: 'busybox',
    Type: 'container',
    Action: 'die',
    Actor: { ID: 'abc', Attributes: EVENT.attributes },
    scope: 'local',
    seq: 7,
    time: 1_700_000_000,
  });
  assert.equal('from' in (JSON.parse(eventJson({ type: 'machine' })) as object), false);
});
