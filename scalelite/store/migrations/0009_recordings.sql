-- Recordings: what is listed, how it is played, and the one-time tokens of protected ones. Rules: spec/recordings.md.

CREATE TABLE recording (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    record_id      text COLLATE "C" NOT NULL UNIQUE,     -- in bytes' order, so that a prefix is a range of the index
    tenant         uuid NOT NULL REFERENCES tenant (id) ON DELETE RESTRICT,
    meeting_id     text NOT NULL,
    name           text NOT NULL,
    state          text NOT NULL CHECK (state IN ('processing', 'processed', 'published', 'unpublished', 'deleted')),
    published      boolean NOT NULL,
    protected      boolean NOT NULL DEFAULT false,
    start_ms       bigint NOT NULL,
    end_ms         bigint NOT NULL,
    participants   bigint,
    publish_edited boolean NOT NULL DEFAULT false,       -- a person published or unpublished it: imports leave that alone
    -- What is being done to its files; set before and taken back after, so that a crash between can be finished.
    pending        text CHECK (pending IN ('published', 'unpublished', 'deleted')),
    imported_at    timestamptz NOT NULL DEFAULT now(),
    deleted_at     timestamptz
);
CREATE INDEX recording_newest ON recording (start_ms DESC, record_id);
CREATE INDEX recording_tenant ON recording (tenant, start_ms DESC, record_id);
CREATE INDEX recording_meeting ON recording (meeting_id);
CREATE INDEX recording_pending ON recording (id) WHERE pending IS NOT NULL;

CREATE TABLE recording_metadata (
    recording bigint NOT NULL REFERENCES recording (id) ON DELETE CASCADE,
    key       text NOT NULL,
    value     text,                                      -- NULL: a person removed it
    edited    boolean NOT NULL DEFAULT false,            -- a person set it: imports leave it alone
    place     bigint GENERATED ALWAYS AS IDENTITY,       -- they are listed in the order in which they came
    PRIMARY KEY (recording, key)
);
-- Values may be longer than an index takes.
CREATE INDEX recording_metadata_found ON recording_metadata (key, left(value, 200), recording);

CREATE TABLE playback_format (
    recording     bigint NOT NULL REFERENCES recording (id) ON DELETE CASCADE,
    format        text NOT NULL,
    url           text NOT NULL,                         -- a path; the host is the tenant's
    length        bigint NOT NULL,                       -- minutes
    processing_ms bigint,
    PRIMARY KEY (recording, format)
);

CREATE TABLE thumbnail (
    recording bigint NOT NULL,
    format    text NOT NULL,
    place     integer NOT NULL,
    url       text NOT NULL,
    width     bigint,
    height    bigint,
    alt       text NOT NULL DEFAULT '',
    PRIMARY KEY (recording, format, place),
    FOREIGN KEY (recording, format) REFERENCES playback_format (recording, format) ON DELETE CASCADE
);

-- One use each; the digest, so that who reads the table cannot play anything.
CREATE TABLE playback_token (
    digest     bytea PRIMARY KEY,
    recording  bigint NOT NULL REFERENCES recording (id) ON DELETE CASCADE,
    format     text NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX playback_token_expiry ON playback_token (expires_at);

-- Signs the cookies of protected recordings where SECRET_KEY_BASE does not; made by the first process that needs it.
ALTER TABLE cluster ADD COLUMN cookie_key bytea;
