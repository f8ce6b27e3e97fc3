-- Who may come in. These rows belong to the deployment and not to one of its services: their service is `@`,
-- which is no service's id.
CREATE TABLE users (
    tenant_id           {text}  NOT NULL,
    service_id          {text}  NOT NULL,
    id                  {text}  NOT NULL,
    -- In lower case.
    email               {text}  NOT NULL,
    name                {text}  NOT NULL,
    -- `invited`, `active` or `disabled`.
    status              {text}  NOT NULL,
    -- In PHC format; null until it is chosen.
    password_hash       {text},
    password_changed_at {time},
    factor_required     BOOLEAN NOT NULL DEFAULT FALSE,
    failed_logins       BIGINT  NOT NULL DEFAULT 0,
    locked_until        {time},
    last_login_at       {time},
    revision            BIGINT  NOT NULL,
    created_at          {time}  NOT NULL,
    updated_at          {time}  NOT NULL,
    PRIMARY KEY (tenant_id, service_id, id)
);
CREATE UNIQUE INDEX users_email ON users (tenant_id, service_id, email);

-- Roles beside those that the program brings.
CREATE TABLE roles (
    tenant_id   {text} NOT NULL,
    service_id  {text} NOT NULL,
    name        {text} NOT NULL,
    description {text} NOT NULL,
    -- Names of permissions, with `*` for any noun or verb.
    permissions {json} NOT NULL,
    -- The roles that it has all permissions of.
    inherits    {json} NOT NULL,
    revision    BIGINT NOT NULL,
    created_at  {time} NOT NULL,
    updated_at  {time} NOT NULL,
    PRIMARY KEY (tenant_id, service_id, name)
);

-- Who has which role, everywhere (`*`) or in one service.
CREATE TABLE role_bindings (
    tenant_id  {text} NOT NULL,
    service_id {text} NOT NULL,
    -- A user or a key.
    subject_id {text} NOT NULL,
    role       {text} NOT NULL,
    applies_to {text} NOT NULL,
    created_at {time} NOT NULL,
    PRIMARY KEY (tenant_id, service_id, subject_id, role, applies_to)
);

CREATE TABLE api_keys (
    tenant_id       {text}  NOT NULL,
    service_id      {text}  NOT NULL,
    id              {text}  NOT NULL,
    name            {text}  NOT NULL,
    -- What the key begins with, for people.
    prefix          {text}  NOT NULL,
    -- SHA-256 of all of it: it has 256 random bits, so nobody guesses.
    hash            {bytes} NOT NULL,
    -- Permissions that it is limited to; empty: all of its roles'.
    scopes          {json}  NOT NULL,
    -- Networks from which it may be used; empty: any.
    addresses       {json}  NOT NULL,
    per_minute      BIGINT,
    created_by      {text}  NOT NULL,
    expires_at      {time},
    revoked_at      {time},
    last_used_at    {time},
    revision        BIGINT  NOT NULL,
    created_at      {time}  NOT NULL,
    updated_at      {time}  NOT NULL,
    PRIMARY KEY (tenant_id, service_id, id)
);
CREATE UNIQUE INDEX api_keys_hash ON api_keys (hash);

-- Where somebody is logged in: a browser with a cookie, or a program with tokens.
CREATE TABLE sessions (
    tenant_id    {text}  NOT NULL,
    service_id   {text}  NOT NULL,
    id           {text}  NOT NULL,
    user_id      {text}  NOT NULL,
    -- `cookie` or `token`.
    kind         {text}  NOT NULL,
    -- SHA-256 of the cookie; null for tokens.
    hash         {bytes},
    address      {text}  NOT NULL,
    user_agent   {text}  NOT NULL,
    -- When a second factor was last shown, if it was.
    factor_at    {time},
    -- When the user last proved who it is.
    proved_at    {time}  NOT NULL,
    last_seen_at {time}  NOT NULL,
    expires_at   {time}  NOT NULL,
    revoked_at   {time},
    created_at   {time}  NOT NULL,
    PRIMARY KEY (tenant_id, service_id, id),
    FOREIGN KEY (tenant_id, service_id, user_id)
        REFERENCES users (tenant_id, service_id, id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX sessions_hash ON sessions (hash) WHERE hash IS NOT NULL;
CREATE INDEX sessions_user ON sessions (tenant_id, service_id, user_id);

-- Each is used once; one that comes again ends its session.
CREATE TABLE refresh_tokens (
    tenant_id  {text}  NOT NULL,
    service_id {text}  NOT NULL,
    hash       {bytes} NOT NULL,
    session_id {text}  NOT NULL,
    expires_at {time}  NOT NULL,
    used_at    {time},
    created_at {time}  NOT NULL,
    PRIMARY KEY (tenant_id, service_id, hash),
    FOREIGN KEY (tenant_id, service_id, session_id)
        REFERENCES sessions (tenant_id, service_id, id) ON DELETE CASCADE
);

-- Keys that sign access tokens. The private part is sealed with the deployment's secret.
CREATE TABLE signing_keys (
    tenant_id   {text}  NOT NULL,
    service_id  {text}  NOT NULL,
    id          {text}  NOT NULL,
    public_key  {bytes} NOT NULL,
    private_key {bytes} NOT NULL,
    -- Signs from then on, and not after.
    created_at  {time}  NOT NULL,
    retired_at  {time},
    PRIMARY KEY (tenant_id, service_id, id)
);

-- Second factors by time (RFC 6238). The secret is sealed with the deployment's.
CREATE TABLE factors (
    tenant_id    {text}  NOT NULL,
    service_id   {text}  NOT NULL,
    user_id      {text}  NOT NULL,
    secret       {bytes} NOT NULL,
    -- Null until the first code was right.
    confirmed_at {time},
    -- The last step whose code was used.
    last_step    BIGINT  NOT NULL DEFAULT 0,
    created_at   {time}  NOT NULL,
    PRIMARY KEY (tenant_id, service_id, user_id),
    FOREIGN KEY (tenant_id, service_id, user_id)
        REFERENCES users (tenant_id, service_id, id) ON DELETE CASCADE
);

CREATE TABLE recovery_codes (
    tenant_id  {text}  NOT NULL,
    service_id {text}  NOT NULL,
    user_id    {text}  NOT NULL,
    hash       {bytes} NOT NULL,
    used_at    {time},
    PRIMARY KEY (tenant_id, service_id, user_id, hash),
    FOREIGN KEY (tenant_id, service_id, user_id)
        REFERENCES users (tenant_id, service_id, id) ON DELETE CASCADE
);

-- Links that were sent: invitations and resets of passwords.
CREATE TABLE mailed_links (
    tenant_id  {text}  NOT NULL,
    service_id {text}  NOT NULL,
    hash       {bytes} NOT NULL,
    user_id    {text}  NOT NULL,
    -- `invitation` or `reset`.
    purpose    {text}  NOT NULL,
    expires_at {time}  NOT NULL,
    used_at    {time},
    created_at {time}  NOT NULL,
    PRIMARY KEY (tenant_id, service_id, hash),
    FOREIGN KEY (tenant_id, service_id, user_id)
        REFERENCES users (tenant_id, service_id, id) ON DELETE CASCADE
);

-- How often somebody at an address failed to log in of late.
CREATE TABLE login_failures (
    tenant_id    {text} NOT NULL,
    service_id   {text} NOT NULL,
    address      {text} NOT NULL,
    failures     BIGINT NOT NULL,
    last_at      {time} NOT NULL,
    PRIMARY KEY (tenant_id, service_id, address)
);
