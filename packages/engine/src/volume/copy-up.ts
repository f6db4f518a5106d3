/**
 * Filling an empty volume with what the image has at its mount point: packed in the container's root, where links lead
 * nowhere else, and unpacked in the volume. The bytes go through us, since each end is a process confined to its root.
 */
import { AgentOpError, Archive_Mode, type Attachment, type OpInput } from '@arcbox/protocol';
import { faultPoint } from '@arcbox/sys';
import { EngineError } from '../errors.ts';
import { COPY_WINDOW_BYTES } from '../limits.ts';
import type { AgentSession } from '../machine/agent-session.ts';

const ENOENT = 2;
const ENOTDIR = 20;

/** Whether there is nothing in the directory. */
export async function isEmpty(agent: AgentSession, path: string): Promise<boolean> {
  const [listing] = await agent.batch([{ case: 'list', value: { path } }]);
  const entries = listing?.result.case === 'list' ? listing.result.value.entries : [];
  return entries.every(({ name }) => name === '.' || name === '..');
}

/**
 * The same into the empty directory `to`, which is filled as a whole or not at all: by way of `staging` on the same file
 * system. Nobody may have `to` mounted.
 */
export async function copyUpWhole(
  agent: AgentSession,
  id: string,
  from: { readonly root: string; readonly path: string },
  to: string,
  staging: string,
): Promise<void> {
  await agent.batch([
    // Of an attempt that came to no end.
    { case: 'remove', value: { path: staging, recursive: true, missingOk: true } },
    { case: 'mkdir', value: { path: staging, mode: 0o755, parents: true } },
  ]);
  const copied = await copyUp(agent, id, from, staging);
  faultPoint('volume.filled');
  await agent.batch([
    copied
      ? { case: 'rename', value: { from: staging, to } }
      : { case: 'remove', value: { path: staging, missingOk: true } },
  ]);
}

/** `id` names the two jobs. Answers with false when the image has no directory there: nothing was copied then. */
export async function copyUp(
  agent: AgentSession,
  id: string,
  from: { readonly root: string; readonly path: string },
  to: string,
): Promise<boolean> {
  const packing = `${id}-p`;
  const unpacking = `${id}-u`;
  const client = await agent.client();
  try {
    await agent.batch([
      // With the dot, a link at the mount point itself is followed, within the root.
      {
        case: 'archive',
        value: { id: packing, mode: Archive_Mode.PACK, root: from.root, path: `${from.path}/.` },
      },
      { case: 'archive', value: { id: unpacking, mode: Archive_Mode.UNPACK, root: to, path: '/' } },
    ]);
    let writing: Promise<void> = Promise.resolve();
    let failure: unknown;
    const sink = await client.attach(unpacking, { onChunk: () => {} });
    sink.closed.catch(() => {});
    const source: Attachment = await client.attach(packing, {
      output: { offset: 0, windowBytes: COPY_WINDOW_BYTES },
      onChunk: ({ channel, offset, data, eof }) => {
        // Its messages are told by how it ends.
        if (channel !== 1) return;
        const bytes = Buffer.from(data);
        writing = writing
          .then(() => sink.write(bytes, { eof }))
          .then(() => source.ack(1, offset + bytes.length))
          .catch((error: unknown) => {
            // The reader has ended, which its exit explains.
            failure ??= error;
            source.ack(1, offset + bytes.length);
          });
      },
    });
    source.closed.catch(() => {});
    const packed = await client.wait(packing);
    if (packed.code !== 0) {
      if (packed.code === ENOENT || packed.code === ENOTDIR) return false;
      throw failed(from.path, packed.error);
    }
    await writing;
    const unpacked = await client.wait(unpacking);
    if (unpacked.code !== 0) throw failed(from.path, unpacked.error);
    if (failure !== undefined) throw failure;
    return true;
  } finally {
    const release = (name: string): OpInput => ({ case: 'release', value: { id: name, missingOk: true } });
    await agent.batch([release(packing), release(unpacking)]).catch((error: unknown) => {
      // The machine is gone, and the jobs with it.
      if (error instanceof AgentOpError) throw error;
    });
  }
}

function failed(path: string, why: string): EngineError {
  return new EngineError(
    'ERR_ARCBOX_CONTAINER_START',
    `what the image has at ${path} could not be copied into the new volume: ${why}`,
  );
}
