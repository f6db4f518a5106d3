/** Which images there are: found by name or ID, read from the tables, and kept in memory until something changes. */
import { EMBEDDED_NAME, type EmbeddedImage, type EmbeddedImages } from '../embedded.ts';
import { ImageError } from '../errors.ts';
import type { HistoryEntry, Image, Layer } from '../image.ts';
import { parseImageConfig } from '../image-config.ts';
import { familiarName, parseReference } from '../reference.ts';
import type { Content } from './content.ts';
import type { ImageDatabase } from './database.ts';
import { nameOf, notFound } from './names.ts';

export class Catalogue {
  readonly #database: ImageDatabase;
  readonly #content: Content;
  readonly #embeddedImages: EmbeddedImages;
  readonly #images = new Map<string, Image>();

  constructor(database: ImageDatabase, content: Content, embedded: EmbeddedImages) {
    this.#database = database;
    this.#content = content;
    this.#embeddedImages = embedded;
  }

  async resolve(text: string): Promise<Image> {
    return this.get(await this.find(text));
  }

  /** After a change: what is in memory of the image, or of all, is read anew. */
  forget(id?: string): void {
    if (id === undefined) this.#images.clear();
    else this.#images.delete(id);
  }

  /** Images that have a name, and those that lost theirs; newest first. */
  async list(): Promise<readonly Image[]> {
    const embedded = await this.embedded();
    const names = this.namesByImage(embedded);
    const ids = this.#database.imageIds().filter((id) => names.has(id) || this.#database.isKept(id));
    const images = ids.map((id) => this.fromRow(id, names.get(id) ?? [], embedded));
    const own = embedded === undefined ? undefined : names.get(embedded.id);
    // Without a name it is not there for anybody; and most of the time it is one of the store's own already.
    if (embedded === undefined || own === undefined || ids.includes(embedded.id)) return images;
    return [...images, this.#fromEmbedded(embedded, own)];
  }

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

  /** Undefined when set-up has not made it. */
  async embedded(): Promise<EmbeddedImage | undefined> {
    return this.#embeddedImages.get().catch(() => undefined);
  }

  /** The ID of the image that the text names. */
  async find(text: string): Promise<string> {
    const embedded = await this.embedded();
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
      if (name === EMBEDDED_NAME) return (await this.#embeddedImages.get()).id;
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

  async get(id: string): Promise<Image> {
    const known = this.#images.get(id);
    if (known !== undefined) return known;
    const embedded = await this.embedded();
    const names = this.namesByImage(embedded).get(id) ?? [];
    const image =
      embedded !== undefined && id === embedded.id && this.#database.image(id) === undefined
        ? this.#fromEmbedded(embedded, names)
        : this.fromRow(id, names, embedded);
    this.#images.set(id, image);
    return image;
  }

  /** Names of every image that has some; the embedded one keeps its own as long as nobody took it. */
  namesByImage(embedded: EmbeddedImage | undefined): Map<string, string[]> {
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

  fromRow(id: string, names: readonly string[], embedded: EmbeddedImage | undefined): Image {
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
}
