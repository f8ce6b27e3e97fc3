-- Commands and functions that can be run again and again.
CREATE TABLE tasks (
    tenant_id  {text}   NOT NULL,
    service_id {text}   NOT NULL,
    id         {text}   NOT NULL,
    command    {text}   NOT NULL,
    task_type  {text}   NOT NULL,
    parameters {json},
    enabled    BOOLEAN  NOT NULL,
    revision   BIGINT   NOT NULL,
    created_at {time}   NOT NULL,
    updated_at {time}   NOT NULL,
    PRIMARY KEY (tenant_id, service_id, id)
);
