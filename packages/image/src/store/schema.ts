/**
 * The tables of images, for a database that somebody else opens (the engine's `state.db`, so that a container and what
 * it refers to are written together).
 *
 * `"references"` says who names what. Holders that nobody names themselves are the roots: `name:…` (a tag), `kept:…` (an
 * image without a name that is still listed), `lease:…` (work that is going on), `container:…`, and whoever else
 * holds an image. An `image:…` holds its `layer:…`s and `blob:…`s. What no root reaches is garbage.
 */
export const IMAGE_TABLES = `
  CREATE TABLE images (
    -- sha256:… of its configuration.
    id             TEXT PRIMARY KEY,
    config         BLOB NOT NULL,
    -- As pulled, or made when it never had one.
    manifest       BLOB NOT NULL,
    manifest_type  TEXT NOT NULL,
    added_ms       INTEGER NOT NULL
  ) STRICT;

  -- Layers as squashfs, content/layers/<hex of diff_id>.
  CREATE TABLE image_layers (
    diff_id         TEXT PRIMARY KEY,
    squashfs_bytes  INTEGER NOT NULL,
    tar_bytes       INTEGER NOT NULL
  ) STRICT;

  -- Layers as they were pulled, content/sha256/<hex of digest>.
  CREATE TABLE image_blobs (
    digest       TEXT PRIMARY KEY,
    bytes        INTEGER NOT NULL,
    compression  TEXT NOT NULL,
    diff_id      TEXT NOT NULL
  ) STRICT;

  CREATE TABLE image_names (
    -- In full: docker.io/library/busybox:latest.
    name      TEXT PRIMARY KEY,
    image_id  TEXT NOT NULL
  ) STRICT;

  CREATE TABLE image_digests (
    -- In full: docker.io/library/busybox@sha256:…, as the registry knows it.
    name      TEXT PRIMARY KEY,
    image_id  TEXT NOT NULL
  ) STRICT;

  CREATE TABLE "references" (
    holder  TEXT NOT NULL,
    target  TEXT NOT NULL,
    PRIMARY KEY (holder, target)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX references_by_target ON "references" (target);
`;
