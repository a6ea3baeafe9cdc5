-- The queue of jobs: one in each tenant database. What it is made of; 081 has what applications may call, 082 and 083 what workers may, 084 what the host side may.
--
-- A job's row is the tenant's, guarded by row security like any other. Lanes, arrivals and workers are the queue's own: no row of a
-- tenant's data is in them, and no login may read them. Three roles: insula_owner owns the tables and what applications call, bound
-- by the policy; insula_queue (nobody logs in as it) owns what workers call, let through by a policy of its own and granted these
-- tables and no others; insula_worker logs in and may only call.
SET LOCAL ROLE insula_owner;

-- Waiting and running jobs. One that ended is deleted, or moves to insula.job_end when somebody may ask for it.
CREATE TABLE IF NOT EXISTS insula.job (
    tenant_id    bigint      NOT NULL DEFAULT insula.current_tenant(),
    id           uuid        NOT NULL,
    -- w waits, l waits for its time (delayed or to be retried), r runs.
    state        "char"      NOT NULL DEFAULT 'w' CHECK (state IN ('w', 'l', 'r')),
    -- Lower is sooner: the negated priority.
    rank         smallint    NOT NULL DEFAULT 0,
    -- Inside a rank the older first: when it was enqueued, or when it may run.
    due          timestamptz NOT NULL,
    attempt      integer     NOT NULL DEFAULT 0,
    attempts     integer     NOT NULL DEFAULT 10,
    cost         integer     NOT NULL DEFAULT 1,
    -- Seconds that the end is kept for; 0: not at all, when it went well.
    keep         integer     NOT NULL DEFAULT 0,
    -- Whose it is while it runs. With the attempt it is the fence: an end that names another is not believed.
    worker       bigint,
    created_at   timestamptz NOT NULL,
    started_at   timestamptz,
    deadline     timestamptz,
    -- Jobs of one tenant stand in one line, '', unless their kind has a cap or a rate of its own: then in the kind's.
    lane         text        NOT NULL DEFAULT '',
    kind         text        NOT NULL,
    key          text,
    principal    text,
    trace        text,
    error        text,
    progress     json,
    body         json        NOT NULL,
    -- By id first: ids grow with time, so what all lanes have at their heads lies together, and taking it touches a few pages and not one of each tenant.
    PRIMARY KEY (id, tenant_id)
) WITH (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
DO $do$
BEGIN
    -- As it was before.
    IF (SELECT i.indkey[0] FROM pg_index i WHERE i.indrelid = 'insula.job'::regclass AND i.indisprimary)
       <> (SELECT a.attnum FROM pg_attribute a WHERE a.attrelid = 'insula.job'::regclass AND a.attname = 'id') THEN
        ALTER TABLE insula.job DROP CONSTRAINT job_pkey, ADD CONSTRAINT job_pkey PRIMARY KEY (id, tenant_id);
    END IF;
END $do$;
-- What insula.work() takes from: the head of one lane, from where the last was taken.
CREATE INDEX IF NOT EXISTS job_waiting ON insula.job (tenant_id, lane, rank, due) WHERE state = 'w';
CREATE INDEX IF NOT EXISTS job_later ON insula.job (due) WHERE state = 'l';
-- The same of one tenant, for when more have come than are let go at once: then tenants take turns.
CREATE INDEX IF NOT EXISTS job_later_turn ON insula.job (tenant_id, due) WHERE state = 'l';
-- One tenant's of those, for lists and for its removal: with it, each state has an index that begins with the tenant, as no other has for all jobs.
CREATE INDEX IF NOT EXISTS job_delayed ON insula.job (tenant_id, id) WHERE state = 'l';
-- What caps count and what a lost worker leaves.
CREATE INDEX IF NOT EXISTS job_running ON insula.job (tenant_id, lane) WHERE state = 'r';
CREATE UNIQUE INDEX IF NOT EXISTS job_key ON insula.job (tenant_id, kind, key) WHERE key IS NOT NULL;

-- Ends that are kept: results, dead letters, what was cancelled.
CREATE TABLE IF NOT EXISTS insula.job_end (
    tenant_id  bigint      NOT NULL DEFAULT insula.current_tenant(),
    id         uuid        NOT NULL,
    outcome    text        NOT NULL CHECK (outcome IN ('done', 'dead', 'cancelled')),
    kind       text        NOT NULL,
    lane       text        NOT NULL,
    rank       smallint    NOT NULL,
    attempt    integer     NOT NULL,
    attempts   integer     NOT NULL,
    cost       integer     NOT NULL,
    keep       integer     NOT NULL,
    created_at timestamptz NOT NULL,
    ended_at   timestamptz NOT NULL,
    -- Forgotten after this.
    expires_at timestamptz NOT NULL,
    key        text,
    principal  text,
    trace      text,
    error      text,
    result     json,
    body       json        NOT NULL,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX IF NOT EXISTS job_end_expires ON insula.job_end (expires_at);
CREATE INDEX IF NOT EXISTS job_end_dead ON insula.job_end (tenant_id, ended_at) WHERE outcome = 'dead';

-- A tenant's line. `start` is its start tag (start-time fair queueing, crates/planner/src/lanes.rs): who has the least is next.
CREATE TABLE IF NOT EXISTS insula.lane (
    tenant_id    bigint   NOT NULL,
    lane         text     NOT NULL DEFAULT '',
    start        bigint   NOT NULL DEFAULT 0,
    -- May be taken from, as far as is known. False has a reason that ends: nothing waits (an arrival), `blocked` (an end), `wake_at`
    -- (time), `held` (the tenant is active again).
    ready        boolean  NOT NULL DEFAULT false,
    held         boolean  NOT NULL DEFAULT false,
    blocked      boolean  NOT NULL DEFAULT false,
    wake_at      timestamptz,
    -- Nothing that waits is before this place: a scan begins behind the rows of those that were taken.
    head_rank    smallint NOT NULL DEFAULT -32768,
    head_due     timestamptz NOT NULL DEFAULT '-infinity',
    -- How far from there a scan need go to find a few, as far as is known: a guess, which costs a second scan when it is wrong.
    reach        timestamptz NOT NULL DEFAULT 'infinity',
    -- What a scan from there found, for the next takes: the places of jobs in their order, all of the head's rank and of one cost; the head is the one at
    -- `known_at`. Nothing else waits up to the last of them: an arrival before that one has them forgotten. A place is believed only when that job is there.
    known_places tid[],
    known_dues   timestamptz[],
    known_cost   integer,
    known_at     smallint,
    -- Whether the tenant has another lane: all of them are charged for what one of them starts.
    siblings     boolean  NOT NULL DEFAULT false,
    -- Told by workers, who know the tenant's plan and the kinds; `told` is their mark of what they told.
    told         bigint   NOT NULL DEFAULT 0,
    weight       integer  NOT NULL DEFAULT 1 CHECK (weight > 0),
    cap          integer,
    tenant_cap   integer,
    -- Microseconds between starts, how many may come at once, and when the last of those is paid for.
    pace         bigint,
    burst        integer  NOT NULL DEFAULT 1,
    paid_until   timestamptz,
    -- Attempts that failed in a row: the breaker.
    failures     integer  NOT NULL DEFAULT 0,
    -- When it was last served, or when something came to it since, or it may be taken from again: what starvation is measured by.
    since        timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    -- When it was last served, among siblings: whose turn it is.
    served_at    timestamptz NOT NULL DEFAULT '-infinity',
    PRIMARY KEY (tenant_id, lane)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE insula.lane ADD COLUMN IF NOT EXISTS reach timestamptz NOT NULL DEFAULT 'infinity',
    ADD COLUMN IF NOT EXISTS served_at timestamptz NOT NULL DEFAULT '-infinity',
    ADD COLUMN IF NOT EXISTS known_places tid[], ADD COLUMN IF NOT EXISTS known_dues timestamptz[],
    ADD COLUMN IF NOT EXISTS known_cost integer, ADD COLUMN IF NOT EXISTS known_at smallint;
CREATE INDEX IF NOT EXISTS lane_ready ON insula.lane (start) WHERE ready;
CREATE INDEX IF NOT EXISTS lane_wake ON insula.lane (wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS lane_blocked ON insula.lane (tenant_id) WHERE blocked;
CREATE INDEX IF NOT EXISTS lane_failing ON insula.lane (tenant_id) WHERE failures > 0;

-- The lanes but '' that a tenant has enqueued to, by which they are counted and, when they are idle, forgotten. No key: one that is new to two
-- transactions is here twice, and neither waits for the other.
CREATE TABLE IF NOT EXISTS insula.lane_name (
    tenant_id bigint      NOT NULL,
    lane      text        NOT NULL,
    -- When it was last found in use.
    seen_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
CREATE INDEX IF NOT EXISTS lane_name_lane ON insula.lane_name (tenant_id, lane);
CREATE INDEX IF NOT EXISTS lane_name_seen ON insula.lane_name (seen_at);
-- What else may be in a lane with a name is in job_waiting and job_running.
CREATE INDEX IF NOT EXISTS job_later_lane ON insula.job (tenant_id, lane) WHERE state = 'l' AND lane <> '';
-- Lanes from before names were written down.
INSERT INTO insula.lane_name (tenant_id, lane)
    SELECT l.tenant_id, l.lane FROM insula.lane l
     WHERE l.lane <> '' AND NOT EXISTS (SELECT FROM insula.lane_name n WHERE n.tenant_id = l.tenant_id AND n.lane = l.lane);

-- Says that something came to a lane. Appended by whoever enqueues, in his own transaction, so that nobody waits for a lane's row
-- and no worker can overlook what is committed later than it looked. Consumed by insula.work().
CREATE TABLE IF NOT EXISTS insula.arrival (
    xid       xid8        NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
    tenant_id bigint      NOT NULL,
    lane      text        NOT NULL,
    rank      smallint    NOT NULL,
    due       timestamptz NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX IF NOT EXISTS arrival_xid ON insula.arrival (xid);

-- One row: the virtual present, from where ready lanes are, from where arrivals are. Locked by whoever chooses.
CREATE TABLE IF NOT EXISTS insula.queue (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    present  bigint  NOT NULL DEFAULT 0,
    floor    bigint  NOT NULL DEFAULT 0,
    arrivals xid8    NOT NULL DEFAULT '0',
    swept_at timestamptz NOT NULL DEFAULT '-infinity',
    -- The tenant that was looked at last for delayed jobs, when too many had come at once.
    turn     bigint  NOT NULL DEFAULT 0
) WITH (fillfactor = 10);
ALTER TABLE insula.queue ADD COLUMN IF NOT EXISTS turn bigint NOT NULL DEFAULT 0;
INSERT INTO insula.queue DEFAULT VALUES ON CONFLICT DO NOTHING;

-- Worker processes. Numbers are given by the database, so that two never have one. `beats` counts; who watches it decides by a clock of
-- his own that it has stopped, so that no jump of this server's clock ends a lease.
CREATE SEQUENCE IF NOT EXISTS insula.worker_no AS bigint;
CREATE TABLE IF NOT EXISTS insula.worker (
    no         bigint PRIMARY KEY,
    name       text   NOT NULL,
    lease_ms   integer NOT NULL CHECK (lease_ms BETWEEN 100 AND 3600000),
    beats      bigint NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
) WITH (fillfactor = 50);

-- Jobs that are cancelled, and not over yet: one that waits is ended by whoever chooses next (insula.end_cancelled()), one that runs when its worker
-- has learned of it with its next beat. Whoever cancels writes here alone, and locks no row of insula.job: his transaction may stay open for as
-- long as he likes, and the queue waits for nobody's.
CREATE TABLE IF NOT EXISTS insula.cancellation (
    tenant_id bigint      NOT NULL,
    id        uuid        NOT NULL,
    at        timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    -- The job that was enqueued since with the key of this one, and has none before this one is ended.
    heir      uuid,
    PRIMARY KEY (tenant_id, id)
);
ALTER TABLE insula.cancellation DROP COLUMN IF EXISTS worker, ADD COLUMN IF NOT EXISTS at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    ADD COLUMN IF NOT EXISTS heir uuid;

-- 2 while a worker that could do more sleeps: then, and only then, enqueueing notifies (a NOTIFY in every commit makes commits wait for
-- each other). 3 while none stays here, in a database of one tenant: then whoever enqueues rings elsewhere (insula.must_ring()). Read and written
-- outside transactions, so now and then a notification is missed; workers also look by themselves.
CREATE SEQUENCE IF NOT EXISTS insula.asleep AS bigint MINVALUE 1 MAXVALUE 3 START 2;
ALTER SEQUENCE insula.asleep MAXVALUE 3;
SELECT pg_catalog.setval('insula.asleep', 2) WHERE NOT (SELECT is_called FROM insula.asleep);

DO $do$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['insula.job', 'insula.job_end'] LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', t);
        EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', t);
        EXECUTE format('DROP POLICY IF EXISTS tenant ON %s', t);
        EXECUTE format('CREATE POLICY tenant ON %s USING (tenant_id = {{tenant}}) WITH CHECK (tenant_id = {{tenant}})', t);
        EXECUTE format('DROP POLICY IF EXISTS queue ON %s', t);
        EXECUTE format('CREATE POLICY queue ON %s TO insula_queue USING (true) WITH CHECK (true)', t);
    END LOOP;
END $do$;
GRANT SELECT, INSERT, UPDATE, DELETE ON insula.job, insula.job_end, insula.lane, insula.arrival, insula.queue, insula.worker,
    insula.cancellation, insula.lane_name TO insula_queue;
GRANT SELECT, UPDATE ON SEQUENCE insula.asleep, insula.worker_no TO insula_queue;
GRANT SELECT ON insula.tenant TO insula_queue;

-- A tenant that is not active has its lanes held: nothing of it starts, nothing of it is lost. Active again, it goes on. One that is removed leaves none.
CREATE OR REPLACE FUNCTION insula.hold_lanes() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $fn$
BEGIN
    IF TG_OP = 'DELETE' THEN
        DELETE FROM insula.cancellation c WHERE c.tenant_id = OLD.no;
    END IF;
    -- Who is choosing goes by the state from before, and may be making one of its lanes: so after him. A tenant that is new has none.
    IF TG_OP <> 'INSERT' THEN
        PERFORM FROM insula.queue FOR UPDATE;
    END IF;
    IF TG_OP = 'DELETE' THEN
        DELETE FROM insula.arrival a WHERE a.tenant_id = OLD.no;
        DELETE FROM insula.lane l WHERE l.tenant_id = OLD.no;
        DELETE FROM insula.lane_name n WHERE n.tenant_id = OLD.no;
    ELSIF NEW.state <> 'active' THEN
        UPDATE insula.lane l SET held = true, ready = false WHERE l.tenant_id = NEW.no;
    ELSE
        UPDATE insula.lane l SET held = false WHERE l.tenant_id = NEW.no AND l.held;
        -- Whoever chooses next puts them where they belong.
        INSERT INTO insula.arrival (tenant_id, lane, rank, due)
            SELECT l.tenant_id, l.lane, -32768, '-infinity' FROM insula.lane l WHERE l.tenant_id = NEW.no;
    END IF;
    RETURN NULL;
END $fn$;
CREATE OR REPLACE TRIGGER hold_lanes AFTER INSERT OR UPDATE OR DELETE ON insula.tenant
    FOR EACH ROW EXECUTE FUNCTION insula.hold_lanes();
RESET ROLE;
