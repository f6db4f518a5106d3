import { IMAGE_TABLES } from '@arcbox/image';

/** The schema of `state.db`, as steps: `user_version` counts those that were taken. A step is never changed. */
export const MIGRATIONS: readonly string[] = [
  `
  CREATE TABLE machines (
    name    TEXT PRIMARY KEY,
    -- What VmDriver.adopt needs, as JSON; NULL while no machine is running.
    handle  TEXT
  ) STRICT;

  CREATE TABLE layers (
    -- The layer's short name in every guest: mounted at /l/<number>.
    number  INTEGER PRIMARY KEY AUTOINCREMENT,
    digest  TEXT NOT NULL UNIQUE
  ) STRICT;

  CREATE TABLE containers (
    id               TEXT PRIMARY KEY,
    name             TEXT NOT NULL UNIQUE,
    state            TEXT NOT NULL,
    -- How many times it has been started.
    run              INTEGER NOT NULL,
    machine          TEXT NOT NULL,
    image_id         TEXT NOT NULL,
    -- ContainerConfig as JSON.
    config           TEXT NOT NULL,
    -- What a client may send to make the same creation twice without making two containers.
    idempotency_key  TEXT UNIQUE,
    created_ms       INTEGER NOT NULL,
    started_ms       INTEGER,
    finished_ms      INTEGER,
    exit_code        INTEGER,
    error            TEXT NOT NULL
  ) STRICT;
  `,
  `
  -- SavedMachine as JSON while the machine has idled down; NULL otherwise. Never together with a handle.
  ALTER TABLE machines ADD COLUMN saved TEXT;
  `,
  `
  ALTER TABLE containers ADD COLUMN restarts INTEGER NOT NULL DEFAULT 0;
  ALTER TABLE containers ADD COLUMN stopped_by_user INTEGER NOT NULL DEFAULT 0;
  `,
  `
  CREATE TABLE networks (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    vlan        INTEGER NOT NULL UNIQUE,
    subnet      TEXT NOT NULL,
    gateway     TEXT NOT NULL,
    range       TEXT,
    internal    INTEGER NOT NULL,
    labels      TEXT NOT NULL,
    created_ms  INTEGER NOT NULL
  ) STRICT;

  CREATE TABLE endpoints (
    -- Names the cable in a guest, and is never given out twice.
    number        INTEGER PRIMARY KEY AUTOINCREMENT,
    network_id    TEXT NOT NULL REFERENCES networks (id),
    container_id  TEXT NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
    position      INTEGER NOT NULL,
    address       TEXT NOT NULL,
    mac           TEXT NOT NULL,
    aliases       TEXT NOT NULL,
    UNIQUE (network_id, container_id)
  ) STRICT;
  `,
  IMAGE_TABLES,
  `
  -- A container holds its image from its first moment to its last.
  INSERT INTO "references" (holder, target) SELECT 'container:' || id, 'image:' || image_id FROM containers;
  CREATE TRIGGER container_holds_image AFTER INSERT ON containers BEGIN
    INSERT INTO "references" (holder, target) VALUES ('container:' || NEW.id, 'image:' || NEW.image_id);
  END;
  CREATE TRIGGER container_drops_image AFTER DELETE ON containers BEGIN
    DELETE FROM "references" WHERE holder = 'container:' || OLD.id;
  END;
  `,
  `
  CREATE TABLE volumes (
    -- The volume's short name in every guest: mounted at /v/<number>. Never given out twice.
    number      INTEGER PRIMARY KEY AUTOINCREMENT,
    name        TEXT NOT NULL UNIQUE,
    -- new, made or removing.
    state       TEXT NOT NULL,
    anonymous   INTEGER NOT NULL,
    -- An object as JSON.
    labels      TEXT NOT NULL,
    size_bytes  INTEGER NOT NULL,
    created_ms  INTEGER NOT NULL
  ) STRICT;
  `,
  `
  CREATE TABLE policies (
    -- container or machine.
    kind    TEXT NOT NULL,
    -- A container's ID, a machine's name.
    id      TEXT NOT NULL,
    -- RulePolicy as JSON.
    policy  TEXT NOT NULL,
    PRIMARY KEY (kind, id)
  ) STRICT;
  CREATE TRIGGER container_drops_policy AFTER DELETE ON containers BEGIN
    DELETE FROM policies WHERE kind = 'container' AND id = OLD.id;
  END;
  `,
  `
  -- What a machine is made of; NULL: what the configuration says.
  ALTER TABLE machines ADD COLUMN cpus INTEGER;
  ALTER TABLE machines ADD COLUMN memory_mib INTEGER;
  ALTER TABLE machines ADD COLUMN disk_bytes INTEGER;
  ALTER TABLE machines ADD COLUMN created_ms INTEGER NOT NULL DEFAULT 0;
  -- Its removal has begun.
  ALTER TABLE machines ADD COLUMN removing INTEGER NOT NULL DEFAULT 0;
  CREATE TRIGGER machine_drops_policy AFTER DELETE ON machines BEGIN
    DELETE FROM policies WHERE kind = 'machine' AND id = OLD.name;
  END;
  `,
  `
  -- IPv6 beside IPv4; NULL: none.
  ALTER TABLE networks ADD COLUMN subnet6 TEXT;
  ALTER TABLE networks ADD COLUMN gateway6 TEXT;
  ALTER TABLE networks ADD COLUMN range6 TEXT;
  ALTER TABLE endpoints ADD COLUMN address6 TEXT;
  `,
];
