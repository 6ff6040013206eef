-- What a run that was interrupted, or failed, needs to go on with what it began with.

-- Variables of the command line, and where groups come from; sealed as results are. Without a key, variables that are
-- secret are left out.
ALTER TABLE playbook_run ADD COLUMN given text NOT NULL DEFAULT '';

-- What a play's pattern named, whatever --limit says: min_available and max_unavailable count among these. NULL in rows
-- of before: its targets.
ALTER TABLE playbook_target ADD COLUMN meant text[];
