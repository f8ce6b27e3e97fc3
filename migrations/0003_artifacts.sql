-- What came of training and prediction, as a forest. `data` is without its `content`, which is
-- small and in `content`, or in a blob; no list ever touches it.
CREATE TABLE artifacts (
    tenant_id  {text}  NOT NULL,
    service_id {text}  NOT NULL,
    id         {text}  NOT NULL,
    parent_id  {text},
    level      BIGINT  NOT NULL,
    tags       {json}  NOT NULL,
    data       {json}  NOT NULL,
    revision   BIGINT  NOT NULL,
    created_at {time}  NOT NULL,
    updated_at {time}  NOT NULL,
    -- Where in `data` the content belongs; null when there is none.
    content_at    BIGINT,
    content_form  {text},
    content       {text},
    content_hash  {text},
    content_bytes BIGINT,
    PRIMARY KEY (tenant_id, service_id, id)
);
CREATE INDEX artifacts_parent ON artifacts (tenant_id, service_id, parent_id);
CREATE INDEX artifacts_created ON artifacts (tenant_id, service_id, created_at, id);

-- Which config a tree of artifacts was made with. A root belongs to one config at most.
CREATE TABLE config_artifacts (
    tenant_id   {text}  NOT NULL,
    service_id  {text}  NOT NULL,
    config_id   {text}  NOT NULL,
    artifact_id {text}  NOT NULL,
    PRIMARY KEY (tenant_id, service_id, artifact_id),
    FOREIGN KEY (tenant_id, service_id, config_id)
        REFERENCES configs (tenant_id, service_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, service_id, artifact_id)
        REFERENCES artifacts (tenant_id, service_id, id) ON DELETE CASCADE
);
CREATE INDEX config_artifacts_config ON config_artifacts (tenant_id, service_id, config_id);
