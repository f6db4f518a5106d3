/** Everything that is written about images. A method returns when the change would survive a power loss. */
import type { DatabaseSync, SQLOutputValue, StatementSync } from 'node:sqlite';
import type { Compression } from '../layer/compression.ts';

export interface ImageRow {
  readonly id: string;
  readonly config: Buffer;
  readonly manifest: Buffer;
  readonly manifestType: string;
}

export interface LayerRow {
  readonly diffId: string;
  readonly squashfsBytes: number;
  readonly tarBytes: number;
}

export interface BlobRow {
  readonly digest: string;
  readonly bytes: number;
  readonly compression: Compression;
  readonly diffId: string;
}

/** What garbage collection has taken out of the tables; the files are still there. */
export interface Garbage {
  readonly images: readonly string[];
  readonly layers: readonly LayerRow[];
  readonly blobs: readonly BlobRow[];
}

const ALIVE = `
  WITH RECURSIVE alive (target) AS (
    SELECT target FROM "references" WHERE holder NOT LIKE 'image:%'
    UNION
    SELECT r.target FROM "references" r JOIN alive a ON r.holder = a.target
  )`;

export class ImageDatabase {
  readonly #database: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();

  constructor(database: DatabaseSync) {
    this.#database = database;
  }

  /** All or nothing. */
  transaction<T>(work: () => T): T {
    this.#database.exec('BEGIN IMMEDIATE');
    try {
      const result = work();
      this.#database.exec('COMMIT');
      return result;
    } catch (error) {
      this.#database.exec('ROLLBACK');
      throw error;
    }
  }

  // --- Images -------------------------------------------------------------------------------------

  image(id: string): ImageRow | undefined {
    const row = this.#get('SELECT id, config, manifest, manifest_type FROM images WHERE id = ?', id);
    return row === undefined ? undefined : toImage(row);
  }

  imageIds(): string[] {
    return this.#all('SELECT id FROM images ORDER BY added_ms DESC, id').map((row) => String(row.id));
  }

  /** Makes or replaces the image and what it holds. */
  putImage(image: ImageRow, diffIds: readonly string[], blobs: readonly string[]): void {
    this.#run(
      `INSERT INTO images (id, config, manifest, manifest_type, added_ms) VALUES (?, ?, ?, ?, ?)
       ON CONFLICT (id) DO UPDATE SET manifest = excluded.manifest, manifest_type = excluded.manifest_type`,
      image.id,
      image.config,
      image.manifest,
      image.manifestType,
      Date.now(),
    );
    const holder = `image:${image.id}`;
    this.#run('DELETE FROM "references" WHERE holder = ?', holder);
    for (const diffId of diffIds) this.hold(holder, `layer:${diffId}`);
    for (const digest of blobs) this.hold(holder, `blob:${digest}`);
  }

  // --- Names --------------------------------------------------------------------------------------

  imageByName(name: string): string | undefined {
    const row =
      this.#get('SELECT image_id FROM image_names WHERE name = ?', name) ??
      this.#get('SELECT image_id FROM image_digests WHERE name = ?', name);
    return row === undefined ? undefined : String(row.image_id);
  }

  names(): { name: string; imageId: string }[] {
    return this.#all('SELECT name, image_id FROM image_names ORDER BY name').map(toName);
  }

  digests(): { name: string; imageId: string }[] {
    return this.#all('SELECT name, image_id FROM image_digests ORDER BY name').map(toName);
  }

  /** Gives the image the name; whoever had it before stays listed without it. */
  setName(name: string, imageId: string): void {
    const before = this.#get('SELECT image_id FROM image_names WHERE name = ?', name)?.image_id;
    if (before === imageId) return;
    if (before !== undefined) this.removeName(name);
    this.#run('INSERT INTO image_names (name, image_id) VALUES (?, ?)', name, imageId);
    this.hold(`name:${name}`, `image:${imageId}`);
    this.drop(`kept:${imageId}`);
    if (typeof before === 'string' && !this.#isNamed(before)) this.keep(before);
  }

  /** The image stays, held by whatever else holds it. */
  removeName(name: string): void {
    this.#run('DELETE FROM image_names WHERE name = ?', name);
    this.drop(`name:${name}`);
  }

  /** The image is listed even without a name. */
  keep(imageId: string): void {
    this.hold(`kept:${imageId}`, `image:${imageId}`);
  }

  isKept(imageId: string): boolean {
    return this.#get('SELECT 1 FROM "references" WHERE holder = ?', `kept:${imageId}`) !== undefined;
  }

  setDigest(name: string, imageId: string): void {
    this.#run(
      'INSERT INTO image_digests (name, image_id) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET image_id = excluded.image_id',
      name,
      imageId,
    );
  }

  removeDigest(name: string): void {
    this.#run('DELETE FROM image_digests WHERE name = ?', name);
  }

  // --- Files --------------------------------------------------------------------------------------

  layer(diffId: string): LayerRow | undefined {
    const row = this.#get('SELECT * FROM image_layers WHERE diff_id = ?', diffId);
    return row === undefined ? undefined : toLayer(row);
  }

  layers(): LayerRow[] {
    return this.#all('SELECT * FROM image_layers').map(toLayer);
  }

  putLayer({ diffId, squashfsBytes, tarBytes }: LayerRow): void {
    this.#run(
      'INSERT INTO image_layers (diff_id, squashfs_bytes, tar_bytes) VALUES (?, ?, ?) ON CONFLICT DO NOTHING',
      diffId,
      squashfsBytes,
      tarBytes,
    );
  }

  blob(digest: string): BlobRow | undefined {
    const row = this.#get('SELECT * FROM image_blobs WHERE digest = ?', digest);
    return row === undefined ? undefined : toBlob(row);
  }

  blobs(): BlobRow[] {
    return this.#all('SELECT * FROM image_blobs').map(toBlob);
  }

  /** Every stored form of the layer. */
  blobsOf(diffId: string): BlobRow[] {
    return this.#all('SELECT * FROM image_blobs WHERE diff_id = ? ORDER BY bytes', diffId).map(toBlob);
  }

  putBlob({ digest, bytes, compression, diffId }: BlobRow): void {
    this.#run(
      'INSERT INTO image_blobs (digest, bytes, compression, diff_id) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING',
      digest,
      bytes,
      compression,
      diffId,
    );
  }

  // --- References ---------------------------------------------------------------------------------

  hold(holder: string, target: string): void {
    this.#run(
      'INSERT INTO "references" (holder, target) VALUES (?, ?) ON CONFLICT DO NOTHING',
      holder,
      target,
    );
  }

  /** The holder lets go of everything. */
  drop(holder: string): void {
    this.#run('DELETE FROM "references" WHERE holder = ?', holder);
  }

  /** After a crash: what was going on then goes on no more. */
  dropLeases(): void {
    this.#run(`DELETE FROM "references" WHERE holder LIKE 'lease:%'`);
  }

  /** Images of other boot assets are held by their containers alone. */
  dropEmbedded(): void {
    this.#run(`DELETE FROM "references" WHERE holder LIKE 'embedded:%'`);
  }

  /** IDs of the containers that use the image. */
  containersOf(imageId: string): string[] {
    return this.#all(
      `SELECT holder FROM "references" WHERE target = ? AND holder LIKE 'container:%' ORDER BY holder`,
      `image:${imageId}`,
    ).map((row) => String(row.holder).slice('container:'.length));
  }

  /** Takes out what no root reaches. The caller removes the files. */
  collect(): Garbage {
    return this.transaction(() => {
      const images = this.#all(`${ALIVE} SELECT id FROM images WHERE 'image:' || id NOT IN alive`).map(
        (row) => String(row.id),
      );
      for (const id of images) {
        this.#run('DELETE FROM images WHERE id = ?', id);
        this.#run('DELETE FROM image_digests WHERE image_id = ?', id);
        this.drop(`image:${id}`);
      }
      const layers = this.#all(
        `${ALIVE} SELECT * FROM image_layers WHERE 'layer:' || diff_id NOT IN alive`,
      ).map(toLayer);
      const blobs = this.#all(`${ALIVE} SELECT * FROM image_blobs WHERE 'blob:' || digest NOT IN alive`).map(
        toBlob,
      );
      for (const { diffId } of layers) this.#run('DELETE FROM image_layers WHERE diff_id = ?', diffId);
      for (const { digest } of blobs) this.#run('DELETE FROM image_blobs WHERE digest = ?', digest);
      return { images, layers, blobs };
    });
  }

  #isNamed(imageId: string): boolean {
    return this.#get('SELECT 1 FROM image_names WHERE image_id = ?', imageId) !== undefined;
  }

  #statement(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (statement === undefined) {
      statement = this.#database.prepare(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }

  #get(sql: string, ...parameters: (string | number)[]): Record<string, SQLOutputValue> | undefined {
    return this.#statement(sql).get(...parameters);
  }

  #all(sql: string, ...parameters: (string | number)[]): Record<string, SQLOutputValue>[] {
    return this.#statement(sql).all(...parameters);
  }

  #run(sql: string, ...parameters: (string | number | Buffer)[]): void {
    this.#statement(sql).run(...parameters);
  }
}

type Row = Record<string, SQLOutputValue>;

function toImage(row: Row): ImageRow {
  return {
    id: String(row.id),
    config: Buffer.from(row.config as Uint8Array),
    manifest: Buffer.from(row.manifest as Uint8Array),
    manifestType: String(row.manifest_type),
  };
}

function toLayer(row: Row): LayerRow {
  return {
    diffId: String(row.diff_id),
    squashfsBytes: Number(row.squashfs_bytes),
    tarBytes: Number(row.tar_bytes),
  };
}

function toBlob(row: Row): BlobRow {
  return {
    digest: String(row.digest),
    bytes: Number(row.bytes),
    compression: String(row.compression) as Compression,
    diffId: String(row.diff_id),
  };
}

function toName(row: Row): { name: string; imageId: string } {
  return { name: String(row.name), imageId: String(row.image_id) };
}
