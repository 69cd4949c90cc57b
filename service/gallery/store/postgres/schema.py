"""The tables of a gallery in PostgreSQL, by version: each version's statements make it of the one before.

They are those of SQLite (`store/sqlite.py`), in the schema that the address names. Ids compare by their bytes (C).
"""

from __future__ import annotations

_FIRST = """
CREATE TABLE gallery (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE SEQUENCE image_keys AS BIGINT;
CREATE TABLE images (
    key BIGINT PRIMARY KEY,
    id TEXT COLLATE "C" NOT NULL UNIQUE,
    media_type TEXT NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    metadata TEXT NOT NULL,
    path BYTEA
);
CREATE TABLE contents (
    key BIGINT PRIMARY KEY REFERENCES images ON UPDATE CASCADE ON DELETE CASCADE,
    data BYTEA NOT NULL
);
ALTER TABLE contents ALTER COLUMN data SET STORAGE EXTERNAL;
CREATE TABLE codes (
    key BIGINT NOT NULL REFERENCES images ON UPDATE CASCADE ON DELETE CASCADE,
    encoder_id TEXT COLLATE "C" NOT NULL,
    code BYTEA NOT NULL,
    PRIMARY KEY (key, encoder_id)
);
CREATE TABLE removed (seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, key BIGINT NOT NULL);
CREATE FUNCTION record_removal() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
    BEGIN INSERT INTO removed (key) VALUES (OLD.key); RETURN NULL; END
$$;
CREATE TRIGGER image_removed AFTER DELETE ON images FOR EACH ROW EXECUTE FUNCTION record_removal();
CREATE TABLE folders (
    name TEXT COLLATE "C" PRIMARY KEY,
    path BYTEA NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    follow_links INTEGER NOT NULL,
    boundary BYTEA
);
CREATE TABLE files (
    key BIGINT PRIMARY KEY REFERENCES images ON UPDATE CASCADE ON DELETE CASCADE,
    folder TEXT NOT NULL,
    size BIGINT NOT NULL,
    mtime_ns BIGINT NOT NULL
);
CREATE INDEX files_of_folder ON files (folder);
CREATE TABLE jobs (
    rowid BIGINT GENERATED ALWAYS AS IDENTITY,
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    stage TEXT NOT NULL DEFAULT '',
    done BIGINT NOT NULL DEFAULT 0,
    total BIGINT NOT NULL DEFAULT 0,
    options TEXT NOT NULL DEFAULT '{}',
    error TEXT,
    generation BIGINT,
    created TEXT NOT NULL,
    finished TEXT,
    result TEXT
);
"""
MIGRATIONS: tuple[str, ...] = (_FIRST,)

# Columns of the tables that both databases have, by which one is copied to the other; each is ordered by its first
# columns.
TABLES: dict[str, tuple[str, ...]] = {
    "images": ("key", "id", "media_type", "width", "height", "sha256", "metadata", "path"),
    "contents": ("key", "data"),
    "codes": ("key", "encoder_id", "code"),
    "removed": ("seq", "key"),
    "folders": ("name", "path", "kind", "follow_links", "boundary"),
    "files": ("key", "folder", "size", "mtime_ns"),
    "jobs": (
        "rowid",
        "id",
        "kind",
        "state",
        "stage",
        "done",
        "total",
        "options",
        "error",
        "generation",
        "created",
        "finished",
        "result",
    ),
}
