-- Declared state, its versions and revisions; what is observed of servers; meetings. Rules: spec/data.md.

CREATE TABLE revision (
    number  bigint PRIMARY KEY,              -- without gaps: every writer holds the apply lock
    at      timestamptz NOT NULL DEFAULT now(),
    actor   text NOT NULL,
    message text NOT NULL DEFAULT '',
    source  jsonb NOT NULL DEFAULT '{}',
    changes jsonb NOT NULL DEFAULT '[]'      -- one object a change, secrets taken out
);

CREATE TABLE cluster (
    only_row        boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    uuid            uuid NOT NULL DEFAULT gen_random_uuid(),
    spec            jsonb NOT NULL DEFAULT '{}',
    fingerprint_key bytea NOT NULL,           -- made by the program: this Postgres may lack pgcrypto
    serial          bigint NOT NULL DEFAULT 0,
    from_rev        bigint NOT NULL DEFAULT 0
);

CREATE TABLE server (
    id                 text PRIMARY KEY,
    url                text NOT NULL,
    url_key            text NOT NULL UNIQUE DEFERRABLE INITIALLY DEFERRED,   -- two may swap in one apply
    secret             text NOT NULL,
    previous_secret    text NOT NULL DEFAULT '',
    load_multiplier    double precision NOT NULL DEFAULT 1 CHECK (load_multiplier > 0),
    tag                text NOT NULL DEFAULT '',
    state              text NOT NULL CHECK (state IN ('enabled', 'cordoned', 'disabled')),
    max_meetings       bigint NOT NULL DEFAULT 0,
    max_users          bigint NOT NULL DEFAULT 0,
    checksum_algorithm text,
    protect            boolean NOT NULL DEFAULT false,
    from_rev           bigint NOT NULL
);
CREATE INDEX server_from_rev ON server (from_rev);

-- What an operator or a playbook did for now; an apply never lifts it.
CREATE TABLE hold (
    server text PRIMARY KEY REFERENCES server (id) ON DELETE CASCADE,
    state  text NOT NULL CHECK (state IN ('cordoned', 'disabled')),
    by     text NOT NULL,
    why    text NOT NULL DEFAULT '',
    since  timestamptz NOT NULL DEFAULT now(),
    until  timestamptz
);

CREATE TABLE tenant (
    id                    uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name                  text NOT NULL UNIQUE DEFERRABLE INITIALLY DEFERRED CHECK (name = lower(name)),
    enabled               boolean NOT NULL DEFAULT true,
    secrets               text[] NOT NULL DEFAULT '{}',
    limits                jsonb NOT NULL DEFAULT '{}',
    recordings            jsonb NOT NULL DEFAULT '{}',
    public_url            text,
    external_voice_bridge boolean NOT NULL DEFAULT false,
    protect               boolean NOT NULL DEFAULT false,
    lrs                   jsonb,
    from_rev              bigint NOT NULL,
    lrs_rev               bigint NOT NULL DEFAULT 0
);
CREATE INDEX tenant_from_rev ON tenant (greatest(from_rev, lrs_rev));

-- The owner of everything where there are no tenants; its empty name is no subdomain.
INSERT INTO tenant (id, name, from_rev) VALUES ('00000000-0000-0000-0000-000000000000', '', 0);

CREATE TABLE tenant_host (
    host   text PRIMARY KEY DEFERRABLE INITIALLY DEFERRED CHECK (host = lower(host)),
    tenant uuid NOT NULL REFERENCES tenant (id) ON DELETE CASCADE
);
CREATE INDEX tenant_host_tenant ON tenant_host (tenant);

CREATE TABLE setting (
    id       uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant   uuid NOT NULL REFERENCES tenant (id) ON DELETE CASCADE,
    param    text NOT NULL,
    value    text NOT NULL,
    override boolean NOT NULL DEFAULT false,
    calls    text[] NOT NULL DEFAULT '{create,join}',
    from_rev bigint NOT NULL,
    UNIQUE (tenant, param)
);
CREATE INDEX setting_from_rev ON setting (from_rev);

-- Old versions of declared rows, without their secrets. The live row is the version from its from_rev on.
CREATE TABLE version (
    kind   text NOT NULL,
    name   text NOT NULL,
    param  text NOT NULL DEFAULT '',
    to_rev bigint NOT NULL REFERENCES revision (number),   -- the one that changed or removed it
    spec   jsonb NOT NULL,
    PRIMARY KEY (kind, name, param, to_rev)
);
CREATE INDEX version_to_rev ON version (to_rev);

-- The poller's alone.
CREATE TABLE server_status (
    server          text PRIMARY KEY REFERENCES server (id) ON DELETE CASCADE,
    health          text NOT NULL DEFAULT 'unknown' CHECK (health IN ('unknown', 'online', 'unhealthy', 'offline')),
    score           integer NOT NULL DEFAULT 0,
    good_polls      integer NOT NULL DEFAULT 0,
    meetings        integer NOT NULL DEFAULT 0,
    users           integer NOT NULL DEFAULT 0,
    largest_meeting integer NOT NULL DEFAULT 0,
    videos          integer NOT NULL DEFAULT 0,
    load            double precision NOT NULL DEFAULT 0,   -- before the server's multiplier
    bbb_version     text NOT NULL DEFAULT '',
    polled_at       timestamptz,                           -- last good poll
    sequence        bigint NOT NULL DEFAULT 0              -- of the poll that wrote this: an older one writes nothing
);

CREATE SEQUENCE poll_sequence;
CREATE SEQUENCE claim_sequence;

CREATE TABLE meeting (
    tenant       uuid NOT NULL REFERENCES tenant (id) ON DELETE RESTRICT,
    meeting_id   text NOT NULL,
    server       text NOT NULL REFERENCES server (id) ON DELETE RESTRICT,
    phase        text NOT NULL DEFAULT 'creating' CHECK (phase IN ('creating', 'running', 'ending')),
    generation   bigint NOT NULL,              -- its claim's number: tells two meetings of one id apart
    moderator_pw text NOT NULL DEFAULT '',
    secret       text NOT NULL DEFAULT '',     -- the one that authenticated its create; signs its callbacks
    voice_bridge text NOT NULL UNIQUE,
    reservation  double precision NOT NULL,    -- load until a poll has counted the meeting; before the multiplier
    counted      boolean NOT NULL DEFAULT false,
    missed       integer NOT NULL DEFAULT 0,   -- good polls of its server in a row that did not list it
    claimed_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, meeting_id),
    UNIQUE (server, meeting_id)
);
CREATE INDEX meeting_reserved ON meeting (server) INCLUDE (reservation) WHERE NOT counted;
CREATE INDEX meeting_generation ON meeting (generation);

-- Tells the workers that a meeting is gone: they remember those that they have seen.
CREATE FUNCTION tell_meeting_gone() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('scalelite_meeting', OLD.generation::text);
    RETURN NULL;
END $$;
CREATE TRIGGER meeting_gone AFTER DELETE OR UPDATE OF server ON meeting
    FOR EACH ROW EXECUTE FUNCTION tell_meeting_gone();
