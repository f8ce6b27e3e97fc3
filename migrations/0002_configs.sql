-- How a model is to be trained, as its users set it.
CREATE TABLE configs (
    tenant_id  {text}  NOT NULL,
    service_id {text}  NOT NULL,
    id         {text}  NOT NULL,
    name       {text}  NOT NULL,
    tags       {json}  NOT NULL,
    data       {json}  NOT NULL,
    revision   BIGINT  NOT NULL,
    created_at {time}  NOT NULL,
    updated_at {time}  NOT NULL,
    PRIMARY KEY (tenant_id, service_id, id)
);
CREATE INDEX configs_created ON configs (tenant_id, service_id, created_at, id);
