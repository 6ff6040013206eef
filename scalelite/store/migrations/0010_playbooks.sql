-- The journal of playbooks: what a run has done with which server, so that an interrupted one can go on.

CREATE TABLE playbook_run (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    playbook   text NOT NULL,                 -- as it was named
    digest     text NOT NULL,                 -- of its files and of what was asked for: another one cannot go on
    actor      text NOT NULL,
    state      text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'done', 'failed', 'interrupted')),
    started_at timestamptz NOT NULL DEFAULT now(),
    ended_at   timestamptz
);
CREATE INDEX playbook_run_by_name ON playbook_run (playbook, id);

-- Which targets each play of a run was found to be about.
CREATE TABLE playbook_target (
    run     bigint NOT NULL REFERENCES playbook_run (id) ON DELETE CASCADE,
    play    integer NOT NULL,
    targets text[] NOT NULL,
    PRIMARY KEY (run, play)
);

-- One row a task that is done with a target. `result` is sealed as secrets are: it may hold what a command printed.
CREATE TABLE playbook_step (
    run    bigint NOT NULL REFERENCES playbook_run (id) ON DELETE CASCADE,
    step   text NOT NULL,                     -- the task's place in the playbook
    target text NOT NULL,                     -- the server's id, the tenant's name, or ''
    status text NOT NULL,
    result text NOT NULL,
    at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run, step, target)
);

-- One playbook at a time per server. A row counts as long as its run holds its advisory lock (5342, run), which dies
-- with its connection.
CREATE TABLE playbook_lock (
    server text PRIMARY KEY,
    run    bigint NOT NULL REFERENCES playbook_run (id) ON DELETE CASCADE
);
CREATE INDEX playbook_lock_run ON playbook_lock (run);
