-- How many keep a content to which no row refers: it is let go of when the last of them does.
ALTER TABLE blobs ADD COLUMN keeps BIGINT NOT NULL DEFAULT 0;
