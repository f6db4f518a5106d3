/**
 * The daemon's end of an exec's stream: `POST /v1/execs/{id}/start` with `Upgrade: arcbox-stream`.
 *
 * Query: `rows` and `columns` of the terminal, `stdin=1`. The exec is started before the answer: one that cannot be is
 * refused with its error. There is no way to come back to this stream: a client that leaves lets the command go on with its
 * input at its end and without anybody who takes its output, and the end of the daemon is the command's.
 */
import type { Duplex } from 'node:stream';
import type { Runtime } from '@arcbox/engine';
import { FrameType, jsonFrame } from './frames.ts';
import { accept, ClientInput, finish, sendOutput } from './stream-server.ts';

/** Serves exec `id`; the caller ends the socket, and tells what is thrown. */
export async function serveExec(
  runtime: Runtime,
  id: string,
  query: URLSearchParams,
  socket: Duplex,
  head: Buffer,
): Promise<void> {
  const execs = await runtime.execs();
  const [rows, columns] = [Number(query.get('rows')), Number(query.get('columns'))];
  const exec = execs.find(id);
  const process = await execs.start(id, rows > 0 && columns > 0 ? { rows, columns } : undefined);
  const stdin = query.get('stdin') === '1';
  try {
    accept(socket, {});
    const input = new ClientInput(
      socket,
      head,
      stdin ? process : { ...NO_INPUT, resize: (size) => process.resize(size) },
    );
    await sendOutput(
      socket,
      async () => {
        const records = await process.read();
        return records === undefined ? undefined : { records };
      },
      async () => process.discard(),
    );
    // The exit code is on record before anybody can learn that there is one. A client that leaves need not.
    await Promise.race([exec.ended, input.gone]);
    const { state, exitCode = 0, error } = exec.record;
    if (state !== 'exited') return;
    await finish(socket, jsonFrame(FrameType.exit, { exitCode, error }), input.farewell);
  } finally {
    process.discard();
    // Nobody else can write to it: a command that reads is not to wait for ever for a client that was killed.
    if (stdin) void process.write(new Uint8Array(0), true).catch(() => {});
  }
}

const NO_INPUT = {
  write: async (): Promise<void> => {},
  signal: async (): Promise<void> => {},
};
