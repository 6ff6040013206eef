-- Each import into an object storage writes its files under a new name, and the row then says which one counts.

ALTER TABLE playback_format ADD COLUMN generation text NOT NULL DEFAULT '';   -- '' in local folders

-- Counts what has changed a recording's files but for moves; an import that was overtaken by one begins again.
ALTER TABLE recording ADD COLUMN edition bigint NOT NULL DEFAULT 0;
