/** An event as `docker events` shows it: fields for templates, and its JSON, which has other names for some of them. */
import type { EventJson } from '@arcbox/api/client';
import { goMap } from './template/evaluate.ts';

const MS_TO_NS = 1_000_000n;

/** What a template finds. `Seq` is ours: events count from 1 without gaps. */
export function eventFields(event: EventJson): Record<string, unknown> {
  const { type = '', action = '', id = '', attributes = {}, timeMs = '0', seq = '0' } = event;
  return {
    Type: type,
    Action: action,
    Actor: { ID: id, Attributes: goMap(attributes) },
    ID: id,
    Status: action,
    From: attributes.image ?? '',
    Scope: 'local',
    Time: Math.floor(Number(timeMs) / 1000),
    TimeNano: String(BigInt(timeMs) * MS_TO_NS),
    Seq: seq,
  };
}

/** Nanoseconds since 1970 are past what a number of JavaScript holds exactly, so the text is put together here. */
export function eventJson(event: EventJson): string {
  const { type = '', action = '', id = '', attributes = {}, timeMs = '0', seq = '0' } = event;
  const rest = JSON.stringify({
    ...(type === 'container' || type === 'image' ? { status: action, id } : {}),
    ...(attributes.image === undefined ? {} : { from: attributes.image }),
    Type: type,
    Action: action,
    Actor: { ID: id, Attributes: attributes },
    scope: 'local',
    seq: Number(seq),
    time: Math.floor(Number(timeMs) / 1000),
  });
  return `${rest.slice(0, -1)},"timeNano":${BigInt(timeMs) * MS_TO_NS}}`;
}
