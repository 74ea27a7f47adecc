CREATE TABLE events (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  key TEXT NOT NULL UNIQUE,
  at_ns INTEGER NOT NULL,
  body TEXT NOT NULL
);
CREATE TABLE cursors (
  consumer TEXT PRIMARY KEY,
  seq INTEGER NOT NULL
);
CREATE TABLE sources (
  id TEXT PRIMARY KEY,
  origin TEXT NOT NULL,
  generation INTEGER NOT NULL,
  described INTEGER NOT NULL,
  descriptor TEXT,
  digest TEXT,
  present INTEGER NOT NULL,
  state TEXT NOT NULL,
  since_ns INTEGER NOT NULL,
  seen INTEGER NOT NULL
);
CREATE TABLE snapshots (
  origin TEXT PRIMARY KEY,
  generation INTEGER NOT NULL
);
CREATE TABLE history (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL,
  generation INTEGER NOT NULL,
  before TEXT,
  after TEXT NOT NULL,
  reason TEXT NOT NULL
);
CREATE INDEX history_by_id ON history (id, seq);
CREATE TABLE artefacts (
  digest TEXT PRIMARY KEY,
  kind TEXT NOT NULL,
  body TEXT NOT NULL
);
CREATE TABLE offers (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  manifest TEXT NOT NULL,
  pipeline TEXT NOT NULL,
  targets TEXT NOT NULL,
  body TEXT NOT NULL,
  at_ns INTEGER NOT NULL,
  applied INTEGER NOT NULL,
  answer TEXT NOT NULL
);
