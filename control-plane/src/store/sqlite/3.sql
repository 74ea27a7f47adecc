CREATE TABLE applied (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  rollout_group TEXT NOT NULL,
  digest TEXT NOT NULL,
  parent TEXT,
  cause TEXT NOT NULL,
  author TEXT NOT NULL,
  at_ms INTEGER NOT NULL
);
CREATE INDEX applied_by_group ON applied (rollout_group, seq);
CREATE TABLE counters (
  name TEXT PRIMARY KEY,
  value INTEGER NOT NULL
);
CREATE TABLE releases (
  version INTEGER PRIMARY KEY,
  rollout_group TEXT NOT NULL,
  digest TEXT NOT NULL,
  cause TEXT NOT NULL,
  key TEXT NOT NULL,
  signature TEXT NOT NULL,
  at_ms INTEGER NOT NULL
);
CREATE INDEX releases_by_group ON releases (rollout_group, version);
CREATE TABLE certificates (
  serial TEXT PRIMARY KEY,
  uid TEXT NOT NULL,
  request TEXT NOT NULL,
  pem TEXT NOT NULL,
  author TEXT NOT NULL,
  issued_ms INTEGER NOT NULL,
  ends_ms INTEGER NOT NULL,
  used_ms INTEGER,
  revoked_ms INTEGER
);
CREATE INDEX certificates_by_uid ON certificates (uid);
