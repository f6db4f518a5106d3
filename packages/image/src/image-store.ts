/**
 * Images: which ones there are, where their layers lie on the host, and how they come and go.
 *
 * The tables are in a database that is handed in (`IMAGE_TABLES`), the files below a directory of ours. Work on many
 * bytes is done by a worker thread in a workspace; the store then moves the files and writes the tables, one change at a
 * time. Nothing half done is ever seen, and nothing that somebody names is ever removed.
 */
import { randomUUID } from 'node:crypto';
import { copyFile, link, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { DatabaseSync } from 'node:sqlite';
import { Readable } from 'node:stream';
import { faultPoint } from '@arcbox/sys/fault-point';
import { newConfig } from './archive/new-config.ts';
import { type SavedImage, saveArchive } from './archive/save.ts';
import { sha256, shortDigest } from './digest.ts';
import { EMBEDDED_NAME, type EmbeddedImage, EmbeddedImages } from './embedded.ts';
import { ImageError } from './errors.ts';
import type { HistoryEntry, Image, Layer, Removal } from './image.ts';
import { parseImageConfig } from './image-config.ts';
import type { IngestedLayer } from './layer/ingest.ts';
import { syncFile } from './layer/sync-file.ts';
import {
  type Descriptor,
  MEDIA_TYPES,
  makeManifest,
  ociLayerType,
  type Platform,
  parseManifest,
} from './manifest.ts';
import type { OnProgress } from './progress.ts';
import {
  canonicalName,
  familiarName,
  familiarRepository,
  parseReference,
  type Reference,
} from './reference.ts';
import type { Credentials } from './registry/credentials.ts';
import { NO_REGISTRY_CONFIG, type RegistryConfig } from './registry/endpoints.ts';
import type { PushLayer, PushOutcome } from './registry/push.ts';
import { removeImage } from './remove.ts';
import { Content } from './store/content.ts';
import { ImageDatabase, type ImageRow } from './store/database.ts';
import type { FreshLayer, NewImage } from './store/new-image.ts';
import { type KnownBlob, LAYER_FILES } from './worker/protocol.ts';
import { runJob } from './worker/run-job.ts';

export interface ImageStoreOptions {
  /** Has `IMAGE_TABLES`; its owner closes it after us. */
  readonly database: DatabaseSync;
  /** Ours alone: blobs, layers, and what is being made. */
  readonly directory: string;
  /** What set-up built, the embedded image among it. */
  readonly bootDirectory: string;
  /** Whether a container that uses an image runs; without it none does. */
  isRunning?(containerId: string): boolean;
  readonly registries?: RegistryConfig;
  /** Called when something has happened to an image; `id` is its ID, or its name for `pull` and `push`, as Docker's. */
  onEvent?(action: ImageAction, id: string, name: string): void;
  /** Called before the files of layers go, with the layers' digests: whoever has one open lets go of it. */
  beforeRemoval?(digests: readonly string[]): Promise<void>;
}

export type ImageAction = 'delete' | 'import' | 'load' | 'prune' | 'pull' | 'push' | 'save' | 'tag' | 'untag';

export interface TransferOptions {
  readonly onProgress?: OnProgress | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface CreateImageOptions extends TransferOptions {
  /** Name or ID of the image to go on from; absent: from nothing. */
  readonly base?: string;
  /** The new layer as a tar, plain or packed with gzip or zstd; absent: only the configuration changes. */
  readonly layer?: AsyncIterable<Uint8Array> | undefined;
  /** Fields of the configuration's `config` object (`Cmd`, `Env`, `Labels`, …) that replace the base's. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** Dockerfile instructions (`CMD ["sh"]`, `ENV A=b`, …) on top of those. */
  readonly changes?: readonly string[];
  readonly platform?: Platform | undefined;
  readonly author?: string;
  readonly comment?: string;
  /** The line of the history. */
  readonly createdBy?: string;
  /** What it is to be called. */
  readonly names?: readonly string[];
}

export interface PullOptions extends TransferOptions {
  /** Absent: this host's. */
  readonly platform?: Platform | undefined;
  /** Absent: what Docker's configuration of the daemon's user has. */
  readonly credentials?: Credentials | undefined;
}

export interface PullOutcome {
  readonly image: Image;
  /** Of what the name stands for at the registry. */
  readonly digest: string;
  /** False: it was here already, under that name. */
  readonly changed: boolean;
}

export interface PruneOptions {
  /** Every image that no container uses, not only those without a name. */
  readonly all?: boolean;
  /** Only those that were created before this time, in ms since 1970. */
  readonly createdBeforeMs?: number;
}

export interface PruneOutcome {
  readonly removed: readonly Removal[];
  /** Bytes of files that went. */
  readonly reclaimedBytes: number;
}

export class ImageStore implements AsyncDisposable {
  readonly #options: ImageStoreOptions;
  readonly #database: ImageDatabase;
  readonly #content: Content;
  readonly #embedded: EmbeddedImages;
  readonly #images = new Map<string, Image>();
  readonly #closing = new AbortController();
  readonly #working = new Set<Promise<unknown>>();
  /** Changes of files and tables, one after the other. */
  #changing: Promise<unknown> = Promise.resolve();

  constructor(options: ImageStoreOptions) {
    this.#options = options;
    this.#database = new ImageDatabase(options.database);
    this.#content = new Content(options.directory);
    this.#embedded = new EmbeddedImages(options.bootDirectory);
    this.#database.dropLeases();
    this.#changing = this.#open();
    // Told to the first one who wants to change something.
    this.#changing.catch(() => {});
  }

  // --- Asking -----------------------------------------------------------------------------------

  /**
   * The image that `text` names: a reference by Docker's rules, an image ID or an unambiguous beginning of one.
   * Throws `ImageError` `ERR_ARCBOX_IMAGE_NOT_FOUND`, `ERR_ARCBOX_IMAGE_AMBIGUOUS`, `ERR_ARCBOX_REFERENCE_INVALID`,
   * `ERR_ARCBOX_IMAGE_CORRUPT`.
   */
  async resolve(text: string): Promise<Image> {
    return this.#get(await this.#find(text));
  }

  /** Images that have a name, and those that lost theirs; newest first. */
  async list(): Promise<readonly Image[]> {
    const embedded = await this.#embeddedImage();
    const names = this.#namesByImage(embedded);
    const ids = this.#database.imageIds().filter((id) => names.has(id) || this.#database.isKept(id));
    const images = ids.map((id) => this.#fromRow(id, names.get(id) ?? [], embedded));
    const own = embedded === undefined ? undefined : names.get(embedded.id);
    // Without a name it is not there for anybody; and most of the time it is one of the store's own already.
    if (embedded === undefined || own === undefined || ids.includes(embedded.id)) return images;
    return [...images, this.#fromEmbedded(embedded, own)];
  }

  /** Throws unless the image is there, now: for the moment in which somebody begins to refer to it. */
  assertPresent(image: Image): void {
    if (image.embedded || this.#database.image(image.id) !== undefined) return;
    throw notFound(image.id);
  }

  async history(text: string): Promise<HistoryEntry[]> {
    const image = await this.resolve(text);
    const { history } = JSON.parse(image.configBytes.toString('utf8')) as { history?: unknown };
    const steps = Array.isArray(history) ? (history as Record<string, unknown>[]) : [];
    const layers = [...image.layers];
    const textOf = (value: unknown): string => (typeof value === 'string' ? value : '');
    const entries = steps.map((step) => ({
      id: '',
      created: textOf(step.created) || image.config.created,
      createdBy: textOf(step.created_by),
      comment: textOf(step.comment),
      sizeBytes: step.empty_layer === true ? 0 : (layers.shift()?.sizeBytes ?? 0),
      names: [] as readonly string[],
    }));
    // An image may have layers that its history does not tell of.
    for (const layer of layers) {
      const { created } = image.config;
      entries.push({ id: '', created, createdBy: '', comment: '', sizeBytes: layer.sizeBytes, names: [] });
    }
    const newest = entries.at(-1);
    if (newest !== undefined) Object.assign(newest, { id: image.id, names: image.names });
    return entries.reverse();
  }

  // --- Names ------------------------------------------------------------------------------------

  /** Gives the image another name. Throws what `resolve` throws. */
  async tag(source: string, target: string): Promise<void> {
    const name = targetName(target);
    const image = await this.resolve(source);
    await this.#change(() => {
      this.assertPresent(image);
      faultPoint('image.tag');
      this.#database.transaction(() => this.#database.setName(name, image.id));
    });
    this.#images.clear();
    this.#tell('tag', image.id, target);
  }

  /**
   * `rmi`, by Docker's rules: a name goes, and the image with its last name.
   * Throws what `resolve` throws and `ERR_ARCBOX_IMAGE_IN_USE`, `ERR_ARCBOX_IMAGE_EMBEDDED`.
   */
  async remove(text: string, options: { force?: boolean } = {}): Promise<Removal[]> {
    const embedded = await this.#embeddedImage();
    const id = await this.#find(text);
    const { isRunning } = this.#options;
    return this.#change(async () => {
      const removals = this.#database.transaction(() =>
        removeImage({
          database: this.#database,
          embedded,
          imageId: id,
          text,
          force: options.force ?? false,
          isRunning: (container) => isRunning?.(container) ?? false,
        }),
      );
      this.#images.clear();
      await this.#collect();
      this.#tellRemovals(id, removals);
      return removals;
    });
  }

  /** Removes images that nobody uses. */
  async prune(options: PruneOptions = {}): Promise<PruneOutcome> {
    const embedded = await this.#embeddedImage();
    const names = this.#namesByImage(embedded);
    const removed: Removal[] = [];
    let reclaimedBytes = 0;
    for (const id of this.#database.imageIds()) {
      if (id === embedded?.id) continue;
      if (options.all !== true && names.has(id)) continue;
      if (this.#database.containersOf(id).length > 0) continue;
      const created = Date.parse(this.#fromRow(id, [], undefined).config.created);
      if (options.createdBeforeMs !== undefined && created >= options.createdBeforeMs) continue;
      await this.#change(async () => {
        // Things may have changed while others were removed.
        if (this.#database.image(id) === undefined || this.#database.containersOf(id).length > 0) return;
        if (options.all !== true && this.#namesByImage(embedded).has(id)) return;
        const removals = this.#database.transaction(() =>
          removeImage({
            database: this.#database,
            embedded,
            imageId: id,
            text: id,
            force: true,
            isRunning: () => false,
          }),
        );
        removed.push(...removals);
        this.#tellRemovals(id, removals);
        this.#images.clear();
        reclaimedBytes += await this.#collect();
      });
    }
    this.#tell('prune', '', '');
    return { removed, reclaimedBytes };
  }

  /** Removes what nobody refers to any more, such as the layers of a removed container's removed image. */
  async collect(): Promise<void> {
    await this.#change(() => this.#collect());
  }

  // --- Coming and going ---------------------------------------------------------------------------

  /**
   * Takes in a docker-archive or an oci-layout, packed or not. Answers with the images that were in it.
   * Throws `ERR_ARCBOX_ARCHIVE_INVALID`, `ERR_ARCBOX_LAYER_INVALID`, `ERR_ARCBOX_DIGEST_MISMATCH`,
   * `ERR_ARCBOX_IMAGE_CORRUPT`, `ERR_ARCBOX_IMAGE_LIMIT`, `ERR_ARCBOX_CANCELLED`.
   */
  async load(input: AsyncIterable<Uint8Array>, options: TransferOptions = {}): Promise<Image[]> {
    return this.#work(async (workspace, lease, signal) => {
      const loaded = await runJob<'load'>(
        { kind: 'load', workspace },
        { input, signal, which: (digests) => this.#which(digests, lease), ...progressOf(options) },
      );
      faultPoint('image.load.commit');
      await this.#commit(loaded.fresh, loaded.images, lease);
      const ids = [...new Set(loaded.images.map(({ config }) => sha256(Buffer.from(config))))];
      for (const id of ids) this.#tell('load', id, id);
      return Promise.all(ids.map((id) => this.#get(id)));
    }, options.signal);
  }

  /** The images that the texts name as one archive (see `saveArchive`). The store holds them until the stream has ended. */
  async save(texts: readonly string[]): Promise<Readable> {
    const saved = new Map<string, SavedImage>();
    const lease = `lease:${randomUUID()}`;
    const { promise: ended, resolve: end } = Promise.withResolvers<void>();
    await this.#change(async () => {
      for (const text of texts) {
        const id = await this.#find(text);
        const image = await this.#get(id);
        const names = image.names.filter((name) => name === nameOf(text));
        const before = saved.get(id);
        if (before === undefined) {
          if (!image.embedded) this.#hold(image, lease);
          saved.set(id, { ...(await this.#savedForm(image)), names });
        } else {
          saved.set(id, { ...before, names: [...new Set([...before.names, ...names])] });
        }
      }
    }).catch((error: unknown) => {
      this.#database.drop(lease);
      throw error;
    });
    for (const id of saved.keys()) this.#tell('save', id, id);
    const stream = Readable.from(saveArchive([...saved.values()]), { objectMode: false });
    stream.once('close', end);
    const abort = (): void =>
      void stream.destroy(new ImageError('ERR_ARCBOX_CANCELLED', 'the daemon is shutting down'));
    this.#closing.signal.addEventListener('abort', abort, { once: true });
    this.#track(
      ended.then(async () => {
        this.#closing.signal.removeEventListener('abort', abort);
        this.#database.drop(lease);
        // In line with other changes: a file that is being removed may be one that a pull is just bringing back.
        await this.#change(() => this.#collect());
      }),
    );
    return stream;
  }

  /**
   * Gets an image from its registry; layers that are here already stay where they are.
   * Throws `ERR_ARCBOX_IMAGE_NOT_FOUND`, `ERR_ARCBOX_REGISTRY_DENIED`, `ERR_ARCBOX_REGISTRY_UNREACHABLE`,
   * `ERR_ARCBOX_REGISTRY`, `ERR_ARCBOX_CREDENTIALS`, `ERR_ARCBOX_IMAGE_PLATFORM` and what `load` throws.
   */
  async pull(text: string, options: PullOptions = {}): Promise<PullOutcome> {
    const reference = parseReference(text);
    return this.#work(async (workspace, lease, signal) => {
      const pulled = await runJob<'pull'>(
        {
          kind: 'pull',
          workspace,
          reference,
          platform: options.platform,
          credentials: options.credentials,
          registries: this.#options.registries ?? NO_REGISTRY_CONFIG,
        },
        { signal, which: (digests) => this.#which(digests, lease), ...progressOf(options) },
      );
      const id = sha256(Buffer.from(pulled.image.config));
      const name = canonicalName(reference);
      const before = this.#database.imageByName(name);
      faultPoint('image.pull.commit');
      await this.#commit(pulled.fresh, [pulled.image], lease);
      this.#tell('pull', familiarName(reference), familiarRepository(reference));
      return { image: await this.#get(id), digest: pulled.digest, changed: before !== id };
    }, options.signal);
  }

  /**
   * Sends an image to the registry that its name names; answers with the digest of its manifest there.
   * Throws what `resolve` and `pull` throw.
   */
  async push(text: string, options: Omit<PullOptions, 'platform'> = {}): Promise<{ digest: string }> {
    const reference = parseReference(text);
    return this.#work(async (workspace, lease, signal) => {
      const image = await this.#held(text, lease);
      const { config, manifest, manifestType, layers } = await this.#savedForm(image);
      const descriptors = await this.#descriptors(image);
      const outcome = await runJob<'push'>(
        {
          kind: 'push',
          workspace,
          reference,
          config,
          manifest,
          manifestType,
          layers: layers.map(({ digest, bytes, path }, index): PushLayer => {
            const diffId = image.config.diffIds[index] ?? '';
            const compression = this.#database.blob(digest)?.compression ?? 'none';
            const descriptor = descriptors[index] ?? {
              mediaType: ociLayerType(compression),
              digest,
              size: bytes,
            };
            const layer = { digest, blobBytes: bytes, compression, diffId, tarBytes: 0, squashfsBytes: 0 };
            return { descriptor, layer, path };
          }),
          elsewhere: this.#repositoriesAt(reference.domain, image).filter((path) => path !== reference.path),
          credentials: options.credentials,
          registries: this.#options.registries ?? NO_REGISTRY_CONFIG,
        },
        { signal, ...progressOf(options) },
      );
      await this.#pushed(image, reference, outcome);
      this.#tell('push', familiarName(reference), familiarRepository(reference));
      return { digest: outcome.digest };
    }, options.signal);
  }

  /**
   * Makes an image from a base and a new layer, from a layer alone (`import`), or from a base with another configuration.
   * Throws what `load` throws and `ERR_ARCBOX_IMAGE_CHANGE`.
   */
  async createFromLayer(options: CreateImageOptions): Promise<Image> {
    const names = (options.names ?? []).map(targetName);
    return this.#work(async (workspace, lease, signal) => {
      const base = options.base === undefined ? undefined : await this.#held(options.base, lease);
      const fresh: FreshLayer[] =
        base !== undefined && this.#database.image(base.id) === undefined
          ? [await this.#embeddedLayer(workspace)]
          : [];
      let own: IngestedLayer | undefined;
      if (options.layer !== undefined) {
        own = await runJob<'layer'>(
          { kind: 'layer', workspace },
          { input: options.layer, signal, ...progressOf(options) },
        );
        fresh.push({
          layer: own,
          blobPath: join(workspace, LAYER_FILES.blob),
          squashfsPath: join(workspace, LAYER_FILES.squashfs),
        });
      }
      const config = newConfig({
        base: base?.configBytes,
        diffId: own?.diffId,
        config: options.config ?? {},
        changes: options.changes ?? [],
        platform: options.platform,
        author: options.author ?? '',
        comment: options.comment ?? '',
        createdBy: options.createdBy ?? '',
        created: new Date().toISOString(),
      });
      // Checked before anything is written: too many layers, for one.
      parseImageConfig(config.toString('utf8'), 'of the new image');
      const descriptors: Descriptor[] = base === undefined ? [] : [...(await this.#descriptors(base))];
      if (own !== undefined) {
        descriptors.push({
          mediaType: ociLayerType(own.compression),
          digest: own.digest,
          size: own.blobBytes,
        });
      }
      const diffIds = [
        ...(base?.layers ?? []).map(({ digest }) => digest),
        ...(own === undefined ? [] : [own.diffId]),
      ];
      const image: NewImage = {
        config,
        manifest: makeManifest(
          { mediaType: MEDIA_TYPES.ociConfig, digest: sha256(config), size: config.length },
          descriptors,
        ),
        manifestType: MEDIA_TYPES.ociManifest,
        layers: diffIds.map((diffId, index) => ({ diffId, digest: descriptors[index]?.digest ?? '' })),
        names,
      };
      faultPoint('image.create.commit');
      await this.#commit(fresh, [image], lease);
      if (base === undefined) this.#tell('import', sha256(config), options.names?.[0] ?? '');
      for (const name of options.names ?? []) this.#tell('tag', sha256(config), name);
      return this.#get(sha256(config));
    }, options.signal);
  }

  /** Cancels what is going on and waits for its end. */
  async close(): Promise<void> {
    this.#closing.abort();
    while (this.#working.size > 0) await Promise.allSettled(this.#working);
    await this.#changing.catch(() => {});
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  // --- Inside -------------------------------------------------------------------------------------

  #tell(action: ImageAction, id: string, name: string): void {
    this.#options.onEvent?.(action, id, name);
  }

  #tellRemovals(id: string, removals: readonly Removal[]): void {
    for (const removal of removals) {
      if ('deleted' in removal) this.#tell('delete', removal.deleted, removal.deleted);
      else this.#tell('untag', id, removal.untagged);
    }
  }

  async #open(): Promise<void> {
    await this.#content.open({
      blobs: this.#database.blobs().map(({ digest }) => digest),
      layers: this.#database.layers().map(({ diffId }) => diffId),
    });
    await this.#adoptEmbedded();
    await this.#collect();
  }

  /**
   * The embedded image becomes one of the store's own, so that containers made from it go on when another version
   * brings another one. Held by us as long as it is the embedded one.
   */
  async #adoptEmbedded(): Promise<void> {
    let embedded: EmbeddedImage;
    let manifest: Buffer;
    try {
      embedded = await this.#embedded.get();
      manifest = (await this.#embedded.blob()).manifest;
    } catch {
      // Told to whoever asks for that image; everything else works without it.
      return;
    }
    const holder = `embedded:${embedded.id}`;
    if (this.#database.image(embedded.id) === undefined) {
      const workspace = await this.#content.workspace();
      try {
        const fresh = await this.#embeddedLayer(workspace);
        await this.#moveIn([fresh]);
        this.#database.transaction(() => {
          this.#putLayers([fresh]);
          this.#database.putImage(
            {
              id: embedded.id,
              config: embedded.configBytes,
              manifest,
              manifestType: MEDIA_TYPES.ociManifest,
            },
            [embedded.diffId],
            [embedded.diffId],
          );
          this.#database.hold(holder, `image:${embedded.id}`);
        });
      } finally {
        await rm(workspace, { recursive: true, force: true });
      }
    }
    this.#database.transaction(() => {
      this.#database.dropEmbedded();
      this.#database.hold(holder, `image:${embedded.id}`);
    });
    this.#images.clear();
  }

  /** Runs a change after those before it; what an earlier one threw was told to whoever asked for it. */
  #change<T>(change: () => T | Promise<T>): Promise<T> {
    const before = this.#changing;
    const result = before.catch(() => {}).then(change);
    this.#changing = result;
    result.catch(() => {});
    return this.#track(result);
  }

  #track<T>(work: Promise<T>): Promise<T> {
    const tracked = work.then(
      () => {},
      () => {},
    );
    this.#working.add(tracked);
    void tracked.finally(() => this.#working.delete(tracked));
    return work;
  }

  /** Work in a worker: with a workspace and a lease, both gone at its end. */
  #work<T>(
    run: (workspace: string, lease: string, signal: AbortSignal) => Promise<T>,
    signal: AbortSignal | undefined,
  ): Promise<T> {
    const both =
      signal === undefined ? this.#closing.signal : AbortSignal.any([signal, this.#closing.signal]);
    return this.#track(
      (async () => {
        // The store has to be open: it removes every workspace when it opens.
        await this.#change(() => {});
        const workspace = await this.#content.workspace();
        const lease = `lease:${randomUUID()}`;
        try {
          return await run(workspace, lease, both);
        } finally {
          this.#database.drop(lease);
          await rm(workspace, { recursive: true, force: true });
          await this.#change(() => this.#collect());
        }
      })(),
    );
  }

  /** Undefined when set-up has not made it. */
  async #embeddedImage(): Promise<EmbeddedImage | undefined> {
    return this.#embedded.get().catch(() => undefined);
  }

  async #find(text: string): Promise<string> {
    const embedded = await this.#embeddedImage();
    const exact = /^(?:sha256:)?([0-9a-f]{64})$/.exec(text)?.[1];
    if (exact !== undefined) {
      const id = `sha256:${exact}`;
      if (id === embedded?.id || this.#database.image(id) !== undefined) return id;
      throw notFound(text);
    }
    const prefix = /^(?:sha256:)?([0-9a-f]{1,64})$/.exec(text)?.[1];
    const name = prefix !== undefined && text.startsWith('sha256:') ? undefined : nameOf(text);
    if (name !== undefined) {
      const named = this.#database.imageByName(name);
      if (named !== undefined) return named;
      if (name === EMBEDDED_NAME) return (await this.#embedded.get()).id;
    }
    if (prefix !== undefined) {
      const all = new Set([...this.#database.imageIds(), ...(embedded === undefined ? [] : [embedded.id])]);
      const ids = [...all].filter((id) => id.startsWith(`sha256:${prefix}`));
      const [id] = ids;
      if (id !== undefined && ids.length === 1) return id;
      if (ids.length > 1) {
        throw new ImageError(
          'ERR_ARCBOX_IMAGE_AMBIGUOUS',
          `${ids.length} images have an ID that begins with ${prefix}; give more of it`,
        );
      }
    }
    throw notFound(name === undefined ? text : familiarName(parseReference(text)));
  }

  async #get(id: string): Promise<Image> {
    const known = this.#images.get(id);
    if (known !== undefined) return known;
    const embedded = await this.#embeddedImage();
    const names = this.#namesByImage(embedded).get(id) ?? [];
    const image =
      embedded !== undefined && id === embedded.id && this.#database.image(id) === undefined
        ? this.#fromEmbedded(embedded, names)
        : this.#fromRow(id, names, embedded);
    this.#images.set(id, image);
    return image;
  }

  /** Names of every image that has some; the embedded one keeps its own as long as nobody took it. */
  #namesByImage(embedded: EmbeddedImage | undefined): Map<string, string[]> {
    const names = new Map<string, string[]>();
    let taken = false;
    for (const { name, imageId } of this.#database.names()) {
      if (name === EMBEDDED_NAME) taken = true;
      const list = names.get(imageId);
      if (list === undefined) names.set(imageId, [name]);
      else list.push(name);
    }
    if (!taken && embedded !== undefined) {
      names.set(embedded.id, [EMBEDDED_NAME, ...(names.get(embedded.id) ?? [])]);
    }
    return names;
  }

  #fromRow(id: string, names: readonly string[], embedded: EmbeddedImage | undefined): Image {
    const row = this.#database.image(id);
    if (row === undefined) throw notFound(id);
    const config = parseImageConfig(row.config.toString('utf8'), id);
    const layers = config.diffIds.map((digest): Layer => {
      const layer = this.#database.layer(digest);
      if (layer === undefined)
        throw new ImageError('ERR_ARCBOX_IMAGE_CORRUPT', `the image ${id} lacks a layer`);
      return { digest, path: this.#content.layer(digest), sizeBytes: layer.squashfsBytes };
    });
    const digests = this.#database.digests().filter(({ imageId }) => imageId === id);
    return {
      id,
      names,
      digests: digests.map(({ name }) => name),
      config,
      configBytes: row.config,
      layers,
      sizeBytes: layers.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
      embedded: id === embedded?.id,
    };
  }

  #fromEmbedded(embedded: EmbeddedImage, names: readonly string[]): Image {
    const { id, config, configBytes, diffId, squashfs } = embedded;
    return {
      id,
      names,
      digests: [],
      config,
      configBytes,
      layers: [{ digest: diffId, path: squashfs.path, sizeBytes: squashfs.bytes }],
      sizeBytes: squashfs.bytes,
      embedded: true,
    };
  }

  /** Which blobs are here; from now on the lease holds them with their layers. */
  #which(digests: readonly string[], lease: string): KnownBlob[] {
    return digests.flatMap((digest) => {
      const blob = this.#database.blob(digest);
      if (blob === undefined || this.#database.layer(blob.diffId) === undefined) return [];
      this.#database.hold(lease, `blob:${digest}`);
      this.#database.hold(lease, `layer:${blob.diffId}`);
      return [blob];
    });
  }

  /** An image that stays while the lease is there. */
  async #held(text: string, lease: string): Promise<Image> {
    const image = await this.resolve(text);
    this.assertPresent(image);
    if (!image.embedded) this.#hold(image, lease);
    return image;
  }

  /** Its blobs too: a pull may give the same image others. */
  #hold(image: Image, lease: string): void {
    this.#database.hold(lease, `image:${image.id}`);
    const row = this.#database.image(image.id);
    for (const { digest } of row === undefined ? [] : layersOf(row)) {
      this.#database.hold(lease, `blob:${digest}`);
    }
  }

  /** Where the image came from or went to at that registry. */
  #repositoriesAt(domain: string, image: Image): string[] {
    const references = image.digests.map(parseReference).filter((reference) => reference.domain === domain);
    return [...new Set(references.map(({ path }) => path))];
  }

  /** The registry has the image now; layers that were packed for it take the place of the plain ones. */
  async #pushed(image: Image, reference: Reference, outcome: PushOutcome): Promise<void> {
    await this.#change(async () => {
      faultPoint('image.push.commit');
      for (const { layer, path } of outcome.packed) {
        if (this.#database.blob(layer.digest) === undefined) await this.#content.addBlob(path, layer.digest);
      }
      if (outcome.packed.length > 0) await this.#content.syncNames();
      this.#database.transaction(() => {
        const row = this.#database.image(image.id);
        if (row === undefined) return;
        for (const { layer } of outcome.packed) this.#database.putBlob({ ...layer, bytes: layer.blobBytes });
        const { manifestType } = outcome;
        const manifest = Buffer.from(outcome.manifest);
        this.#database.putImage({ ...row, manifest, manifestType }, image.config.diffIds, outcome.digests);
        this.#database.setDigest(`${reference.domain}/${reference.path}@${outcome.digest}`, image.id);
      });
      this.#images.clear();
    });
  }

  /** The embedded image's layer, copied: an image that goes on from it keeps it when the boot assets change. */
  async #embeddedLayer(workspace: string): Promise<FreshLayer> {
    const { diffId, squashfs } = await this.#embedded.get();
    const tar = await this.#embedded.blob();
    const blobPath = join(workspace, 'embedded.blob');
    const squashfsPath = join(workspace, 'embedded.squashfs');
    await linkOrCopy(tar.path, blobPath);
    await linkOrCopy(squashfs.path, squashfsPath);
    const layer: IngestedLayer = {
      digest: diffId,
      blobBytes: tar.bytes,
      compression: 'none',
      diffId,
      tarBytes: tar.bytes,
      squashfsBytes: squashfs.bytes,
    };
    return { layer, blobPath, squashfsPath };
  }

  /** Descriptors of the blobs of an image's layers. */
  async #descriptors(image: Image): Promise<readonly Descriptor[]> {
    const row = this.#database.image(image.id);
    if (row !== undefined) return layersOf(row);
    const { bytes } = await this.#embedded.blob();
    return image.layers.map(({ digest }) => ({ mediaType: MEDIA_TYPES.ociLayer, digest, size: bytes }));
  }

  async #savedForm(image: Image): Promise<Omit<SavedImage, 'names'>> {
    const row = this.#database.image(image.id);
    if (row === undefined) {
      const { path, bytes, manifest } = await this.#embedded.blob();
      const layers = image.layers.map(({ digest }) => ({ digest, bytes, path }));
      return { config: image.configBytes, manifest, manifestType: MEDIA_TYPES.ociManifest, layers };
    }
    const layers = layersOf(row).map(({ digest, size }) => ({
      digest,
      bytes: size,
      path: this.#content.blob(digest),
    }));
    return { config: row.config, manifest: row.manifest, manifestType: row.manifestType, layers };
  }

  /** Takes over what a worker made: files first, then the tables. */
  async #commit(fresh: readonly FreshLayer[], images: readonly NewImage[], lease: string): Promise<void> {
    await this.#change(async () => {
      await this.#moveIn(fresh);
      faultPoint('image.commit.tables');
      this.#database.transaction(() => {
        this.#putLayers(fresh);
        for (const image of images) this.#putImage(image);
      });
      this.#database.drop(lease);
      this.#images.clear();
    });
  }

  /** Gives the files of new layers their names, durably. */
  async #moveIn(fresh: readonly FreshLayer[]): Promise<void> {
    for (const { layer, blobPath, squashfsPath } of fresh) {
      if (this.#database.blob(layer.digest) === undefined) {
        faultPoint('image.commit.blob');
        await this.#content.addBlob(blobPath, layer.digest);
      }
      if (this.#database.layer(layer.diffId) === undefined) {
        faultPoint('image.commit.layer');
        await this.#content.addLayer(squashfsPath, layer.diffId);
      }
    }
    faultPoint('image.commit.sync');
    if (fresh.length > 0) await this.#content.syncNames();
  }

  #putLayers(fresh: readonly FreshLayer[]): void {
    for (const { layer } of fresh) {
      this.#database.putLayer(layer);
      this.#database.putBlob({ ...layer, bytes: layer.blobBytes });
    }
  }

  #putImage(image: NewImage): void {
    const config = Buffer.from(image.config);
    const id = sha256(config);
    this.#database.putImage(
      { id, config, manifest: Buffer.from(image.manifest), manifestType: image.manifestType },
      image.layers.map(({ diffId }) => diffId),
      image.layers.map(({ digest }) => digest),
    );
    for (const name of image.names) this.#database.setName(name, id);
    for (const name of image.digests ?? []) this.#database.setDigest(name, id);
    if (image.names.length === 0 && !this.#database.names().some(({ imageId }) => imageId === id)) {
      this.#database.keep(id);
    }
  }

  /** Removes what no root reaches; answers with the bytes that went. */
  async #collect(): Promise<number> {
    const { images, layers, blobs } = this.#database.collect();
    for (const id of images) this.#images.delete(id);
    if (layers.length > 0) await this.#options.beforeRemoval?.(layers.map(({ diffId }) => diffId));
    await this.#content.remove({
      blobs: blobs.map(({ digest }) => digest),
      layers: layers.map(({ diffId }) => diffId),
    });
    return (
      layers.reduce((sum, { squashfsBytes }) => sum + squashfsBytes, 0) +
      blobs.reduce((sum, { bytes }) => sum + bytes, 0)
    );
  }
}

/** Set-up never changes a file that it has made, so sharing it is as good as copying it. */
async function linkOrCopy(from: string, to: string): Promise<void> {
  try {
    await link(from, to);
  } catch {
    // Another file system, most likely.
    await copyFile(from, to);
    await syncFile(to);
  }
}

function layersOf(row: ImageRow): readonly Descriptor[] {
  const manifest = parseManifest(row.manifest, row.manifestType, row.id);
  if (manifest.kind === 'manifest') return manifest.layers;
  throw new ImageError('ERR_ARCBOX_IMAGE_CORRUPT', `the manifest of ${row.id} is an index`);
}

/** The full name that the text is; undefined when it can only be an ID. */
function nameOf(text: string): string | undefined {
  try {
    return canonicalName(parseReference(text));
  } catch (error) {
    if (/^(?:sha256:)?[0-9a-f]{1,64}$/.test(text)) return undefined;
    throw error;
  }
}

/** A name that an image may get. Throws `ERR_ARCBOX_REFERENCE_INVALID`. */
function targetName(text: string): string {
  const reference = parseReference(text);
  if (reference.digest !== undefined) {
    throw new ImageError(
      'ERR_ARCBOX_REFERENCE_INVALID',
      `${text} has a digest; a new name can only have a tag`,
    );
  }
  return canonicalName(reference);
}

function notFound(text: string): ImageError {
  const shown = text.startsWith('sha256:') ? `sha256:${shortDigest(text)}` : text;
  return new ImageError(
    'ERR_ARCBOX_IMAGE_NOT_FOUND',
    `no such image: ${shown} (arcbox pull gets one, arcbox images lists those that are here)`,
  );
}

function progressOf({ onProgress }: TransferOptions): { onProgress?: OnProgress } {
  return onProgress === undefined ? {} : { onProgress };
}
