-- What each server's uncounted meetings reserve, kept as a sum: a claim costs the same however many came since the poll.
-- No counter that can drift: whatever is not a claim marks its servers, and the sum of a marked server is made anew.

-- Written under the claims' lock alone, so that no claim waits for a poll, nor a poll for a claim.
CREATE TABLE reserved (
    server text PRIMARY KEY REFERENCES server (id) ON DELETE CASCADE,
    load   double precision NOT NULL           -- before the server's multiplier
) WITH (fillfactor = 50);

-- Servers whose sums no longer hold, once or more each; no key, so that no writer waits for another.
CREATE TABLE reserved_changed (server text NOT NULL);

CREATE FUNCTION mark_gone() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO reserved_changed SELECT DISTINCT gone.server FROM gone WHERE NOT gone.counted;
    RETURN NULL;
END $$;
CREATE TRIGGER meeting_deleted AFTER DELETE ON meeting
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION mark_gone();

CREATE FUNCTION mark_counted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO reserved_changed
    SELECT DISTINCT unnest(ARRAY[was.server, is_now.server])
      FROM was JOIN is_now ON is_now.generation = was.generation
     WHERE (is_now.counted, is_now.reservation, is_now.server) <> (was.counted, was.reservation, was.server);
    RETURN NULL;
END $$;
CREATE TRIGGER meeting_updated AFTER UPDATE ON meeting
    REFERENCING OLD TABLE AS was NEW TABLE AS is_now FOR EACH STATEMENT EXECUTE FUNCTION mark_counted();

-- Sums anew what was marked; for the claims' lock. A mark and what it stands for are seen together or not at all.
CREATE FUNCTION sum_reserved() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM reserved_changed) THEN
        WITH marked AS (DELETE FROM reserved_changed RETURNING server)
        INSERT INTO reserved
        SELECT s.id, (SELECT coalesce(sum(m.reservation), 0) FROM meeting m WHERE m.server = s.id AND NOT m.counted)
          FROM server s WHERE s.id IN (SELECT marked.server FROM marked)
        ON CONFLICT (server) DO UPDATE SET load = EXCLUDED.load;
    END IF;
END $$;

-- Claims a meeting for the least loaded of the servers that may take it, or returns the claim that there is.
-- One transaction lock, not a lock and a SELECT in one statement: under READ COMMITTED the statement's snapshot would be
-- older than the wait for the lock, while each statement in a function takes a new one.
-- A server is passed over that was emptied (a service may know less than a second ago that one is cordoned), that hosts
-- this id for another tenant, or has a tombstone of it. Ties are broken at random. No row: no server was eligible.
-- A server that was marked since, or has no sum yet, is summed in the choosing statement, so that polled and reserved
-- load are of one moment.
-- Its plans are made once for each connection, maybe while the tables are empty: reading a whole table would look cheap.
CREATE FUNCTION claim_meeting(
    p_tenant uuid, p_meeting_id text, p_servers text[], p_reservation double precision,
    p_moderator_pw text, p_secret text, p_voice_bridges text[]
) RETURNS TABLE (claimed boolean, claim meeting) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
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
    PERFORM sum_reserved();
    SELECT s.id INTO chosen
      FROM server s
      LEFT JOIN server_status st ON st.server = s.id
      LEFT JOIN reserved r ON r.server = s.id AND r.server NOT IN (SELECT c.server FROM reserved_changed c)
     WHERE s.id = ANY (p_servers)
       AND NOT coalesce(st.drained, false)
       AND NOT EXISTS (SELECT 1 FROM meeting other WHERE other.server = s.id AND other.meeting_id = p_meeting_id)
       AND NOT EXISTS (SELECT 1 FROM tombstone t WHERE t.server = s.id AND t.meeting_id = p_meeting_id)
     ORDER BY s.load_multiplier * (coalesce(st.load, 0) + p_reservation + coalesce(
           r.load, (SELECT sum(m.reservation) FROM meeting m WHERE m.server = s.id AND NOT m.counted), 0)), random()
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
    UPDATE reserved SET load = load + p_reservation WHERE server = chosen;
    IF NOT FOUND THEN
        INSERT INTO reserved
        SELECT chosen, sum(m.reservation) FROM meeting m WHERE m.server = chosen AND NOT m.counted;
    END IF;
    RETURN QUERY SELECT true, found_row;
END $$;
