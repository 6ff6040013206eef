-- The file of the inventory that had an object when it was applied: a plan says where it was when it is gone.
ALTER TABLE applied ADD COLUMN file text NOT NULL DEFAULT '';
