-- Meetings that are placed anew elsewhere, while their server is offline, disabled or gone. Rules: spec/data.md.

-- The meeting may still run there: it is ended when the server returns, and no meeting of this id goes there until then.
CREATE TABLE tombstone (
    server     text NOT NULL REFERENCES server (id) ON DELETE CASCADE,
    meeting_id text NOT NULL,
    since      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (server, meeting_id)
);

-- Gives up the meeting of this generation, leaving a tombstone, and claims it anew. Of many at once, one does it, and the
-- others get its claim. No row: no other server was eligible, and all is as before.
CREATE FUNCTION place_meeting_anew(
    p_generation bigint,
    p_tenant uuid, p_meeting_id text, p_servers text[], p_reservation double precision,
    p_moderator_pw text, p_secret text, p_voice_bridges text[]
) RETURNS TABLE (claimed boolean, claim meeting) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(5341, 1);
    WITH gone AS (
        DELETE FROM meeting m WHERE m.generation = p_generation AND m.meeting_id = p_meeting_id RETURNING m.server
    )
    INSERT INTO tombstone (server, meeting_id) SELECT gone.server, p_meeting_id FROM gone ON CONFLICT DO NOTHING;
    RETURN QUERY SELECT * FROM claim_meeting(
        p_tenant, p_meeting_id, p_servers, p_reservation, p_moderator_pw, p_secret, p_voice_bridges);
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'SL001', MESSAGE = 'no server was eligible';
    END IF;
EXCEPTION WHEN SQLSTATE 'SL001' THEN
    RETURN;
END $$;
