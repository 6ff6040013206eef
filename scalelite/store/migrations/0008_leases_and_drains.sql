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

