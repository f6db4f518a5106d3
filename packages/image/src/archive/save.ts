/**
 * `save`: one tar that is a docker-archive and an oci-layout at once, as today's Docker writes it. Blobs are what was
 * pulled or loaded, byte for byte, and so are the manifests; the order of files is fixed.
 */
import { createReadStream } from 'node:fs';
import { sha256 } from '../digest.ts';
import { type Descriptor, MEDIA_TYPES } from '../manifest.ts';
import { familiarName, parseReference } from '../reference.ts';
import { NO_XATTRS, type TarEntry } from '../tar/header.ts';
import { paddingOf } from '../tar/reader.ts';
import { encodeHeader, TAR_END, ZEROS } from '../tar/writer.ts';

export interface SavedImage {
  readonly config: Buffer;
  readonly manifest: Buffer;
  readonly manifestType: string;
  /** Lowest first; the file is the blob that the manifest names. */
  readonly layers: readonly { readonly digest: string; readonly bytes: number; readonly path: string }[];
  /** In full; those that were asked for. */
  readonly names: readonly string[];
}

const READ_BYTES = 1024 * 1024;

export async function* saveArchive(images: readonly SavedImage[]): AsyncGenerator<Buffer, void, undefined> {
  const written = new Set<string>();
  const entry = (fields: Partial<TarEntry> & { name: string }): Buffer =>
    encodeHeader({
      type: 'file',
      mode: 0o644,
      uid: 0,
      gid: 0,
      sizeBytes: 0,
      mtime: 0,
      linkName: '',
      devMajor: 0,
      devMinor: 0,
      xattrs: NO_XATTRS,
      ...fields,
    });
  const file = (name: string, data: Buffer): Buffer =>
    Buffer.concat([entry({ name, sizeBytes: data.length }), data, ZEROS.subarray(0, paddingOf(data.length))]);

  for (const name of ['blobs/', 'blobs/sha256/']) yield entry({ name, type: 'directory', mode: 0o755 });
  for (const image of images) {
    for (const bytes of [image.config, image.manifest]) {
      const name = pathOf(sha256(bytes));
      if (!written.has(name)) yield file(name, bytes);
      written.add(name);
    }
    for (const { digest, bytes, path } of image.layers) {
      const name = pathOf(digest);
      if (written.has(name)) continue;
      written.add(name);
      yield entry({ name, sizeBytes: bytes });
      let left = bytes;
      for await (const chunk of createReadStream(path, {
        highWaterMark: READ_BYTES,
      }) as AsyncIterable<Buffer>) {
        left -= chunk.length;
        yield chunk;
      }
      if (left !== 0) throw new Error(`${path} has not the ${bytes} bytes that it should have`);
      if (paddingOf(bytes) > 0) yield ZEROS.subarray(0, paddingOf(bytes));
    }
  }
  yield file('index.json', json(ociIndex(images)));
  yield file('manifest.json', json(images.map(dockerEntry)));
  yield file('oci-layout', json({ imageLayoutVersion: '1.0.0' }));
  yield TAR_END;
}

function ociIndex(images: readonly SavedImage[]): unknown {
  const manifests = images.flatMap(({ manifest, manifestType, names }) => {
    const descriptor: Descriptor = {
      mediaType: manifestType,
      digest: sha256(manifest),
      size: manifest.length,
    };
    if (names.length === 0) return [descriptor];
    return names.map((name) => ({
      ...descriptor,
      annotations: {
        'io.containerd.image.name': name,
        'org.opencontainers.image.ref.name': parseReference(name).tag ?? '',
      },
    }));
  });
  return { schemaVersion: 2, mediaType: MEDIA_TYPES.ociIndex, manifests };
}

function dockerEntry({ config, layers, names }: SavedImage): unknown {
  return {
    Config: pathOf(sha256(config)),
    RepoTags: names.length === 0 ? null : names.map((name) => familiarName(parseReference(name))),
    Layers: layers.map(({ digest }) => pathOf(digest)),
  };
}

function pathOf(digest: string): string {
  return `blobs/${digest.replace(':', '/')}`;
}

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}
