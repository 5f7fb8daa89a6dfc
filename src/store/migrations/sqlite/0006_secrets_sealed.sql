-- Apart from the other one, so that the table is locked no longer than for one.
CREATE INDEX secrets_sealed ON secrets (pepper_id, id) WHERE sealed IS NOT NULL;
