/** `arcbox events`: what happens, as it happens; goes on where it was when the daemon dies under it. */
import { type EventJson, isUnreachable } from '@arcbox/api/client';
import type { Context } from '../context.ts';
import { eventFields, eventJson } from '../docker-event.ts';
import { CliError } from '../errors.ts';
import { complain, print } from '../output.ts';
import { compileTemplate } from '../template/evaluate.ts';
import { parseTime } from '../time.ts';

export interface EventsOptions {
  readonly since?: string;
  readonly until?: string;
  readonly filter?: readonly string[];
  readonly format?: string;
}

export async function events(context: Context, options: EventsOptions): Promise<number> {
  const show = printer(options.format);
  const filters: Record<string, { values: string[] }> = {};
  for (const text of options.filter ?? []) {
    const equals = text.indexOf('=');
    if (equals < 1) throw new CliError(`${JSON.stringify(text)} is not a filter of the form KEY=VALUE`, 1);
    const key = text.slice(0, equals);
    filters[key] = { values: [...(filters[key]?.values ?? []), text.slice(equals + 1)] };
  }
  const sinceMs = options.since === undefined ? undefined : parseTime(options.since);
  const untilMs = options.until === undefined ? undefined : parseTime(options.until);
  const startedMs = Date.now();
  let after: string | undefined;
  let broke = false;
  for (;;) {
    // After a break without any event: those since we began.
    const from = after === undefined ? (sinceMs ?? (broke ? startedMs : undefined)) : undefined;
    try {
      const stream = context.daemon.stream('SystemService/Events', {
        filters,
        ...(after === undefined ? {} : { afterSeq: after }),
        ...(from === undefined ? {} : { sinceMs: String(from) }),
        ...(untilMs === undefined ? {} : { untilMs: String(untilMs) }),
      });
      for await (const event of stream) {
        if (event.lost !== undefined && event.lost !== '0') complain(`${event.lost} events were lost`);
        if (event.seq === undefined) continue;
        after = event.seq;
        show(event);
      }
      return 0;
    } catch (error) {
      if (!isUnreachable(error)) throw error;
      broke = true;
    }
  }
}

function printer(format = 'text'): (event: EventJson) => void {
  if (format === 'json') return (event) => print(eventJson(event));
  if (format !== 'text') {
    const template = compileTemplate(format);
    return (event) => print(template(eventFields(event)));
  }
  return (event) => {
    const attributes = Object.entries(event.attributes ?? {})
      .map(([key, value]) => `${key}=${value}`)
      .toSorted();
    const more = attributes.length === 0 ? '' : ` (${attributes.join(', ')})`;
    print(
      `${new Date(Number(event.timeMs)).toISOString()} ${event.type} ${event.action} ${event.id ?? ''}${more}`,
    );
  };
}
