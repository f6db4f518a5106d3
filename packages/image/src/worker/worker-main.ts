/** A worker thread: does the one job that it was started for. */
import { parentPort, workerData } from 'node:worker_threads';
import { ImageError, messageOf } from '../errors.ts';
import { WORKER_INPUT_TAKEN_BYTES } from '../limits.ts';
import type { JobContext } from './context.ts';
import type { FromWorker, Job, Jobs, KnownBlob, ToWorker } from './protocol.ts';

const port = parentPort;
if (port === null) throw new Error('worker-main.ts runs in a worker only');

const post = (message: FromWorker): void => port.postMessage(message);
const controller = new AbortController();
const answers: ((blobs: readonly KnownBlob[]) => void)[] = [];

/** Chunks in the order in which they came, until the end. */
class Input implements AsyncIterable<Buffer> {
  readonly #chunks: Buffer[] = [];
  #taken = 0;
  #ended = false;
  #failed: string | undefined;
  #waiting: PromiseWithResolvers<void> | undefined;

  push(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.wake();
  }

  end(failed?: string): void {
    this.#ended = true;
    this.#failed = failed;
    this.wake();
  }

  wake(): void {
    this.#waiting?.resolve();
    this.#waiting = undefined;
  }

  async *[Symbol.asyncIterator](): AsyncIterator<Buffer> {
    for (;;) {
      controller.signal.throwIfAborted();
      const chunk = this.#chunks.shift();
      if (chunk !== undefined) {
        yield chunk;
        this.#taken += chunk.length;
        if (this.#taken >= WORKER_INPUT_TAKEN_BYTES) {
          post({ type: 'taken', bytes: this.#taken });
          this.#taken = 0;
        }
      } else if (this.#failed !== undefined) {
        throw new ImageError('ERR_ARCBOX_ARCHIVE_INVALID', `the input broke off: ${this.#failed}`);
      } else if (this.#ended) {
        return;
      } else {
        this.#waiting ??= Promise.withResolvers();
        await this.#waiting.promise;
      }
    }
  }
}

const input = new Input();
port.on('message', (message: ToWorker) => {
  switch (message.type) {
    case 'chunk': {
      const { buffer, byteOffset, byteLength } = message.chunk;
      input.push(Buffer.from(buffer, byteOffset, byteLength));
      return;
    }
    case 'end':
      input.end();
      return;
    case 'input-failed':
      input.end(message.message);
      return;
    case 'known':
      answers.shift()?.(message.blobs);
      return;
    case 'abort':
      controller.abort(new ImageError('ERR_ARCBOX_CANCELLED', 'the operation was cancelled'));
      input.wake();
      return;
  }
});

const context: JobContext = {
  signal: controller.signal,
  input,
  progress: (event) => post({ type: 'progress', event }),
  which(digests) {
    const { promise, resolve } = Promise.withResolvers<readonly KnownBlob[]>();
    answers.push(resolve);
    post({ type: 'which', digests });
    return promise;
  },
};

/** The code of a job is loaded when the job comes. */
async function run(job: Job): Promise<Jobs[keyof Jobs][1]> {
  switch (job.kind) {
    case 'layer':
      return (await import('../archive/layer-job.ts')).layerJob(job, context);
    case 'load':
      return (await import('../archive/load-archive.ts')).loadArchive(job, context);
    case 'pull':
      return (await import('../registry/pull.ts')).pull(job, context);
    case 'login':
      return (await import('../registry/login.ts')).login(job, context);
    case 'push':
      return (await import('../registry/push.ts')).push(job, context);
  }
}

try {
  post({ type: 'done', result: await run(workerData as Job) });
} catch (error) {
  const code = error instanceof ImageError ? error.code : undefined;
  const message = code === undefined ? explain(error) : messageOf(error);
  post({ type: 'failed', code, message });
}

/** What is not an error of ours is most likely one of the file system. */
function explain(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  if (code === 'ENOSPC') return 'the disk is full; remove images (arcbox image prune), or make room there';
  return messageOf(error);
}
