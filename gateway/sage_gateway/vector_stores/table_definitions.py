"""SQLite tables of vector stores. A new one is added in place, so no table gets another column."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS stores (
    seq INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, tenant TEXT NOT NULL, model TEXT NOT NULL,
    dim INTEGER NOT NULL, active_at INTEGER NOT NULL, page TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS attachments (
    seq INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, store TEXT NOT NULL, file TEXT NOT NULL,
    tenant TEXT NOT NULL, key TEXT NOT NULL, version TEXT NOT NULL, status TEXT NOT NULL,
    usage INTEGER NOT NULL, expires_at INTEGER, page TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS attachments_store ON attachments (store, status, usage);
CREATE INDEX IF NOT EXISTS attachments_tenant ON attachments (tenant, file);
CREATE INDEX IF NOT EXISTS attachments_version ON attachments (version, status);
CREATE TABLE IF NOT EXISTS file_batches (
    seq INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, store TEXT NOT NULL,
    created_at INTEGER NOT NULL, cancelled INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS file_batches_store ON file_batches (store);
CREATE TRIGGER IF NOT EXISTS batches_of_deleted_store AFTER DELETE ON stores BEGIN
    DELETE FROM file_batches WHERE store = old.id;
END;
CREATE TABLE IF NOT EXISTS pending_deletes (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, store TEXT NOT NULL, dim INTEGER NOT NULL,
    file TEXT NOT NULL,
    kept_version TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS pending_attributes (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, attachment TEXT UNIQUE NOT NULL);
CREATE TRIGGER IF NOT EXISTS attributes_of_deleted_file AFTER DELETE ON attachments BEGIN
    DELETE FROM pending_attributes WHERE attachment = old.id;
END;
"""
