CREATE TABLE leases (
  rollout_group TEXT PRIMARY KEY,
  holder TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  until_ms INTEGER NOT NULL
);
CREATE TABLE rollouts (
  rollout_group TEXT PRIMARY KEY,
  step INTEGER NOT NULL,
  state TEXT NOT NULL
);
CREATE TABLE rollout_steps (
  rollout_group TEXT NOT NULL,
  step INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  at_ms INTEGER NOT NULL,
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
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  rollout_group TEXT NOT NULL,
  key TEXT NOT NULL,
  body TEXT,
  UNIQUE (rollout_group, key)
);
