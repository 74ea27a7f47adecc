-- What those who are told of alerts know.
CREATE TABLE notified (
  receiver TEXT PRIMARY KEY,
  body     TEXT NOT NULL
) STRICT, WITHOUT ROWID;
