-- The same tables as for PostgreSQL, STRICT. Instants are microseconds since
-- 1970-01-01T00:00:00Z, booleans 0 or 1. Lists of scopes and networks are JSON
-- arrays of text.

CREATE TABLE store (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    cluster_id TEXT NOT NULL,
    token_epoch INTEGER NOT NULL DEFAULT 0,
    bootstrapped_at INTEGER NOT NULL
) STRICT;

-- The head of the history: taken last by each mutation, so that revisions are
-- gapless and in commit order.
CREATE TABLE revision (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    number INTEGER NOT NULL CHECK (number >= 0),
    mark INTEGER NOT NULL
) STRICT;

CREATE TABLE changes (
    revision INTEGER PRIMARY KEY,
    mark INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    touched TEXT NOT NULL
) STRICT;

CREATE TABLE audit (
    id TEXT NOT NULL PRIMARY KEY,
    revision INTEGER,
    occurred_at INTEGER NOT NULL,
    action TEXT NOT NULL,
    caller_user_id TEXT NOT NULL,
    caller_token_id TEXT,
    caller_ip TEXT,
    request_id TEXT,
    targets TEXT NOT NULL,
    details TEXT NOT NULL
) STRICT;
CREATE INDEX audit_occurred_at ON audit (occurred_at);

CREATE TABLE peppers (
    id TEXT NOT NULL PRIMARY KEY,
    is_current INTEGER NOT NULL CHECK (is_current IN (0, 1)),
    created_at INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX peppers_one_current ON peppers (is_current) WHERE is_current;

CREATE TABLE users (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    handle TEXT NOT NULL,
    display_name TEXT,
    kind TEXT NOT NULL CHECK (kind IN ('human', 'service')),
    is_admin INTEGER NOT NULL CHECK (is_admin IN (0, 1)),
    is_active INTEGER NOT NULL CHECK (is_active IN (0, 1)),
    external_id TEXT,
    token_epoch INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    deleted_at INTEGER,
    CHECK (deleted_at IS NULL OR NOT is_active)
) STRICT;
CREATE UNIQUE INDEX users_handle ON users (handle) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX users_external_id ON users (external_id) WHERE deleted_at IS NULL;
CREATE INDEX users_newest ON users (created_at, id);

CREATE TABLE organizations (
    id TEXT NOT NULL PRIMARY KEY,
    slug TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    external_id TEXT UNIQUE,
    is_active INTEGER NOT NULL CHECK (is_active IN (0, 1)),
    token_epoch INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE TABLE workspaces (
    id TEXT NOT NULL PRIMARY KEY,
    organization_id TEXT NOT NULL REFERENCES organizations (id),
    slug TEXT NOT NULL,
    name TEXT NOT NULL,
    external_id TEXT UNIQUE,
    is_active INTEGER NOT NULL CHECK (is_active IN (0, 1)),
    token_epoch INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (organization_id, slug)
) STRICT;

-- Leaving deletes the row, and demotion to guest replaces it; coming back makes
-- another, so that a credential bound under the old one stays dead.
CREATE TABLE memberships (
    id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id),
    organization_id TEXT REFERENCES organizations (id),
    workspace_id TEXT REFERENCES workspaces (id),
    role TEXT NOT NULL CHECK (role IN ('owner', 'admin', 'member', 'guest')),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    CHECK ((organization_id IS NULL) <> (workspace_id IS NULL)),
    UNIQUE (user_id, organization_id),
    UNIQUE (user_id, workspace_id)
) STRICT;
CREATE INDEX memberships_organization ON memberships (organization_id) WHERE organization_id IS NOT NULL;
CREATE INDEX memberships_workspace ON memberships (workspace_id) WHERE workspace_id IS NOT NULL;

CREATE TABLE credentials (
    id TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('personal_access_token', 'api_client_authorization')),
    user_id TEXT NOT NULL REFERENCES users (id),
    workspace_id TEXT REFERENCES workspaces (id),
    organization_id TEXT REFERENCES organizations (id),
    membership_id TEXT,
    name TEXT,
    description TEXT,
    scopes TEXT NOT NULL,
    allowed_ips TEXT NOT NULL,
    api_client_id INTEGER,
    created_by_ip TEXT,
    created_by_user_id TEXT NOT NULL REFERENCES users (id),
    created_by_token_id TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER,
    store_epoch INTEGER NOT NULL,
    user_epoch INTEGER NOT NULL,
    workspace_epoch INTEGER,
    organization_epoch INTEGER,
    CHECK ((kind = 'personal_access_token') = (name IS NOT NULL)),
    CHECK ((name IS NULL) = (description IS NULL)),
    CHECK (kind = 'personal_access_token' OR workspace_id IS NULL),
    CHECK ((workspace_id IS NULL) = (organization_id IS NULL)),
    CHECK ((workspace_id IS NULL) = (membership_id IS NULL)),
    CHECK ((workspace_id IS NULL) = (workspace_epoch IS NULL)),
    CHECK ((workspace_id IS NULL) = (organization_epoch IS NULL))
) STRICT;
CREATE INDEX credentials_of_user ON credentials (user_id, created_at, id);
CREATE INDEX credentials_of_workspace ON credentials (workspace_id, created_at, id) WHERE workspace_id IS NOT NULL;
CREATE INDEX credentials_live ON credentials (user_id, kind, expires_at) WHERE revoked_at IS NULL;
CREATE INDEX credentials_expires_at ON credentials (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX credentials_revoked_at ON credentials (revoked_at) WHERE revoked_at IS NOT NULL;
CREATE INDEX credentials_created_by ON credentials (created_by_token_id) WHERE created_by_token_id IS NOT NULL;

-- A credential's proofs. The digest finds one while its pepper is at hand; the
-- record, a PHC string, proves one that has no digest yet or whose pepper is lost.
CREATE TABLE secrets (
    id TEXT NOT NULL PRIMARY KEY,
    credential_id TEXT NOT NULL REFERENCES credentials (id) ON DELETE CASCADE,
    digest BLOB UNIQUE CHECK (length(digest) = 32),
    pepper_id TEXT REFERENCES peppers (id),
    record TEXT NOT NULL CHECK (record LIKE '$%$%'),
    shown TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'current', 'superseded')),
    sealed BLOB,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    proved_at INTEGER,
    CHECK ((digest IS NULL) = (pepper_id IS NULL))
) STRICT;
CREATE UNIQUE INDEX secrets_one_current ON secrets (credential_id) WHERE state = 'current';
CREATE UNIQUE INDEX secrets_one_pending ON secrets (credential_id) WHERE state = 'pending';
CREATE INDEX secrets_of_credential ON secrets (credential_id);
CREATE INDEX secrets_shown ON secrets (shown);
CREATE INDEX secrets_pepper ON secrets (pepper_id);

CREATE TABLE last_uses (
    credential_id TEXT NOT NULL PRIMARY KEY REFERENCES credentials (id) ON DELETE CASCADE,
    last_used_at INTEGER NOT NULL,
    last_used_ip TEXT
) STRICT;

-- Empty: used at this service itself, or from an address that is not known.
CREATE TABLE verifier_uses (
    credential_id TEXT NOT NULL REFERENCES credentials (id) ON DELETE CASCADE,
    verifier_id TEXT NOT NULL,
    client_ip TEXT NOT NULL,
    last_used_at INTEGER NOT NULL,
    PRIMARY KEY (credential_id, verifier_id, client_ip)
) STRICT;

CREATE TABLE request_ids (
    caller_id TEXT NOT NULL,
    request_id TEXT NOT NULL,
    body_hash BLOB NOT NULL CHECK (length(body_hash) = 32),
    credential_id TEXT NOT NULL REFERENCES credentials (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    secret_id TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (caller_id, request_id)
) STRICT;
CREATE INDEX request_ids_created_at ON request_ids (created_at);
CREATE INDEX request_ids_credential ON request_ids (credential_id);

-- What tokens of other systems look like, so that nothing else is tried.
CREATE TABLE imported_shapes (
    id TEXT NOT NULL PRIMARY KEY,
    prefix TEXT NOT NULL,
    length INTEGER NOT NULL CHECK (length > 0),
    alphabet TEXT NOT NULL,
    scheme TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    UNIQUE (prefix, length)
) STRICT;
