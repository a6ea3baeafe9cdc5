-- The job that removes an export's file: another takes its place when the file is to go sooner.

ALTER TABLE exports ADD COLUMN removal uuid;
