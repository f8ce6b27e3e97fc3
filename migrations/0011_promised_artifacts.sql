-- Whether a job that has not ended has promised a result under this id.
CREATE INDEX jobs_promised ON jobs (tenant_id, service_id, promised_id)
    WHERE promised_id IS NOT NULL AND status IN ('pending', 'running');
