-- Jobs that survive whatever is killed: their place in a queue, their attempts, and who does them.
ALTER TABLE jobs ADD COLUMN queue        {text}  NOT NULL DEFAULT 'default';
ALTER TABLE jobs ADD COLUMN priority     BIGINT  NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN label        {text};
ALTER TABLE jobs ADD COLUMN owner        {text};
-- Of those with the same one, one may wait, and one may run: a job that is claimed keeps the second only.
ALTER TABLE jobs ADD COLUMN unique_key   {text};
ALTER TABLE jobs ADD COLUMN serial_key   {text};
-- The dead letter that this is another try of.
ALTER TABLE jobs ADD COLUMN retry_of     {text};
ALTER TABLE jobs ADD COLUMN run_at       {time};
ALTER TABLE jobs ADD COLUMN deadline_at  {time};
ALTER TABLE jobs ADD COLUMN input_bytes  BIGINT  NOT NULL DEFAULT 0;
-- Raised by every claim; whoever writes in the name of an earlier one is refused.
ALTER TABLE jobs ADD COLUMN token        BIGINT  NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN attempt      BIGINT  NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN max_attempts BIGINT  NOT NULL DEFAULT 1;
-- How many attempts ended because the process did.
ALTER TABLE jobs ADD COLUMN lost         BIGINT  NOT NULL DEFAULT 0;
-- Failed, and its input is kept so that somebody may try it again.
ALTER TABLE jobs ADD COLUMN dead_letter  BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE jobs ADD COLUMN progress     {json};
ALTER TABLE jobs ADD COLUMN log_tail     {json};
ALTER TABLE jobs ADD COLUMN revision     BIGINT  NOT NULL DEFAULT 0;
UPDATE jobs SET run_at = submitted_at;

DROP INDEX jobs_waiting;
-- By an expression that no other index has: a planner that knows nothing of the table yet would take one of
-- those, and with it walk over every job that has ended.
CREATE INDEX jobs_due ON jobs ((tenant_id || '/' || service_id || '/' || queue), priority DESC, run_at, id)
    WHERE status = 'pending';
CREATE INDEX jobs_running ON jobs (node) WHERE status = 'running';
CREATE INDEX jobs_ended ON jobs (finished_at) WHERE finished_at IS NOT NULL;
CREATE UNIQUE INDEX jobs_unique ON jobs (tenant_id, service_id, kind, unique_key)
    WHERE status = 'pending' AND unique_key IS NOT NULL;
CREATE INDEX jobs_serial ON jobs (tenant_id, service_id, kind, serial_key)
    WHERE serial_key IS NOT NULL AND status IN ('pending', 'running');

-- Inputs that are too large to be written again with every change of their job. They are written before
-- their job, so nothing here refers to it.
CREATE TABLE job_inputs (
    tenant_id  {text}   NOT NULL,
    service_id {text}   NOT NULL,
    job_id     {text}   NOT NULL,
    input      {bytes}  NOT NULL,
    created_at {time}   NOT NULL,
    PRIMARY KEY (tenant_id, service_id, job_id)
);

-- What steps of a job came to, each written once. With a node, it is of use on that node only.
CREATE TABLE job_steps (
    tenant_id   {text}  NOT NULL,
    service_id  {text}  NOT NULL,
    job_id      {text}  NOT NULL,
    name        {text}  NOT NULL,
    node        {text}  NOT NULL,
    result      {json}  NOT NULL,
    attempt     BIGINT  NOT NULL,
    started_at  {time}  NOT NULL,
    finished_at {time}  NOT NULL,
    PRIMARY KEY (tenant_id, service_id, job_id, name, node),
    FOREIGN KEY (tenant_id, service_id, job_id)
        REFERENCES jobs (tenant_id, service_id, id) ON DELETE CASCADE
);

CREATE INDEX job_steps_local ON job_steps (node) WHERE node <> '';

-- What jobs print, some lines to a row.
CREATE TABLE job_logs (
    tenant_id  {text}  NOT NULL,
    service_id {text}  NOT NULL,
    job_id     {text}  NOT NULL,
    first_seq  BIGINT  NOT NULL,
    last_seq   BIGINT  NOT NULL,
    lines      {json}  NOT NULL,
    PRIMARY KEY (tenant_id, service_id, job_id, first_seq),
    FOREIGN KEY (tenant_id, service_id, job_id)
        REFERENCES jobs (tenant_id, service_id, id) ON DELETE CASCADE
);

-- What clients called their requests, so that one that is sent again makes no second job.
CREATE TABLE job_keys (
    tenant_id   {text}  NOT NULL,
    service_id  {text}  NOT NULL,
    name        {text}  NOT NULL,
    fingerprint {text}  NOT NULL,
    job_id      {text}  NOT NULL,
    artifact_id {text},
    created_at  {time}  NOT NULL,
    PRIMARY KEY (tenant_id, service_id, name)
);
CREATE INDEX job_keys_created ON job_keys (created_at);

-- Queues that somebody has paused.
CREATE TABLE paused_queues (
    tenant_id  {text}  NOT NULL,
    service_id {text}  NOT NULL,
    queue      {text}  NOT NULL,
    paused_at  {time}  NOT NULL,
    PRIMARY KEY (tenant_id, service_id, queue)
);

-- Processes that do jobs, and until when the others may count on them.
CREATE TABLE nodes (
    id          {text}  NOT NULL PRIMARY KEY,
    lease_until {time}  NOT NULL
);
