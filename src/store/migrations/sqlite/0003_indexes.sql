-- Apart from the change of the table, whose lock keeps everybody from reading.
CREATE INDEX secrets_superseded ON secrets (expires_at) WHERE state = 'superseded';
CREATE INDEX credentials_of_user_not_revoked ON credentials (user_id, created_at, id) WHERE revoked_at IS NULL;
CREATE INDEX credentials_of_workspace_not_revoked ON credentials (workspace_id, created_at, id) WHERE workspace_id IS NOT NULL AND revoked_at IS NULL;
CREATE INDEX users_administrators ON users (id) WHERE is_admin AND is_active AND deleted_at IS NULL;
CREATE INDEX organizations_newest ON organizations (created_at, id);
CREATE INDEX workspaces_newest ON workspaces (created_at, id);
CREATE INDEX memberships_newest ON memberships (created_at, id);
CREATE INDEX credentials_quota ON credentials (user_id, kind, coalesce(workspace_id, '')) WHERE revoked_at IS NULL;
CREATE INDEX workspaces_of_organization ON workspaces (organization_id, created_at, id);
