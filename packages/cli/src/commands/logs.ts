/** `arcbox logs`: the bytes as they were written, or lines with their times, or JSON. */
import { isUtf8 } from 'node:buffer';
import { ContainerStream, isUnreachable, type LogEntryJson } from '@arcbox/api/client';
import type { Context } from '../context.ts';
import { CliError } from '../errors.ts';
import { Output } from '../output.ts';
import { parseTime } from '../time.ts';

export interface LogsOptions {
  readonly details?: boolean;
  readonly follow?: boolean;
  readonly tail?: string;
  readonly since?: string;
  readonly until?: string;
  readonly timestamps?: boolean;
  readonly format?: string;
}

type Channel = 1 | 2;
const NEWLINE = 10;

export async function logs(context: Context, id: string, options: LogsOptions): Promise<number> {
  const { follow, tail, since, until, timestamps, format = 'text' } = options;
  if (format !== 'text' && format !== 'json')
    throw new CliError(`${JSON.stringify(format)} is not a format; there are text and json`, 1);
  if (options.details === true)
    throw new CliError('--details is not supported: --log-opt gives a log no labels or variables to show', 1);
  const isPlain = [tail ?? 'all', since ?? '', until ?? ''].join() === 'all,,' && timestamps !== true;
  // Bytes as they are need no messages around them.
  if (isPlain && format === 'text') return plain(context, id, follow === true);
  const request = {
    id,
    follow: follow === true,
    ...(tail === undefined || tail === 'all' ? {} : { tail: lines(tail) }),
    ...(since === undefined ? {} : { sinceMs: String(parseTime(since)) }),
    ...(until === undefined ? {} : { untilMs: String(parseTime(until)) }),
  };
  const outputs = { 1: new Output(1), 2: new Output(2) };
  const isMidLine: Record<Channel, boolean> = { 1: false, 2: false };
  const show = async (entry: LogEntryJson): Promise<void> => {
    const channel: Channel = entry.stream === 'STREAM_STDERR' ? 2 : 1;
    const data = Buffer.from(entry.data ?? '', 'base64');
    if (data.length === 0) return;
    if (format === 'json') await outputs[1].write(jsonLines(entry, data));
    else await outputs[channel].write(timestamps ? stamped(entry, data, channel, isMidLine) : data);
  };
  await eachEntry(context, request, show);
  await Promise.all([outputs[1].flushed(), outputs[2].flushed()]);
  return 0;
}

/** Goes on where it was when the daemon dies under it. */
async function eachEntry(
  context: Context,
  request: { readonly id: string; readonly follow: boolean; readonly tail?: string },
  show: (entry: LogEntryJson) => Promise<void>,
): Promise<void> {
  let cursor: string | undefined;
  for (;;) {
    const { tail, ...rest } = request;
    const from = cursor === undefined ? (tail === undefined ? {} : { tail }) : { cursor };
    try {
      for await (const batch of context.daemon.stream('ContainerService/Logs', { ...rest, ...from })) {
        for (const entry of batch.entries ?? []) await show(entry);
        cursor = batch.cursor ?? cursor;
      }
      return;
    } catch (error) {
      if (!isUnreachable(error)) throw error;
    }
  }
}

async function plain(context: Context, id: string, follow: boolean): Promise<number> {
  const outputs = { 1: new Output(1), 2: new Output(2) };
  const stream = new ContainerStream(context.daemon, {
    container: id,
    cursor: 'start',
    logs: { follow },
    stdin: false,
    onOutput: (channel, data) => outputs[channel].write(data),
  });
  await context.daemon.call('SystemService/Ping', {});
  await stream.open();
  await stream.exited;
  await Promise.all([outputs[1].flushed(), outputs[2].flushed()]);
  stream.detach();
  return 0;
}

/** Each line begins with the time at which it began. */
function stamped(
  entry: LogEntryJson,
  data: Buffer,
  channel: Channel,
  isMidLine: Record<Channel, boolean>,
): Buffer {
  const stamp = Buffer.from(`${timeOf(entry)} `);
  const parts: Buffer[] = [];
  for (const piece of pieces(data)) {
    if (!isMidLine[channel]) parts.push(stamp);
    parts.push(piece);
    isMidLine[channel] = piece.at(-1) !== NEWLINE;
  }
  return Buffer.concat(parts);
}

/** One object for each line, or piece of a line; together, stream by stream, they are exactly what was written. */
function jsonLines(entry: LogEntryJson, data: Buffer): Buffer {
  let offset = Number(entry.offset ?? 0);
  const out: string[] = [];
  for (const piece of pieces(data)) {
    const content = isUtf8(piece) ? { text: piece.toString('utf8') } : { base64: piece.toString('base64') };
    const stream = entry.stream === 'STREAM_STDERR' ? 'stderr' : 'stdout';
    out.push(JSON.stringify({ run: entry.run ?? 0, offset, time: timeOf(entry), stream, ...content }));
    offset += piece.length;
  }
  return Buffer.from(`${out.join('\n')}\n`);
}

function* pieces(data: Buffer): Generator<Buffer> {
  for (let at = 0; at < data.length; ) {
    const end = data.indexOf(NEWLINE, at);
    const next = end < 0 ? data.length : end + 1;
    yield data.subarray(at, next);
    at = next;
  }
}

function timeOf(entry: LogEntryJson): string {
  return new Date(Number(entry.unixMs ?? 0)).toISOString();
}

function lines(text: string): string {
  if (!/^\d{1,9}$/.test(text))
    throw new CliError(`--tail ${JSON.stringify(text)} is neither a number nor all`, 1);
  return text;
}
