-- What clients want to be called for, and the queue of calls to them; bounds of tenants and servers.
-- Rules: spec/bbb-api.md, Callbacks; requirements MT-8, LB-11.

-- One row a parameter of a create. It outlives the meeting: recordings and analytics come later.
CREATE TABLE callback_hook (
    generation bigint NOT NULL,               -- of the meeting
    name       text NOT NULL,                 -- the parameter, metadata in lower case
    tenant     uuid NOT NULL REFERENCES tenant (id) ON DELETE CASCADE,
    meeting_id text NOT NULL,
    server     text NOT NULL,                 -- no reference: it may be gone when its analytics come
    url        text NOT NULL,
    secret     text NOT NULL,                 -- the one that authenticated the create
    token      text NOT NULL,                 -- what the server's end callback is known by
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (generation, name)
);
CREATE INDEX callback_hook_meeting ON callback_hook (tenant, meeting_id);
CREATE INDEX callback_hook_token ON callback_hook (token);
CREATE INDEX callback_hook_created ON callback_hook (created_at);

-- What was delivered is deleted; what was refused or given up stays to be seen.
CREATE TABLE callback (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant     uuid NOT NULL REFERENCES tenant (id) ON DELETE CASCADE,
    meeting_id text NOT NULL,
    kind       text NOT NULL CHECK (kind IN ('analytics', 'recording ready', 'meeting ended')),
    url        text NOT NULL,
    secret     text NOT NULL,
    body       bytea NOT NULL DEFAULT '',     -- of analytics
    record_id  text NOT NULL DEFAULT '',      -- of recordings
    state      text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'refused', 'given up')),
    attempts   integer NOT NULL DEFAULT 0,
    outcome    text NOT NULL DEFAULT '',      -- of the last attempt
    created_at timestamptz NOT NULL DEFAULT now(),
    due_at     timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX callback_due ON callback (due_at) WHERE state = 'waiting';

CREATE FUNCTION tell_callback() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NOTIFY scalelite_callback;
    RETURN NULL;
END $$;
CREATE TRIGGER callback_enqueued AFTER INSERT ON callback FOR EACH STATEMENT EXECUTE FUNCTION tell_callback();

-- Claims as claim_meeting does, within bounds (0: none) of the tenant's meetings and users and of each server's meetings.
-- They stop new meetings only. No row: a bound was reached, or no server was eligible.
CREATE FUNCTION claim_within_bounds(
    p_max_meetings bigint, p_max_users bigint,
    p_tenant uuid, p_meeting_id text, p_servers text[], p_reservation double precision,
    p_moderator_pw text, p_secret text, p_voice_bridges text[]
) RETURNS TABLE (claimed boolean, claim meeting) LANGUAGE plpgsql AS $$
DECLARE
    has_meetings bigint;
    has_users bigint;
BEGIN
    IF NOT EXISTS (SELECT 1 FROM meeting m WHERE m.tenant = p_tenant AND m.meeting_id = p_meeting_id) THEN
        PERFORM pg_advisory_xact_lock(5341, 1);
        SELECT count(*), coalesce(sum(m.users), 0) INTO has_meetings, has_users FROM meeting m WHERE m.tenant = p_tenant;
        p_servers := CASE
            WHEN has_meetings >= nullif(p_max_meetings, 0) OR has_users >= nullif(p_max_users, 0) THEN '{}'
            ELSE ARRAY (
                SELECT s.id FROM server s
                 WHERE s.id = ANY (p_servers)
                   AND (s.max_meetings = 0
                        OR s.max_meetings > (SELECT count(*) FROM meeting m WHERE m.server = s.id)))
        END;
    END IF;
    RETURN QUERY SELECT * FROM claim_meeting(
        p_tenant, p_meeting_id, p_servers, p_reservation, p_moderator_pw, p_secret, p_voice_bridges);
END $$;
