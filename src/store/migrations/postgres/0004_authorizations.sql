-- The scopes of an API client authorization in an order of their own, by which two
-- lists of them are compared; NULL: another kind.
ALTER TABLE credentials ADD COLUMN sorted_scopes TEXT COLLATE "C";
