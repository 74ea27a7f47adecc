-- What those who are told of alerts know.
CREATE TABLE notified (
  receiver text PRIMARY KEY,
  body     text NOT NULL
);
