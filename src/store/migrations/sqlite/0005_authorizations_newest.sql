-- For lists of everybody's. The last condition, which always holds, stands in those
-- alone: what leads to one user's is another index, however few the user has.
CREATE INDEX credentials_newest ON credentials (created_at, id)
    WHERE kind = 'api_client_authorization' AND revoked_at IS NULL AND length(kind) > 0;
