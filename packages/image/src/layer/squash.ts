/**
 * One sqfstar: takes a tar on its standard input and leaves an uncompressed squashfs. It does not look for files that are
 * the same: that would take a third of its time again, and few layers have any.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { ImageError, messageOf } from '../errors.ts';
import { PIPE_BYTES_MAX, STDERR_BYTES_MAX } from '../limits.ts';
import type { LayerSink } from './filter.ts';
import type { Attributes } from './tree.ts';

/** Pieces shorter than this are copied together before they are written. */
const SMALL_BYTES = 8 * 1024;
const STAGE_BYTES = 128 * 1024;

export class Squash implements LayerSink {
  readonly #path: string;
  #child: ChildProcess | undefined;
  /** Undefined: with code 0. Otherwise what became of it. */
  #exited: Promise<string | undefined> | undefined;
  #stderr = '';
  /** It could not be started, or went away before all was written. */
  #failed: Error | undefined;
  #ending = false;
  #stage: Buffer | undefined;
  #staged = 0;

  /** `path`: the file to make; it must not be there. */
  constructor(path: string) {
    this.#path = path;
  }

  start(root: Attributes): void {
    const child = spawn(
      'sqfstar',
      [
        ...[
          '-quiet',
          '-no-progress',
          '-exit-on-error',
          '-noI',
          '-noD',
          '-noF',
          '-noX',
          '-no-duplicates',
          '-mkfs-time',
          '0',
        ],
        ...['-root-mode', root.mode.toString(8), '-root-time', String(root.mtime), this.#path],
      ],
      { stdio: ['pipe', 'ignore', 'pipe'], env: { PATH: process.env.PATH ?? '/usr/bin:/bin' } },
    );
    this.#child = child;
    const { promise, resolve } = Promise.withResolvers<string | undefined>();
    this.#exited = promise;
    child.once('error', (error) => {
      this.#failed ??= error;
      resolve(messageOf(error));
    });
    child.once('close', (code, signal) => {
      if (code === 0) resolve(undefined);
      else resolve(signal === null ? `it exited with ${code}` : `it was ended by ${signal}`);
    });
    // It stops reading at the first of the two blocks that end a tar: what it leaves unread is no failure of its own, and
    // its exit code says whether it came that far.
    child.stdin?.on('error', (error) => {
      if (!this.#ending) this.#failed ??= error;
    });
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      if (this.#stderr.length < STDERR_BYTES_MAX) this.#stderr += text;
    });
  }

  write(bytes: Buffer): void {
    if (bytes.length >= SMALL_BYTES) {
      this.#flush();
      this.#child?.stdin?.write(bytes);
      return;
    }
    if (this.#stage === undefined || this.#staged + bytes.length > STAGE_BYTES) {
      this.#flush();
      this.#stage = Buffer.allocUnsafeSlow(STAGE_BYTES);
    }
    this.#staged += bytes.copy(this.#stage, this.#staged);
  }

  /** Resolves when there is room for more. Throws `ERR_ARCBOX_LAYER_CONVERSION` when sqfstar has gone. */
  async room(): Promise<void> {
    const stdin = this.#child?.stdin;
    if (this.#failed !== undefined) await this.#fail();
    if (stdin === undefined || stdin === null || stdin.writableLength < PIPE_BYTES_MAX) return;
    await Promise.race([once(stdin, 'drain').catch(() => {}), this.#exited]);
    if (this.#failed !== undefined || this.#child?.exitCode !== null || this.#child.signalCode !== null) {
      await this.#fail();
    }
  }

  /** Ends the tar; resolves when the file is complete. Throws `ERR_ARCBOX_LAYER_CONVERSION`. */
  async finish(): Promise<void> {
    this.#ending = true;
    this.#flush();
    this.#child?.stdin?.end();
    if ((await this.#exited) !== undefined || this.#failed !== undefined) await this.#fail();
  }

  /** Ends it, whatever it does; resolves when it is gone. The file has to be removed by the caller. */
  async abort(): Promise<void> {
    this.#child?.kill('SIGKILL');
    this.#child?.stdin?.destroy();
    await this.#exited;
  }

  #flush(): void {
    if (this.#stage === undefined || this.#staged === 0) return;
    this.#child?.stdin?.write(this.#stage.subarray(0, this.#staged));
    this.#stage = undefined;
    this.#staged = 0;
  }

  async #fail(): Promise<never> {
    const exit = await this.#exited;
    const said = this.#stderr.trim().split('\n').slice(-3).join('; ');
    const cause = this.#failed;
    const reason = said !== '' ? said : (exit ?? messageOf(cause));
    throw new ImageError(
      'ERR_ARCBOX_LAYER_CONVERSION',
      `sqfstar could not make the layer's file system: ${reason}`,
      { cause },
    );
  }
}
