-- +goose Up
-- Room is left in each page, so that a new version of a record stays in it and the
-- index is not touched; what is sealed does not compress.
CREATE TABLE records (
    id      bytea  NOT NULL PRIMARY KEY,
    version bigint NOT NULL,
    data    bytea  NOT NULL
) WITH (fillfactor = 75);
ALTER TABLE records ALTER COLUMN data SET STORAGE EXTERNAL;

-- +goose Down
DROP TABLE records;
