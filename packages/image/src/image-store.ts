/**
 * Which images there are, and where their layers lie on the host.
 *
 * Today there is one: the default image that set-up assembles beside the other boot assets (`busybox.json` is its OCI
 * configuration, `busybox.squashfs` its only layer). The interface is the one that a store with many images keeps:
 * a name resolves to an image, an image is a configuration and a stack of layers, a layer is a digest and a file.
 */
import { createHash } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { ImageError } from './errors.ts';
import { type ImageConfig, parseImageConfig } from './image-config.ts';
import { IMAGE_CONFIG_BYTES_MAX } from './limits.ts';
import { canonicalName, familiarName, parseReference, type Reference } from './reference.ts';

export interface Layer {
  /** Digest of the uncompressed layer, `sha256:…`: names the layer for good. */
  readonly digest: string;
  /** A squashfs image on the host. */
  readonly path: string;
  /** Size of that file in bytes. */
  readonly sizeBytes: number;
}

export interface Image {
  /** `sha256:…` of the configuration. */
  readonly id: string;
  /** Every name it has, in full: `docker.io/library/busybox:latest`. */
  readonly names: readonly string[];
  readonly config: ImageConfig;
  /** Lowest first. */
  readonly layers: readonly Layer[];
}

interface EmbeddedImage {
  readonly reference: Reference;
  readonly configPath: string;
  readonly layerPath: string;
}

export class ImageStore {
  readonly #embedded: readonly EmbeddedImage[];
  readonly #loaded = new Map<string, Promise<Image>>();

  /** `bootDirectory` holds what set-up built. */
  constructor(bootDirectory: string) {
    this.#embedded = [
      {
        reference: parseReference('busybox'),
        configPath: join(bootDirectory, 'busybox.json'),
        layerPath: join(bootDirectory, 'busybox.squashfs'),
      },
    ];
  }

  /**
   * The image that `text` names: a reference by Docker's rules, an image ID or an unambiguous beginning of one.
   * Throws `ImageError` `ERR_ARCBOX_IMAGE_NOT_FOUND`, `ERR_ARCBOX_REFERENCE_INVALID`, `ERR_ARCBOX_IMAGE_CORRUPT`.
   */
  async resolve(text: string): Promise<Image> {
    const byId = await this.#byId(text);
    if (byId !== undefined) return byId;
    const reference = parseReference(text);
    const wanted = canonicalName(reference);
    const found = this.#embedded.find((image) => canonicalName(image.reference) === wanted);
    if (found === undefined) {
      const known = this.#embedded.map((image) => familiarName(image.reference)).join(', ');
      throw new ImageError(
        'ERR_ARCBOX_IMAGE_NOT_FOUND',
        `no such image: ${familiarName(reference)} (on this machine there is: ${known})`,
      );
    }
    return this.#load(found);
  }

  async list(): Promise<readonly Image[]> {
    return Promise.all(this.#embedded.map((image) => this.#load(image)));
  }

  async #byId(text: string): Promise<Image | undefined> {
    const digits = text.startsWith('sha256:') ? text.slice('sha256:'.length) : text;
    if (!/^[0-9a-f]{12,64}$/.test(digits)) return undefined;
    const matches = (await this.list()).filter((image) => image.id.startsWith(`sha256:${digits}`));
    return matches.length === 1 ? matches[0] : undefined;
  }

  #load(embedded: EmbeddedImage): Promise<Image> {
    let loading = this.#loaded.get(embedded.configPath);
    if (loading === undefined) {
      loading = loadEmbedded(embedded);
      this.#loaded.set(embedded.configPath, loading);
      // A failure is told to whoever asked and tried again next time: set-up may just be running.
      loading.catch(() => this.#loaded.delete(embedded.configPath));
    }
    return loading;
  }
}

async function loadEmbedded(embedded: EmbeddedImage): Promise<Image> {
  const name = familiarName(embedded.reference);
  try {
    const { size } = await stat(embedded.configPath);
    if (size > IMAGE_CONFIG_BYTES_MAX) {
      throw new ImageError(
        'ERR_ARCBOX_IMAGE_CORRUPT',
        `the image configuration ${embedded.configPath} is too large`,
      );
    }
    const bytes = await readFile(embedded.configPath);
    const config = parseImageConfig(bytes.toString('utf8'), embedded.configPath);
    const layer = await stat(embedded.layerPath);
    const digest = config.diffIds[0];
    if (digest === undefined || config.diffIds.length !== 1) {
      throw new ImageError('ERR_ARCBOX_IMAGE_CORRUPT', `${embedded.configPath} must name exactly one layer`);
    }
    return {
      id: `sha256:${createHash('sha256').update(bytes).digest('hex')}`,
      names: [canonicalName(embedded.reference)],
      config,
      layers: [{ digest, path: embedded.layerPath, sizeBytes: layer.size }],
    };
  } catch (error) {
    if (error instanceof ImageError) throw error;
    throw new ImageError(
      'ERR_ARCBOX_IMAGE_CORRUPT',
      `the embedded image ${name} is not readable (${String(error)}); run scripts/setup`,
      { cause: error },
    );
  }
}
