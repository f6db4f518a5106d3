/** Manifests and indexes as OCI (image-spec, manifest.md, image-index.md) and Docker (schema 2) write them, checked. */
import { isDigest } from './digest.ts';
import { ImageError } from './errors.ts';
import type { Compression } from './layer/compression.ts';
import { LAYERS_MAX } from './limits.ts';

export const MEDIA_TYPES = {
  ociManifest: 'application/vnd.oci.image.manifest.v1+json',
  ociIndex: 'application/vnd.oci.image.index.v1+json',
  ociConfig: 'application/vnd.oci.image.config.v1+json',
  ociLayer: 'application/vnd.oci.image.layer.v1.tar',
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
  dockerList: 'application/vnd.docker.distribution.manifest.list.v2+json',
  dockerConfig: 'application/vnd.docker.container.image.v1+json',
  dockerLayer: 'application/vnd.docker.image.rootfs.diff.tar',
} as const;

export const MANIFEST_TYPES: readonly string[] = [MEDIA_TYPES.ociManifest, MEDIA_TYPES.dockerManifest];
export const INDEX_TYPES: readonly string[] = [MEDIA_TYPES.ociIndex, MEDIA_TYPES.dockerList];

export interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
}

export interface Platform {
  readonly os: string;
  readonly architecture: string;
  /** Empty: none. */
  readonly variant: string;
}

export interface Manifest {
  readonly kind: 'manifest';
  readonly mediaType: string;
  readonly config: Descriptor;
  /** Lowest first. */
  readonly layers: readonly Descriptor[];
}

export interface IndexEntry extends Descriptor {
  readonly platform: Platform | undefined;
  readonly annotations: Readonly<Record<string, string>>;
}

export interface Index {
  readonly kind: 'index';
  readonly mediaType: string;
  readonly manifests: readonly IndexEntry[];
}

/** The platform's Linux by another name: what containers of this machine run. */
export function hostPlatform(): Platform {
  return { os: 'linux', architecture: process.arch === 'arm64' ? 'arm64' : 'amd64', variant: '' };
}

/** `linux/arm64`, `linux/arm/v7`, `arm64`. Throws `ERR_ARCBOX_IMAGE_PLATFORM`. */
export function parsePlatform(text: string): Platform {
  const parts = text.toLowerCase().split('/');
  const [first = '', second, third] = parts;
  if (parts.length > 3 || parts.some((part) => !/^[a-z0-9_.-]+$/.test(part))) {
    throw new ImageError(
      'ERR_ARCBOX_IMAGE_PLATFORM',
      `${JSON.stringify(text)} is not a platform such as linux/amd64 or linux/arm64`,
    );
  }
  const [os, architecture, variant] =
    second === undefined ? ['linux', first, ''] : [first, second, third ?? ''];
  const names: Readonly<Record<string, string>> = { x86_64: 'amd64', 'x86-64': 'amd64', aarch64: 'arm64' };
  return {
    os,
    architecture: (Object.hasOwn(names, architecture) ? names[architecture] : undefined) ?? architecture,
    variant,
  };
}

export function formatPlatform({ os, architecture, variant }: Platform): string {
  return `${os}/${architecture}${variant === '' ? '' : `/${variant}`}`;
}

/** The index's entry for the platform. Throws `ERR_ARCBOX_IMAGE_PLATFORM` saying which ones there are. */
export function selectPlatform(index: Index, wanted: Platform, source: string): IndexEntry {
  const candidates = index.manifests.filter(({ mediaType }) =>
    [...MANIFEST_TYPES, ...INDEX_TYPES].includes(mediaType),
  );
  const fits = candidates.filter(
    ({ platform }) => platform?.os === wanted.os && platform.architecture === wanted.architecture,
  );
  const exact = fits.find(({ platform }) => platform?.variant === wanted.variant);
  // arm64 is arm64/v8; and without a wish for a variant the first one serves.
  const chosen = exact ?? (wanted.variant === '' || wanted.variant === 'v8' ? fits[0] : undefined);
  if (chosen !== undefined) return chosen;
  // An index of one image without a platform, as some tools write it, is that image.
  const [only] = candidates;
  if (only !== undefined && candidates.length === 1 && only.platform === undefined) return only;
  const known = candidates.flatMap(({ platform }) =>
    platform === undefined || platform.os === 'unknown' ? [] : [formatPlatform(platform)],
  );
  throw new ImageError(
    'ERR_ARCBOX_IMAGE_PLATFORM',
    `${source} has no image for ${formatPlatform(wanted)}; it has ${known.join(', ') || 'none that names a platform'}`,
  );
}

/** Parses a manifest or an index. `mediaType`: what the transport said, if anything. Throws `ERR_ARCBOX_IMAGE_CORRUPT`. */
export function parseManifest(
  bytes: Buffer,
  mediaType: string | undefined,
  source: string,
): Manifest | Index {
  const fail = (why: string, cause?: unknown): never => {
    throw new ImageError('ERR_ARCBOX_IMAGE_CORRUPT', `the manifest of ${source} ${why}`, { cause });
  };
  let parsed: unknown;
  try {
    parsed = JSON.parse(bytes.toString('utf8'));
  } catch (error) {
    fail('is not JSON', error);
  }
  const top = objectOf(parsed) ?? fail('is not an object');
  if (top.schemaVersion === 1)
    fail('is of schema 1, which no registry should serve any more; ask for a newer one');
  const type =
    (typeof top.mediaType === 'string' ? top.mediaType : undefined) ??
    mediaType ??
    (Array.isArray(top.manifests) ? MEDIA_TYPES.ociIndex : MEDIA_TYPES.ociManifest);
  // Such a document could be read as the one or the other, whatever its type says (OCI image-spec, CVE-2021-41190).
  if (Array.isArray(top.manifests) && (Array.isArray(top.layers) || top.config !== undefined))
    fail('is a manifest and an index at once');
  const descriptor = (value: unknown, what: string): Descriptor => {
    const record = objectOf(value) ?? fail(`has a ${what} that is not a descriptor`);
    const { digest, size } = record;
    if (!isDigest(digest))
      return fail(`names its ${what} by ${JSON.stringify(digest)}, which is no sha256 digest`);
    if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) {
      return fail(`gives no size for its ${what}`);
    }
    return { mediaType: typeof record.mediaType === 'string' ? record.mediaType : '', digest, size };
  };
  const list = (value: unknown, what: string): unknown[] => {
    if (Array.isArray(value)) return value;
    return value === undefined || value === null ? [] : fail(`has ${what} that are not a list`);
  };
  if (INDEX_TYPES.includes(type)) {
    const manifests = list(top.manifests, 'manifests').map((value): IndexEntry => {
      const record = objectOf(value) ?? {};
      const platform = objectOf(record.platform);
      return {
        ...descriptor(value, 'manifest'),
        platform:
          platform === undefined
            ? undefined
            : {
                os: textOf(platform.os),
                architecture: textOf(platform.architecture),
                variant: textOf(platform.variant),
              },
        annotations: textsOf(record.annotations),
      };
    });
    return { kind: 'index', mediaType: type, manifests };
  }
  if (!MANIFEST_TYPES.includes(type))
    fail(`is of the type ${JSON.stringify(type)}, which is no container image`);
  const layers = list(top.layers, 'layers').map((layer) => descriptor(layer, 'layer'));
  if (layers.length > LAYERS_MAX) fail(`has ${layers.length} layers; the limit is ${LAYERS_MAX}`);
  const config = descriptor(top.config, 'configuration');
  if (config.mediaType !== MEDIA_TYPES.ociConfig && config.mediaType !== MEDIA_TYPES.dockerConfig) {
    fail(`has a configuration of the type ${JSON.stringify(config.mediaType)}: it is no container image`);
  }
  return { kind: 'manifest', mediaType: type, config, layers };
}

/** The media type of a layer's blob in an OCI manifest. */
export function ociLayerType(compression: Compression): string {
  return compression === 'none' ? MEDIA_TYPES.ociLayer : `${MEDIA_TYPES.ociLayer}+${compression}`;
}

/** An OCI manifest for a configuration and blobs that never had one. */
export function makeManifest(config: Descriptor, layers: readonly Descriptor[]): Buffer {
  return Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MEDIA_TYPES.ociManifest,
      config: { ...config, mediaType: MEDIA_TYPES.ociConfig },
      layers,
    }),
  );
}

function objectOf(value: unknown): Record<string, unknown> | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : undefined;
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function textsOf(value: unknown): Record<string, string> {
  const entries = Object.entries(objectOf(value) ?? {});
  return Object.fromEntries(
    entries.filter((entry): entry is [string, string] => typeof entry[1] === 'string'),
  );
}
