-- Who did what, when, and what came of it: a chain of each tenant, in which every entry has the hash of itself
-- and of the one before. Rows are added, and go from the oldest on when nobody has to keep them any more.
CREATE TABLE audit_entries (
    tenant_id  {text}  NOT NULL,
    -- `@`: entries belong to the deployment, and the next column but one is about whom they are.
    service_id {text}  NOT NULL,
    seq        BIGINT  NOT NULL,
    id         {text}  NOT NULL,
    at         {time}  NOT NULL,
    service    {text}  NOT NULL,
    actor      {text}  NOT NULL,
    address    {text},
    request    {text},
    action     {text}  NOT NULL,
    subject    {text}  NOT NULL,
    outcome    {text}  NOT NULL,
    before     {text},
    after      {text},
    hash       {bytes} NOT NULL,
    PRIMARY KEY (tenant_id, service_id, seq)
);
CREATE INDEX audit_entries_at ON audit_entries (tenant_id, service_id, at);
CREATE INDEX audit_entries_subject ON audit_entries (tenant_id, service_id, subject, seq);

-- Hashes of the chain, signed: until there nobody has changed anything since.
CREATE TABLE audit_heads (
    tenant_id  {text}  NOT NULL,
    service_id {text}  NOT NULL,
    seq        BIGINT  NOT NULL,
    hash       {bytes} NOT NULL,
    at         {time}  NOT NULL,
    kid        {text}  NOT NULL,
    public_key {bytes} NOT NULL,
    signature  {bytes} NOT NULL,
    PRIMARY KEY (tenant_id, service_id, seq)
);

-- Where the chain of a tenant begins since its oldest entries were removed: the last of those.
CREATE TABLE audit_anchors (
    tenant_id  {text}  NOT NULL,
    service_id {text}  NOT NULL,
    seq        BIGINT  NOT NULL,
    hash       {bytes} NOT NULL,
    at         {time}  NOT NULL,
    kid        {text}  NOT NULL,
    public_key {bytes} NOT NULL,
    signature  {bytes} NOT NULL,
    PRIMARY KEY (tenant_id, service_id)
);

-- Whoever may remove entries says here until which, in the transaction that removes them: otherwise there is
-- nothing here.
CREATE TABLE audit_removals (
    tenant_id {text} NOT NULL PRIMARY KEY,
    seq       BIGINT NOT NULL
);

{sqlite}
CREATE TRIGGER audit_entries_stay BEFORE UPDATE ON audit_entries
BEGIN
    SELECT RAISE(ABORT, 'entries of the audit are not changed');
END;
CREATE TRIGGER audit_entries_are_kept BEFORE DELETE ON audit_entries
WHEN NOT EXISTS (SELECT 1 FROM audit_removals WHERE tenant_id = OLD.tenant_id AND seq >= OLD.seq)
BEGIN
    SELECT RAISE(ABORT, 'entries of the audit are not removed');
END;
{end}

{postgres}
CREATE FUNCTION audit_entries_stay() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND EXISTS (
        SELECT 1 FROM audit_removals WHERE tenant_id = OLD.tenant_id AND seq >= OLD.seq) THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'entries of the audit are neither changed nor removed';
END
$$;
CREATE TRIGGER audit_entries_stay BEFORE UPDATE OR DELETE ON audit_entries
FOR EACH ROW EXECUTE FUNCTION audit_entries_stay();
CREATE FUNCTION audit_entries_are_kept() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'entries of the audit are not removed';
END
$$;
CREATE TRIGGER audit_entries_are_kept BEFORE TRUNCATE ON audit_entries
FOR EACH STATEMENT EXECUTE FUNCTION audit_entries_are_kept();
{end}
