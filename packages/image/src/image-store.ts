/**
 * Images: which ones there are, where their layers lie on the host, and how they come and go.
 *
 * The tables are in a database that is handed in (`IMAGE_TABLES`), the files below a directory of ours. Work on many
 * bytes is done by a worker thread in a workspace; the store then moves the files and writes the tables, one change at a
 * time. Nothing half done is ever seen, and nothing that somebody names is ever removed.
 */
import type { Readable } from 'node:stream';
import type { HistoryEntry, Image, Removal } from './image.ts';
import { load, save } from './operations/archive.ts';
import { createFromLayer } from './operations/create.ts';
import { prune, remove, tag } from './operations/names.ts';
import { checkLogin, pull, push } from './operations/registry.ts';
import type {
  CreateImageOptions,
  ImageStoreOptions,
  PruneOptions,
  PruneOutcome,
  PullOptions,
  PullOutcome,
  TransferOptions,
} from './options.ts';
import type { Credentials } from './registry/credentials.ts';
import { adoptEmbedded } from './store/adopt-embedded.ts';
import { StoreCore } from './store/core.ts';

export type * from './options.ts';

export class ImageStore implements AsyncDisposable {
  readonly #core: StoreCore;

  constructor(options: ImageStoreOptions) {
    this.#core = new StoreCore(options);
    this.#core.database.dropLeases();
    this.#core.opening(this.#open());
  }

  // --- Asking -----------------------------------------------------------------------------------

  /**
   * The image that `text` names: a reference by Docker's rules, an image ID or an unambiguous beginning of one.
   * Throws `ImageError` `ERR_ARCBOX_IMAGE_NOT_FOUND`, `ERR_ARCBOX_IMAGE_AMBIGUOUS`, `ERR_ARCBOX_REFERENCE_INVALID`,
   * `ERR_ARCBOX_IMAGE_CORRUPT`.
   */
  async resolve(text: string): Promise<Image> {
    return this.#core.catalogue.resolve(text);
  }

  /** Images that have a name, and those that lost theirs; newest first. */
  async list(): Promise<readonly Image[]> {
    return this.#core.catalogue.list();
  }

  /** Throws unless the image is there, now: for the moment in which somebody begins to refer to it. */
  assertPresent(image: Image): void {
    this.#core.catalogue.assertPresent(image);
  }

  async history(text: string): Promise<HistoryEntry[]> {
    return this.#core.catalogue.history(text);
  }

  // --- Names ------------------------------------------------------------------------------------

  /** Gives the image another name. Throws what `resolve` throws. */
  async tag(source: string, target: string): Promise<void> {
    return tag(this.#core, source, target);
  }

  /**
   * `rmi`, by Docker's rules: a name goes, and the image with its last name.
   * Throws what `resolve` throws and `ERR_ARCBOX_IMAGE_IN_USE`, `ERR_ARCBOX_IMAGE_EMBEDDED`.
   */
  async remove(text: string, options: { force?: boolean } = {}): Promise<Removal[]> {
    return remove(this.#core, text, options);
  }

  /** Removes images that nobody uses. */
  async prune(options: PruneOptions = {}): Promise<PruneOutcome> {
    return prune(this.#core, options);
  }

  /** Removes what nobody refers to any more, such as the layers of a removed container's removed image. */
  async collect(): Promise<void> {
    await this.#core.change(() => this.#core.collect());
  }

  // --- Coming and going ---------------------------------------------------------------------------

  /**
   * Takes in a docker-archive or an oci-layout, packed or not. Answers with the images that were in it.
   * Throws `ERR_ARCBOX_ARCHIVE_INVALID`, `ERR_ARCBOX_LAYER_INVALID`, `ERR_ARCBOX_DIGEST_MISMATCH`,
   * `ERR_ARCBOX_IMAGE_CORRUPT`, `ERR_ARCBOX_IMAGE_LIMIT`, `ERR_ARCBOX_CANCELLED`.
   */
  async load(input: AsyncIterable<Uint8Array>, options: TransferOptions = {}): Promise<Image[]> {
    return load(this.#core, input, options);
  }

  /** The images that the texts name as one archive (see `saveArchive`). The store holds them until the stream has ended. */
  async save(texts: readonly string[]): Promise<Readable> {
    return save(this.#core, texts);
  }

  /**
   * Gets an image from its registry; layers that are here already stay where they are.
   * Throws `ERR_ARCBOX_IMAGE_NOT_FOUND`, `ERR_ARCBOX_REGISTRY_DENIED`, `ERR_ARCBOX_REGISTRY_UNREACHABLE`,
   * `ERR_ARCBOX_REGISTRY`, `ERR_ARCBOX_CREDENTIALS`, `ERR_ARCBOX_IMAGE_PLATFORM` and what `load` throws.
   */
  async pull(text: string, options: PullOptions = {}): Promise<PullOutcome> {
    return pull(this.#core, text, options);
  }

  /**
   * Sends an image to the registry that its name names; answers with the digest of its manifest there.
   * Throws what `resolve` and `pull` throw.
   */
  async push(text: string, options: Omit<PullOptions, 'platform'> = {}): Promise<{ digest: string }> {
    return push(this.#core, text, options);
  }

  /**
   * Resolves when the registry takes the credentials. Throws `ERR_ARCBOX_REGISTRY_DENIED`,
   * `ERR_ARCBOX_REGISTRY_UNREACHABLE`, `ERR_ARCBOX_REGISTRY`.
   */
  async checkLogin(domain: string, credentials: Credentials): Promise<void> {
    await checkLogin(this.#core, domain, credentials);
  }

  /**
   * Makes an image from a base and a new layer, from a layer alone (`import`), or from a base with another configuration.
   * Throws what `load` throws and `ERR_ARCBOX_IMAGE_CHANGE`.
   */
  async createFromLayer(options: CreateImageOptions): Promise<Image> {
    return createFromLayer(this.#core, options);
  }

  /** Cancels what is going on and waits for its end. */
  async close(): Promise<void> {
    await this.#core.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #open(): Promise<void> {
    const { content, database } = this.#core;
    await content.open({
      blobs: database.blobs().map(({ digest }) => digest),
      layers: database.layers().map(({ diffId }) => diffId),
    });
    await adoptEmbedded(this.#core);
    await this.#core.collect();
  }
}
