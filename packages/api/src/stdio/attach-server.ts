/**
 * The daemon's end of the stdio stream: `POST /v1/containers/{id}/attach` with `Upgrade: arcbox-stream`.
 *
 * Query: `cursor` (a position in the log, `start`, or `end`, the default), `run` (which start of the container; default
 * the one that goes on or the next), `stdin=1`. With `logs=1` it is a reader of the log instead: no input, and with
 * `follow=1` until the run has ended. The answer's header `arcbox-cursor` is where the stream begins, `arcbox-run` the
 * run, `arcbox-input` the offset of the first byte of input that is taken.
 */
import type { Duplex } from 'node:stream';
import { type ContainerAttachment, EngineError, type Runtime } from '@arcbox/engine';
import { FrameType, jsonFrame } from './frames.ts';
import { accept, ClientInput, finish, sendOutput } from './stream-server.ts';

/** Runs are stored and sent in 32 bits. */
const RUN_MAX = 0xffffffff;

/** Serves container `id`; the caller ends the socket, and tells what is thrown. */
export async function serveAttach(
  runtime: Runtime,
  id: string,
  query: URLSearchParams,
  socket: Duplex,
  head: Buffer,
): Promise<void> {
  const containers = await runtime.containers();
  const cursor = readCursor(query.get('cursor'));
  if (query.get('logs') === '1') {
    const follow = query.get('follow') === '1';
    const { reader, position, release } = await containers.logs(id, { follow, cursor: cursor ?? 'start' });
    try {
      accept(socket, { 'arcbox-cursor': position });
      new ClientInput(socket, head, undefined);
      await sendOutput(
        socket,
        () => reader.read(),
        () => reader.close(),
      );
      await finish(socket, jsonFrame(FrameType.exit, { exitCode: 0, error: '' }));
    } finally {
      await release();
    }
    return;
  }
  const run = readRun(query.get('run'));
  const attachment = await containers.attach(id, {
    ...(cursor === undefined ? {} : { cursor }),
    ...(run === undefined ? {} : { run }),
  });
  try {
    await serveAttachment(attachment, socket, head, query.get('stdin') === '1');
  } finally {
    await attachment.close();
  }
}

async function serveAttachment(
  attachment: ContainerAttachment,
  socket: Duplex,
  head: Buffer,
  stdin: boolean,
): Promise<void> {
  accept(socket, {
    'arcbox-cursor': attachment.position,
    'arcbox-run': attachment.run,
    'arcbox-input': attachment.inputAccepted,
  });
  const input = new ClientInput(socket, head, attachment);
  if (stdin) void input.announce();
  await sendOutput(
    socket,
    () => attachment.read(),
    () => attachment.close(),
  );
  // A client that leaves now need not hear how it ended.
  const exit = await Promise.race([attachment.exited, input.gone]);
  if (exit !== undefined) await finish(socket, jsonFrame(FrameType.exit, exit), input.farewell);
}

function readRun(text: string | null): number | undefined {
  if (text === null) return undefined;
  const run = Number(text);
  if (/^\d+$/.test(text) && run >= 1 && run <= RUN_MAX) return run;
  throw new EngineError('ERR_ARCBOX_INVALID_ARGUMENT', `${JSON.stringify(text)} is not the number of a run`);
}

function readCursor(text: string | null): number | 'start' | 'end' | undefined {
  if (text === null) return undefined;
  if (text === 'start' || text === 'end') return text;
  const cursor = Number(text);
  if (Number.isSafeInteger(cursor) && cursor >= 0 && text !== '') return cursor;
  throw new EngineError('ERR_ARCBOX_INVALID_ARGUMENT', `${JSON.stringify(text)} is not a position in a log`);
}
