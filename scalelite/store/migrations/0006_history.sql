-- History: when a version began, which fields its end changed, its sealed secrets; what inventories applied. Rules: spec/data.md.

-- A version is what the row said in revisions from_rev <= n < to_rev. `fields` are those that the revision to_rev changed, all
-- of them where it removed the object: secrets are masked in `spec`, so that two versions do not tell it.
ALTER TABLE version
    ADD COLUMN from_rev bigint NOT NULL DEFAULT 0,
    ADD COLUMN fields text[] NOT NULL DEFAULT '{}',
    ADD COLUMN sealed text;                        -- kept for 50 revisions, and only with SCALELITE_ENCRYPTION_KEY
CREATE INDEX version_sealed ON version (to_rev) WHERE sealed IS NOT NULL;

UPDATE version SET from_rev = before.to_rev
  FROM (SELECT kind, name, param, to_rev AS next, lag(to_rev) OVER (PARTITION BY kind, name, param ORDER BY to_rev) AS to_rev
          FROM version) AS before
 WHERE version.kind = before.kind AND version.name = before.name AND version.param = before.param
   AND version.to_rev = before.next AND before.to_rev IS NOT NULL;

-- The revision in which an inventory last said of an object what is live: the third side of drift. Not there: none ever did.
CREATE TABLE applied (
    kind     text NOT NULL,
    name     text NOT NULL,
    param    text NOT NULL DEFAULT '',
    revision bigint NOT NULL,
    PRIMARY KEY (kind, name, param)
);

-- Every declared object that there is, by its key, with the revision that last wrote it.
CREATE VIEW declared_object AS
    SELECT 'server' AS kind, id AS name, '' AS param, from_rev FROM server
    UNION ALL SELECT 'tenant', name, '', from_rev FROM tenant WHERE name <> ''
    UNION ALL SELECT 'lrs', name, '', lrs_rev FROM tenant WHERE lrs IS NOT NULL
    UNION ALL SELECT 'setting', t.name, s.param, s.from_rev FROM setting s JOIN tenant t ON t.id = s.tenant
    UNION ALL SELECT 'cluster', '', '', from_rev FROM cluster WHERE from_rev > 0;

INSERT INTO applied (kind, name, param, revision)
SELECT o.kind, o.name, o.param, o.from_rev FROM declared_object o JOIN revision r ON r.number = o.from_rev
 WHERE r.source ? 'inventory';
