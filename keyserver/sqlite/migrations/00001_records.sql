-- +goose Up
CREATE TABLE records (
    id      BLOB    NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    data    BLOB    NOT NULL
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE records;
