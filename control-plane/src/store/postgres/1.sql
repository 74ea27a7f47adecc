CREATE TABLE events (
  seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  key TEXT NOT NULL UNIQUE,
  at_ns BIGINT NOT NULL,
  body TEXT NOT NULL
);
CREATE TABLE cursors (
  consumer TEXT PRIMARY KEY,
  seq BIGINT NOT NULL
);
CREATE TABLE sources (
  id TEXT COLLATE "C" PRIMARY KEY,
  origin TEXT NOT NULL,
  generation BIGINT NOT NULL,
  described BIGINT NOT NULL,
  descriptor TEXT,
  digest TEXT,
  present BOOLEAN NOT NULL,
  state TEXT NOT NULL,
  since_ns BIGINT NOT NULL,
  seen BOOLEAN NOT NULL
);
CREATE TABLE snapshots (
  origin TEXT PRIMARY KEY,
  generation BIGINT NOT NULL
);
CREATE TABLE history (
  seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  id TEXT NOT NULL,
  generation BIGINT NOT NULL,
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
  seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  manifest TEXT NOT NULL,
  pipeline TEXT NOT NULL,
  targets TEXT NOT NULL,
  body TEXT NOT NULL,
  at_ns BIGINT NOT NULL,
  applied BOOLEAN NOT NULL,
  answer TEXT NOT NULL
);
CREATE TABLE leases (
  rollout_group TEXT PRIMARY KEY,
  holder TEXT NOT NULL,
  epoch BIGINT NOT NULL,
  until_ms BIGINT NOT NULL
);
CREATE TABLE rollouts (
  rollout_group TEXT COLLATE "C" PRIMARY KEY,
  step BIGINT NOT NULL,
  state TEXT NOT NULL
);
CREATE TABLE rollout_steps (
  rollout_group TEXT NOT NULL,
  step BIGINT NOT NULL,
  epoch BIGINT NOT NULL,
  at_ms BIGINT NOT NULL,
  phase TEXT NOT NULL,
  input TEXT NOT NULL,
  PRIMARY KEY (rollout_group, step)
);
CREATE TABLE rollout_pins (
  rollout_group TEXT NOT NULL,
  digest TEXT NOT NULL,
  PRIMARY KEY (rollout_group, digest)
);
CREATE TABLE rollout_inputs (
  seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  rollout_group TEXT COLLATE "C" NOT NULL,
  key TEXT NOT NULL,
  body TEXT,
  UNIQUE (rollout_group, key)
);
CREATE TABLE applied (
  seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  rollout_group TEXT NOT NULL,
  digest TEXT NOT NULL,
  parent TEXT,
  cause TEXT NOT NULL,
  author TEXT NOT NULL,
  at_ms BIGINT NOT NULL
);
CREATE INDEX applied_by_group ON applied (rollout_group, seq);
CREATE TABLE counters (
  name TEXT PRIMARY KEY,
  value BIGINT NOT NULL
);
CREATE TABLE releases (
  version BIGINT PRIMARY KEY,
  rollout_group TEXT NOT NULL,
  digest TEXT NOT NULL,
  cause TEXT NOT NULL,
  key TEXT NOT NULL,
  signature TEXT NOT NULL,
  at_ms BIGINT NOT NULL
);
CREATE INDEX releases_by_group ON releases (rollout_group, version);
CREATE TABLE certificates (
  serial TEXT COLLATE "C" PRIMARY KEY,
  uid TEXT NOT NULL,
  request TEXT NOT NULL,
  pem TEXT NOT NULL,
  author TEXT NOT NULL,
  issued_ms BIGINT NOT NULL,
  ends_ms BIGINT NOT NULL,
  used_ms BIGINT,
  revoked_ms BIGINT
);
CREATE INDEX certificates_by_uid ON certificates (uid);
CREATE TABLE audit (
  seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at_ms BIGINT NOT NULL,
  body TEXT NOT NULL
);
