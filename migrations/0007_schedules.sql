-- What begins work by the clock. It has `expression` and `time_zone`, or `every_seconds` and `anchor`.
-- `next_tick` is the time that is next by the trigger, `next_at` the same with its jitter: when it is
-- begun. Both are null when it is paused or over.
CREATE TABLE schedules (
    tenant_id      {text}   NOT NULL,
    service_id     {text}   NOT NULL,
    id             {text}   NOT NULL,
    name           {text}   NOT NULL,
    enabled        BOOLEAN  NOT NULL,
    expression     {text},
    time_zone      {text},
    every_seconds  BIGINT,
    anchor         {time},
    kind           {text}   NOT NULL,
    input          {json}   NOT NULL,
    misfire        {text}   NOT NULL,
    overlap        {text}   NOT NULL,
    jitter_seconds BIGINT   NOT NULL,
    owner          {text}   NOT NULL,
    next_tick      {time},
    next_at        {time},
    last_at        {time},
    revision       BIGINT   NOT NULL,
    created_at     {time}   NOT NULL,
    updated_at     {time}   NOT NULL,
    PRIMARY KEY (tenant_id, service_id, id)
);
CREATE INDEX schedules_next ON schedules (tenant_id, service_id, next_at) WHERE next_at IS NOT NULL;

-- What came of each time. The key is why none begins twice. `settled` when its job is known to have
-- ended, so that nobody asks again.
CREATE TABLE schedule_runs (
    tenant_id   {text}   NOT NULL,
    service_id  {text}   NOT NULL,
    schedule_id {text}   NOT NULL,
    tick_at     {time}   NOT NULL,
    fired_at    {time}   NOT NULL,
    outcome     {text}   NOT NULL,
    manual      BOOLEAN  NOT NULL,
    job_id      {text},
    settled     BOOLEAN  NOT NULL,
    error       {text},
    PRIMARY KEY (tenant_id, service_id, schedule_id, tick_at),
    FOREIGN KEY (tenant_id, service_id, schedule_id)
        REFERENCES schedules (tenant_id, service_id, id) ON DELETE CASCADE
);
