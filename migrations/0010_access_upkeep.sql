-- Shows that a process has the deployment's secret: a known text, sealed with it.
CREATE TABLE secret_checks (
    tenant_id  {text}  NOT NULL,
    service_id {text}  NOT NULL,
    sealed     {bytes} NOT NULL,
    created_at {time}  NOT NULL,
    PRIMARY KEY (tenant_id, service_id)
);

-- How often somebody at an address asked for a new password of late.
CREATE TABLE reset_requests (
    tenant_id  {text} NOT NULL,
    service_id {text} NOT NULL,
    address    {text} NOT NULL,
    requests   BIGINT NOT NULL,
    last_at    {time} NOT NULL,
    PRIMARY KEY (tenant_id, service_id, address)
);

-- What is over is removed now and then. A session takes its refresh tokens along.
CREATE INDEX sessions_expire ON sessions (tenant_id, service_id, expires_at);
CREATE INDEX refresh_tokens_session ON refresh_tokens (tenant_id, service_id, session_id);
CREATE INDEX mailed_links_expire ON mailed_links (tenant_id, service_id, expires_at);
CREATE INDEX login_failures_last ON login_failures (tenant_id, service_id, last_at);
