-- How often logging in failed of late: at an address, and to an account from there. An account is the SHA-256 of
-- an e-mail address, whether anybody has it or not, so that both are written alike; it is empty where the
-- address counts for every account.
DROP TABLE login_failures;
CREATE TABLE login_failures (
    tenant_id    {text} NOT NULL,
    service_id   {text} NOT NULL,
    account      {text} NOT NULL,
    address      {text} NOT NULL,
    failures     BIGINT NOT NULL,
    last_at      {time} NOT NULL,
    PRIMARY KEY (tenant_id, service_id, account, address)
);
CREATE INDEX login_failures_last ON login_failures (tenant_id, service_id, last_at);

ALTER TABLE users DROP COLUMN failed_logins;
ALTER TABLE users DROP COLUMN locked_until;
