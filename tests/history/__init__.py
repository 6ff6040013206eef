"""History: drift, revisions, rollback, and what an interrupted apply leaves."""
