-- Until when a host's own certificate is good. NULL: it was put by a program that did not write it down; the chain says it.
ALTER TABLE catalog.certificate ADD COLUMN not_after timestamptz;
