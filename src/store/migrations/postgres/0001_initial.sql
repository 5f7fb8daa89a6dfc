-- Instants are microseconds since 1970-01-01T00:00:00Z. Text that is compared or
-- ordered is COLLATE "C", so that both engines order it alike. Lists of scopes
-- and networks are JSON arrays of text.

CREATE TABLE store (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    cluster_id TEXT NOT NULL,
    token_epoch BIGINT NOT NULL DEFAULT 0,
    bootstrapped_at BIGINT NOT NULL
);

-- The head of the history: taken last by each mutation, so that revisions are
-- gapless and in commit order.
CREATE TABLE revision (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    number BIGINT NOT NULL CHECK (number >= 0),
    mark BIGINT NOT NULL
);

CREATE TABLE changes (
    revision BIGINT PRIMARY KEY,
    mark BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    touched TEXT NOT NULL
);

CREATE TABLE audit (
    id TEXT COLLATE "C" PRIMARY KEY,
    revision BIGINT,
    occurred_at BIGINT NOT NULL,
    action TEXT NOT NULL,
    caller_user_id TEXT COLLATE "C" NOT NULL,
    caller_token_id TEXT COLLATE "C",
    caller_ip TEXT,
    request_id TEXT,
    targets TEXT NOT NULL,
    details TEXT NOT NULL
);
CREATE INDEX audit_occurred_at ON audit (occurred_at);

CREATE TABLE peppers (
    id TEXT COLLATE "C" PRIMARY KEY,
    is_current BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX peppers_one_current ON peppers (is_current) WHERE is_current;

CREATE TABLE users (
    id TEXT COLLATE "C" PRIMARY KEY,
    number BIGINT GENERATED ALWAYS AS IDENTITY UNIQUE,
    handle TEXT COLLATE "C" NOT NULL,
    display_name TEXT,
    kind TEXT NOT NULL CHECK (kind IN ('human', 'service')),
    is_admin BOOLEAN NOT NULL,
    is_active BOOLEAN NOT NULL,
    external_id TEXT COLLATE "C",
    token_epoch BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT,
    CHECK (deleted_at IS NULL OR NOT is_active)
);
CREATE UNIQUE INDEX users_handle ON users (handle) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX users_external_id ON users (external_id) WHERE deleted_at IS NULL;
CREATE INDEX users_newest ON users (created_at, id);

CREATE TABLE organizations (
    id TEXT COLLATE "C" PRIMARY KEY,
    slug TEXT COLLATE "C" NOT NULL UNIQUE,
    name TEXT NOT NULL,
    external_id TEXT COLLATE "C" UNIQUE,
    is_active BOOLEAN NOT NULL,
    token_epoch BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE workspaces (
    id TEXT COLLATE "C" PRIMARY KEY,
    organization_id TEXT COLLATE "C" NOT NULL REFERENCES organizations (id),
    slug TEXT COLLATE "C" NOT NULL,
    name TEXT NOT NULL,
    external_id TEXT COLLATE "C" UNIQUE,
    is_active BOOLEAN NOT NULL,
    token_epoch BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (organization_id, slug)
);

-- Leaving deletes the row, and demotion to guest replaces it; coming back makes
-- another, so that a credential bound under the old one stays dead.
CREATE TABLE memberships (
    id TEXT COLLATE "C" PRIMARY KEY,
    user_id TEXT COLLATE "C" NOT NULL REFERENCES users (id),
    organization_id TEXT COLLATE "C" REFERENCES organizations (id),
    workspace_id TEXT COLLATE "C" REFERENCES workspaces (id),
    role TEXT NOT NULL CHECK (role IN ('owner', 'admin', 'member', 'guest')),
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    CHECK ((organization_id IS NULL) <> (workspace_id IS NULL)),
    UNIQUE (user_id, organization_id),
    UNIQUE (user_id, workspace_id)
);
CREATE INDEX memberships_organization ON memberships (organization_id) WHERE organization_id IS NOT NULL;
CREATE INDEX memberships_workspace ON memberships (workspace_id) WHERE workspace_id IS NOT NULL;

CREATE TABLE credentials (
    id TEXT COLLATE "C" PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('personal_access_token', 'api_client_authorization')),
    user_id TEXT COLLATE "C" NOT NULL REFERENCES users (id),
    workspace_id TEXT COLLATE "C" REFERENCES workspaces (id),
    organization_id TEXT COLLATE "C" REFERENCES organizations (id),
    membership_id TEXT COLLATE "C",
    name TEXT,
    description TEXT,
    scopes TEXT NOT NULL,
    allowed_ips TEXT NOT NULL,
    api_client_id BIGINT,
    created_by_ip TEXT,
    created_by_user_id TEXT COLLATE "C" NOT NULL REFERENCES users (id),
    created_by_token_id TEXT COLLATE "C",
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT,
    store_epoch BIGINT NOT NULL,
    user_epoch BIGINT NOT NULL,
    workspace_epoch BIGINT,
    organization_epoch BIGINT,
    CHECK ((kind = 'personal_access_token') = (name IS NOT NULL)),
    CHECK ((name IS NULL) = (description IS NULL)),
    CHECK (kind = 'personal_access_token' OR workspace_id IS NULL),
    CHECK ((workspace_id IS NULL) = (organization_id IS NULL)),
    CHECK ((workspace_id IS NULL) = (membership_id IS NULL)),
    CHECK ((workspace_id IS NULL) = (workspace_epoch IS NULL)),
    CHECK ((workspace_id IS NULL) = (organization_epoch IS NULL))
);
CREATE INDEX credentials_of_user ON credentials (user_id, created_at, id);
CREATE INDEX credentials_of_workspace ON credentials (workspace_id, created_at, id) WHERE workspace_id IS NOT NULL;
CREATE INDEX credentials_live ON credentials (user_id, kind, expires_at) WHERE revoked_at IS NULL;
CREATE INDEX credentials_expires_at ON credentials (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX credentials_revoked_at ON credentials (revoked_at) WHERE revoked_at IS NOT NULL;
CREATE INDEX credentials_created_by ON credentials (created_by_token_id) WHERE created_by_token_id IS NOT NULL;

-- A credential's proofs. The digest finds one while its pepper is at hand; the
-- record, a PHC string, proves one that has no digest yet or whose pepper is lost.
CREATE TABLE secrets (
    id TEXT COLLATE "C" PRIMARY KEY,
    credential_id TEXT COLLATE "C" NOT NULL REFERENCES credentials (id) ON DELETE CASCADE,
    digest BYTEA UNIQUE CHECK (length(digest) = 32),
    pepper_id TEXT COLLATE "C" REFERENCES peppers (id),
    record TEXT NOT NULL CHECK (record LIKE '$%$%'),
    shown TEXT COLLATE "C" NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'current', 'superseded')),
    sealed BYTEA,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    proved_at BIGINT,
    CHECK ((digest IS NULL) = (pepper_id IS NULL))
);
CREATE UNIQUE INDEX secrets_one_current ON secrets (credential_id) WHERE state = 'current';
CREATE UNIQUE INDEX secrets_one_pending ON secrets (credential_id) WHERE state = 'pending';
CREATE INDEX secrets_of_credential ON secrets (credential_id);
CREATE INDEX secrets_shown ON secrets (shown);
CREATE INDEX secrets_pepper ON secrets (pepper_id);

CREATE TABLE last_uses (
    credential_id TEXT COLLATE "C" PRIMARY KEY REFERENCES credentials (id) ON DELETE CASCADE,
    last_used_at BIGINT NOT NULL,
    last_used_ip TEXT
);

-- Empty: used at this service itself, or from an address that is not known.
CREATE TABLE verifier_uses (
    credential_id TEXT COLLATE "C" NOT NULL REFERENCES credentials (id) ON DELETE CASCADE,
    verifier_id TEXT COLLATE "C" NOT NULL,
    client_ip TEXT COLLATE "C" NOT NULL,
    last_used_at BIGINT NOT NULL,
    PRIMARY KEY (credential_id, verifier_id, client_ip)
);

CREATE TABLE request_ids (
    caller_id TEXT COLLATE "C" NOT NULL,
    request_id TEXT COLLATE "C" NOT NULL,
    body_hash BYTEA NOT NULL CHECK (length(body_hash) = 32),
    credential_id TEXT COLLATE "C" NOT NULL REFERENCES credentials (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    secret_id TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (caller_id, request_id)
);
CREATE INDEX request_ids_created_at ON request_ids (created_at);
CREATE INDEX request_ids_credential ON request_ids (credential_id);

-- What tokens of other systems look like, so that nothing else is tried.
CREATE TABLE imported_shapes (
    id TEXT COLLATE "C" PRIMARY KEY,
    prefix TEXT COLLATE "C" NOT NULL,
    length BIGINT NOT NULL CHECK (length > 0),
    alphabet TEXT NOT NULL,
    scheme TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (prefix, length)
);
