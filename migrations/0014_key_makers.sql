-- The user who made a key, by itself or by another of its keys: the key may no more than that user. Null for
-- keys of the command line and of the settings' keys.
ALTER TABLE api_keys ADD COLUMN maker_id {text};
-- When another key took its place.
ALTER TABLE api_keys ADD COLUMN rotated_at {time};
UPDATE api_keys SET maker_id = substr(created_by, 6) WHERE created_by LIKE 'user:%';
CREATE INDEX api_keys_maker ON api_keys (tenant_id, service_id, maker_id);
