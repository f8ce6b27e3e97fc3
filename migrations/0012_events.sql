-- What has happened and was not taken yet into the audit. A row is written by the transaction of what it
-- tells of.
CREATE TABLE events (
    tenant_id  {text} NOT NULL,
    service_id {text} NOT NULL,
    id         {text} NOT NULL,
    at         {time} NOT NULL,
    -- A user, a key, or what part of the service it is.
    actor      {text} NOT NULL,
    address    {text},
    request    {text},
    -- Of what kind the subject is and what was done to it, such as `config.updated`.
    action     {text} NOT NULL,
    subject    {text} NOT NULL,
    -- `done` or `denied`.
    outcome    {text} NOT NULL,
    -- JSON, as text: what is hashed later is this very text.
    before     {text},
    after      {text},
    PRIMARY KEY (tenant_id, id)
);
