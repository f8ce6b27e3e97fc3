-- Content of any size. The object itself is in a directory or an object store.
CREATE TABLE blobs (
    tenant_id    {text}   NOT NULL,
    service_id   {text}   NOT NULL,
    hash         {text}   NOT NULL,
    size_bytes   BIGINT   NOT NULL,
    stored_bytes BIGINT   NOT NULL,
    object_key   {text}   NOT NULL,
    compressed   BOOLEAN  NOT NULL,
    chunks       {json}   NOT NULL,
    refs         BIGINT   NOT NULL,
    created_at   {time}   NOT NULL,
    orphaned_at  {time},
    PRIMARY KEY (tenant_id, service_id, hash)
);
CREATE INDEX blobs_orphaned ON blobs (tenant_id, service_id, orphaned_at) WHERE orphaned_at IS NOT NULL;
