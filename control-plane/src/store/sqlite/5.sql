-- Events up to this one may be forgotten.
CREATE TABLE forgotten (
  seq INTEGER NOT NULL
) STRICT;
INSERT INTO forgotten SELECT coalesce(min(seq), 1) - 1 FROM events;
