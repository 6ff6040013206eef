-- Who of many pollers acts; servers that were emptied; what a load is made of. Rules: spec/operations.md, spec/data.md.

-- Its holder renews it; who takes it over raises the epoch, and every write of the holder asks for its own epoch first.
CREATE TABLE lease (
    name       text PRIMARY KEY,
    holder     text NOT NULL,
    epoch      bigint NOT NULL,
    expires_at timestamptz NOT NULL
);

ALTER TABLE server_status
    ADD COLUMN drained          boolean NOT NULL DEFAULT false,  -- empty in a good poll while cordoned: counts as disabled
    ADD COLUMN counted_users    integer NOT NULL DEFAULT 0,      -- users as the load counts them: a minimum for the young
    ADD COLUMN voice            integer NOT NULL DEFAULT 0,
    ADD COLUMN unknown_meetings text[] NOT NULL DEFAULT '{}';    -- that run there, and no row tells of

-- As before, but passing over servers that were emptied: a service may know less than a second ago that one is cordoned.
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
       AND NOT coalesce(st.drained, false)
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
