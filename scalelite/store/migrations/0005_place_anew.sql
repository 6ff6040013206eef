-- Meetings that are placed anew elsewhere, while their server is offline, disabled or gone. Rules: spec/data.md.

-- The meeting may still run there: it is ended when the server returns, and no meeting of this id goes there until then.
CREATE TABLE tombstone (
    server     text NOT NULL REFERENCES server (id) ON DELETE CASCADE,
    meeting_id text NOT NULL,
    since      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (server, meeting_id)
);

-- As before, but passing over servers that have a tombstone of this id.
CREATE OR REPLACE FUNCTION claim_meeting(
    p_tenant uuid, p_meeting_id text, p_servers text[], p_reservation double precision,
    p_moderator_pw text, p_secret text, p_voice_bridges text[]
) RETURNS TABLE (claimed boolean, claim meeting) LANGUAGE plpgsql AS $$
DECLARE
    found_row meeting;
    chosen text;
    bridge text;
BEGIN
    SELECT * INTO found_row FROM meeting m WHERE m.tenant = p_tenant AND m.meeting_id = p_meeting_id;
    IF FOUND THEN
        RETURN QUERY SELECT false, found_row;
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(5341, 1);
    SELECT * INTO found_row FROM meeting m WHERE m.tenant = p_tenant AND m.meeting_id = p_meeting_id;
    IF FOUND THEN
        RETURN QUERY SELECT false, found_row;
        RETURN;
    END IF;
    SELECT s.id INTO chosen
      FROM server s
      LEFT JOIN server_status st ON st.server = s.id
      LEFT JOIN LATERAL (
           SELECT sum(m.reservation) AS load FROM meeting m WHERE m.server = s.id AND NOT m.counted
      ) reserved ON true
     WHERE s.id = ANY (p_servers)
       AND NOT EXISTS (SELECT 1 FROM meeting other WHERE other.server = s.id AND other.meeting_id = p_meeting_id)
       AND NOT EXISTS (SELECT 1 FROM tombstone t WHERE t.server = s.id AND t.meeting_id = p_meeting_id)
     ORDER BY s.load_multiplier * (coalesce(st.load, 0) + coalesce(reserved.load, 0) + p_reservation), random()
     LIMIT 1;
    IF chosen IS NULL THEN
        RETURN;
    END IF;
    SELECT candidate INTO bridge
      FROM unnest(p_voice_bridges) WITH ORDINALITY AS bridges (candidate, place)
     WHERE NOT EXISTS (SELECT 1 FROM meeting m WHERE m.voice_bridge = candidate)
     ORDER BY place LIMIT 1;
    IF bridge IS NULL THEN
        RAISE EXCEPTION 'no voice bridge is free among % candidates', cardinality(p_voice_bridges);
    END IF;
    INSERT INTO meeting (tenant, meeting_id, server, generation, moderator_pw, secret, voice_bridge, reservation)
    VALUES (p_tenant, p_meeting_id, chosen, nextval('claim_sequence'), p_moderator_pw, p_secret, bridge, p_reservation)
    RETURNING * INTO found_row;
    RETURN QUERY SELECT true, found_row;
END $$;

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
