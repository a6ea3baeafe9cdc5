-- Which schedules of the host an operator has paused. They lie in the pool of one cell, and in another's once a cell is added or taken away: every pool
-- is told of what stands here, so that off stays off.
CREATE TABLE catalog.host_schedule (
    name    text PRIMARY KEY CHECK (octet_length(name) BETWEEN 1 AND 100),
    paused  boolean NOT NULL,
    -- Greater with each word, also in a catalog that was restored: a pool that has heard a later one does not go back.
    version bigint NOT NULL
);
