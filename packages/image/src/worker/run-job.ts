/** The main thread's side of a job: starts a worker, feeds it, hears it out, and sees that it is gone at the end. */
import type { Readable } from 'node:stream';
import { Worker } from 'node:worker_threads';
import { ImageError, messageOf } from '../errors.ts';
import { WORKER_INPUT_BYTES_MAX } from '../limits.ts';
import type { OnProgress } from '../progress.ts';
import type { FromWorker, Jobs, KnownBlob, ToWorker } from './protocol.ts';

const WORKER_MAIN = new URL('./worker-main.ts', import.meta.url);
/** How long a worker has to end its children and close its files when it was told to stop. */
const ABORT_TIMEOUT_MS = 10_000;

export interface JobOptions {
  readonly input?: Readable | AsyncIterable<Uint8Array>;
  readonly onProgress?: OnProgress;
  readonly signal?: AbortSignal | undefined;
  /** Which of these blobs the store has, and holds from now on. */
  which?(digests: readonly string[]): readonly KnownBlob[];
}

/** Runs a job to its end. Throws `ImageError`, `ERR_ARCBOX_CANCELLED` when the signal ended it. */
export async function runJob<Kind extends keyof Jobs>(
  job: Jobs[Kind][0],
  options: JobOptions = {},
): Promise<Jobs[Kind][1]> {
  const { signal } = options;
  if (signal?.aborted === true) throw cancelled();
  const worker = new Worker(WORKER_MAIN, { workerData: job, name: `image-${job.kind}` });
  const post = (message: ToWorker, transfer: ArrayBuffer[] = []): void =>
    worker.postMessage(message, transfer);
  const { promise, resolve, reject } = Promise.withResolvers<Jobs[Kind][1]>();
  const feed = new Feed(post);
  let aborting: NodeJS.Timeout | undefined;
  const abort = (): void => {
    aborting ??= setTimeout(() => void worker.terminate(), ABORT_TIMEOUT_MS);
    post({ type: 'abort' });
    feed.stop();
  };
  worker.on('message', (message: FromWorker) => {
    switch (message.type) {
      case 'progress':
        options.onProgress?.(message.event);
        return;
      case 'taken':
        feed.taken(message.bytes);
        return;
      case 'which':
        post({ type: 'known', blobs: options.which?.(message.digests) ?? [] });
        return;
      case 'done':
        resolve(message.result as Jobs[Kind][1]);
        return;
      case 'failed':
        reject(
          signal?.aborted === true
            ? cancelled()
            : new ImageError(message.code ?? 'ERR_ARCBOX_IMAGE_WORKER', message.message),
        );
        return;
    }
  });
  worker.on('error', (cause) => {
    reject(
      new ImageError('ERR_ARCBOX_IMAGE_WORKER', `the image worker failed: ${messageOf(cause)}`, { cause }),
    );
  });
  const gone = new Promise<void>((ended) => {
    worker.once('exit', () => {
      reject(new ImageError('ERR_ARCBOX_IMAGE_WORKER', 'the image worker ended without an answer'));
      ended();
    });
  });
  signal?.addEventListener('abort', abort, { once: true });
  const feeding = options.input === undefined ? Promise.resolve() : feed.run(options.input);
  try {
    return await promise;
  } finally {
    signal?.removeEventListener('abort', abort);
    feed.stop();
    // It has said its last word: what it still has open is kept connections and the like.
    void worker.terminate();
    await gone;
    clearTimeout(aborting);
    await feeding;
  }
}

function cancelled(): ImageError {
  return new ImageError('ERR_ARCBOX_CANCELLED', 'the operation was cancelled');
}

/** Hands a stream over, chunk by chunk and without copying where that can be, never more than the worker can hold. */
class Feed {
  readonly #post: (message: ToWorker, transfer?: ArrayBuffer[]) => void;
  #outstanding = 0;
  readonly #stop = Promise.withResolvers<undefined>();
  #stopped = false;
  #room: PromiseWithResolvers<void> | undefined;

  constructor(post: (message: ToWorker, transfer?: ArrayBuffer[]) => void) {
    this.#post = post;
  }

  taken(bytes: number): void {
    this.#outstanding -= bytes;
    if (this.#outstanding < WORKER_INPUT_BYTES_MAX) this.#room?.resolve();
  }

  stop(): void {
    this.#stopped = true;
    this.#stop.resolve(undefined);
    this.#room?.resolve();
  }

  /** Never rejects: a stream that fails is told to the worker. */
  async run(input: Readable | AsyncIterable<Uint8Array>): Promise<void> {
    try {
      const iterator = (input as AsyncIterable<Uint8Array>)[Symbol.asyncIterator]();
      for (;;) {
        const next = await Promise.race([iterator.next(), this.#stop.promise]);
        if (next === undefined || this.#stopped) {
          // Whoever gives us the input may be in the middle of something; we do not wait for that.
          void Promise.resolve(iterator.return?.()).catch(() => {});
          return;
        }
        if (next.done === true) break;
        const chunk = next.value;
        this.#outstanding += chunk.length;
        this.#send(chunk);
        if (this.#outstanding >= WORKER_INPUT_BYTES_MAX) {
          this.#room = Promise.withResolvers();
          await this.#room.promise;
        }
      }
      this.#post({ type: 'end' });
    } catch (error) {
      if (!this.#stopped) this.#post({ type: 'input-failed', message: messageOf(error) });
    }
  }

  #send(chunk: Uint8Array): void {
    const { buffer } = chunk;
    // A chunk that has its memory for itself is given away; one from a pool is copied.
    if (buffer instanceof ArrayBuffer && chunk.byteOffset === 0 && chunk.byteLength === buffer.byteLength) {
      this.#post({ type: 'chunk', chunk }, [buffer]);
    } else {
      this.#post({ type: 'chunk', chunk: new Uint8Array(chunk) });
    }
  }
}
