/**
 * The image that comes with the boot assets (`busybox.json` is its configuration, `busybox.squashfs` its only layer,
 * `busybox.tar` the same as a tar). It is there without a registry; it cannot be removed, and gives way to an image that
 * was pulled or loaded under the same name.
 */
import { createHash } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { sha256 } from './digest.ts';
import { ImageError } from './errors.ts';
import { type ImageConfig, parseImageConfig } from './image-config.ts';
import { IMAGE_CONFIG_BYTES_MAX } from './limits.ts';
import { MEDIA_TYPES, makeManifest } from './manifest.ts';
import { canonicalName, parseReference } from './reference.ts';

export const EMBEDDED_NAME = canonicalName(parseReference('busybox'));

export interface EmbeddedImage {
  readonly id: string;
  readonly name: string;
  readonly config: ImageConfig;
  readonly configBytes: Buffer;
  readonly diffId: string;
  readonly squashfs: { readonly path: string; readonly bytes: number };
}

export class EmbeddedImages {
  readonly #directory: string;
  #loaded: Promise<EmbeddedImage> | undefined;
  #blob: Promise<{ path: string; bytes: number; manifest: Buffer }> | undefined;

  /** `directory` holds what set-up built. */
  constructor(directory: string) {
    this.#directory = directory;
  }

  /** Throws `ERR_ARCBOX_IMAGE_CORRUPT` when set-up has not finished. */
  get(): Promise<EmbeddedImage> {
    if (this.#loaded === undefined) {
      const loading = load(this.#directory);
      this.#loaded = loading;
      // A failure is told to whoever asked and tried again next time: set-up may just be running.
      loading.catch(() => {
        this.#loaded = undefined;
      });
    }
    return this.#loaded;
  }

  /** Its layer as a tar, and a manifest for that: what save and push need. Throws `ERR_ARCBOX_IMAGE_CORRUPT`. */
  blob(): Promise<{ path: string; bytes: number; manifest: Buffer }> {
    if (this.#blob === undefined) {
      const loading = this.#loadBlob();
      this.#blob = loading;
      loading.catch(() => {
        this.#blob = undefined;
      });
    }
    return this.#blob;
  }

  async #loadBlob(): Promise<{ path: string; bytes: number; manifest: Buffer }> {
    const { diffId, configBytes, name } = await this.get();
    const path = join(this.#directory, 'busybox.tar');
    let bytes: Buffer;
    try {
      bytes = await readFile(path);
    } catch (cause) {
      throw new ImageError(
        'ERR_ARCBOX_IMAGE_CORRUPT',
        `the layer of the embedded image ${name} is not there as a tar (${path}); run scripts/setup`,
        { cause },
      );
    }
    const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
    if (digest !== diffId) {
      throw new ImageError(
        'ERR_ARCBOX_IMAGE_CORRUPT',
        `${path} is not the layer that its configuration names`,
      );
    }
    const manifest = makeManifest(
      { mediaType: MEDIA_TYPES.ociConfig, digest: sha256(configBytes), size: configBytes.length },
      [{ mediaType: MEDIA_TYPES.ociLayer, digest, size: bytes.length }],
    );
    return { path, bytes: bytes.length, manifest };
  }
}

async function load(directory: string): Promise<EmbeddedImage> {
  const configPath = join(directory, 'busybox.json');
  const squashfsPath = join(directory, 'busybox.squashfs');
  try {
    const { size } = await stat(configPath);
    if (size > IMAGE_CONFIG_BYTES_MAX) {
      throw new ImageError('ERR_ARCBOX_IMAGE_CORRUPT', `the image configuration ${configPath} is too large`);
    }
    const configBytes = await readFile(configPath);
    const config = parseImageConfig(configBytes.toString('utf8'), configPath);
    const layer = await stat(squashfsPath);
    const [diffId] = config.diffIds;
    if (diffId === undefined || config.diffIds.length !== 1) {
      throw new ImageError('ERR_ARCBOX_IMAGE_CORRUPT', `${configPath} must name exactly one layer`);
    }
    return {
      id: sha256(configBytes),
      name: EMBEDDED_NAME,
      config,
      configBytes,
      diffId,
      squashfs: { path: squashfsPath, bytes: layer.size },
    };
  } catch (error) {
    if (error instanceof ImageError) throw error;
    throw new ImageError(
      'ERR_ARCBOX_IMAGE_CORRUPT',
      `the embedded image busybox is not readable (${String(error)}); run scripts/setup`,
      { cause: error },
    );
  }
}
