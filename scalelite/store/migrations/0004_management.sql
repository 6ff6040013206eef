-- Tokens of the management API; what the poller's last round was, and whose users it saw. Rules: spec/bbb-api.md.

CREATE TABLE token (
    name       text PRIMARY KEY,
    hash       bytea NOT NULL UNIQUE,    -- SHA-256; the token itself is drawn from 2^256 and shown once
    scope      text NOT NULL CHECK (scope IN ('read', 'operate', 'admin', 'import')),
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz
);

-- The poller's alone, so that any worker of any replica can tell how it does.
CREATE TABLE poll_round (
    only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    ended_at   timestamptz NOT NULL,
    duration_s double precision NOT NULL,
    polled     integer NOT NULL,
    failed     integer NOT NULL,
    suspect    boolean NOT NULL            -- so many failed that the poller suspects its own network
);

ALTER TABLE meeting ADD COLUMN users integer NOT NULL DEFAULT 0;   -- in the last good poll
