-- Work that is done after the answer. `input` goes when the job has ended.
CREATE TABLE jobs (
    tenant_id    {text}  NOT NULL,
    service_id   {text}  NOT NULL,
    id           {text}  NOT NULL,
    kind         {text}  NOT NULL,
    status       {text}  NOT NULL,
    input        {bytes},
    -- The id that the result is to have, and the result once there is one.
    promised_id  {text},
    artifact_id  {text},
    error        {text},
    error_traceback {text},
    node         {text},
    submitted_at {time}  NOT NULL,
    started_at   {time},
    finished_at  {time},
    PRIMARY KEY (tenant_id, service_id, id)
);
CREATE INDEX jobs_waiting ON jobs (tenant_id, service_id, id) WHERE status = 'pending';
CREATE INDEX jobs_submitted ON jobs (tenant_id, service_id, submitted_at, id);
