-- How many keep a content to which no row refers: it is let go of when the last of them does.
ALTER TABLE blobs ADD COLUMN keeps BIGINT NOT NULL DEFAULT 0;
-- Who keeps what was kept before is not known: it stays for its time.
UPDATE blobs SET keeps = 1000 WHERE orphaned_at IS NOT NULL;
