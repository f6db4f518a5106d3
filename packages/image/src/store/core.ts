/**
 * What every operation on images shares: the tables, the files, one change at a time, and work that is cancelled and
 * waited for when the store is closed.
 */
import { randomUUID } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { EmbeddedImages } from '../embedded.ts';
import type { ImageAction, ImageStoreOptions } from '../options.ts';
import { Catalogue } from './catalogue.ts';
import { Content } from './content.ts';
import { ImageDatabase } from './database.ts';

export class StoreCore {
  readonly options: ImageStoreOptions;
  readonly database: ImageDatabase;
  readonly content: Content;
  readonly embedded: EmbeddedImages;
  readonly catalogue: Catalogue;
  /** Aborted when the store is being closed. */
  readonly closing: AbortSignal;
  readonly #closing = new AbortController();
  readonly #working = new Set<Promise<unknown>>();
  /** Changes of files and tables, one after the other. */
  #changing: Promise<unknown> = Promise.resolve();

  constructor(options: ImageStoreOptions) {
    this.options = options;
    this.database = new ImageDatabase(options.database);
    this.content = new Content(options.directory);
    this.embedded = new EmbeddedImages(options.bootDirectory);
    this.catalogue = new Catalogue(this.database, this.content, this.embedded);
    this.closing = this.#closing.signal;
  }

  /** Changes come after the opening. */
  opening(opened: Promise<void>): void {
    this.#changing = opened;
    // Told to the first one who wants to change something.
    opened.catch(() => {});
  }

  /** Runs a change after those before it; what an earlier one threw was told to whoever asked for it. */
  change<T>(change: () => T | Promise<T>): Promise<T> {
    const before = this.#changing;
    const result = before.catch(() => {}).then(change);
    this.#changing = result;
    result.catch(() => {});
    return this.track(result);
  }

  /** Closing waits for the end of it. */
  track<T>(work: Promise<T>): Promise<T> {
    const tracked = work.then(
      () => {},
      () => {},
    );
    this.#working.add(tracked);
    void tracked.finally(() => this.#working.delete(tracked));
    return work;
  }

  /** Work in a worker: with a workspace and a lease, both gone at its end. */
  work<T>(
    run: (workspace: string, lease: string, signal: AbortSignal) => Promise<T>,
    signal: AbortSignal | undefined,
  ): Promise<T> {
    const both = signal === undefined ? this.closing : AbortSignal.any([signal, this.closing]);
    return this.track(
      (async () => {
        // The store has to be open: it removes every workspace when it opens.
        await this.change(() => {});
        const workspace = await this.content.workspace();
        const lease = `lease:${randomUUID()}`;
        try {
          return await run(workspace, lease, both);
        } finally {
          this.database.drop(lease);
          await rm(workspace, { recursive: true, force: true });
          await this.change(() => this.collect());
        }
      })(),
    );
  }

  /** Removes what no root reaches; answers with the bytes that went. */
  async collect(): Promise<number> {
    const { images, layers, blobs } = this.database.collect();
    for (const id of images) this.catalogue.forget(id);
    if (layers.length > 0) await this.options.beforeRemoval?.(layers.map(({ diffId }) => diffId));
    await this.content.remove({
      blobs: blobs.map(({ digest }) => digest),
      layers: layers.map(({ diffId }) => diffId),
    });
    return (
      layers.reduce((sum, { squashfsBytes }) => sum + squashfsBytes, 0) +
      blobs.reduce((sum, { bytes }) => sum + bytes, 0)
    );
  }

  tell(action: ImageAction, id: string, name: string): void {
    this.options.onEvent?.(action, id, name);
  }

  /** Cancels what is going on and waits for its end. */
  async close(): Promise<void> {
    this.#closing.abort();
    while (this.#working.size > 0) await Promise.allSettled(this.#working);
    await this.#changing.catch(() => {});
  }
}
