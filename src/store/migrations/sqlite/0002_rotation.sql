-- When a secret that was replaced was first shown again; NULL: it was not.
ALTER TABLE secrets ADD COLUMN reused_at INTEGER;
