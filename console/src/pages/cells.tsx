// Where tenants live, and who works there.
import { get, type Schema } from "../api/client";
import { Refused } from "../parts/notice";
import { Badge, State } from "../parts/state";
import { type Column, Empty, Loading, Table } from "../parts/table";
import { usePolled } from "../polled";
import { Span } from "../times";

type Cell = Schema["Cell"];
type Worker = Schema["Worker"];

const CELLS_EVERY = 10_000;
/** The answer takes a second or two: workers are watched while it is made. */
const WORKERS_EVERY = 5000;

const none = <span className="none">–</span>;

function Full({ cell }: { cell: Cell }) {
  const share = cell.capacity > 0 ? Math.min(1, cell.tenants / cell.capacity) : 0;
  return (
    <div className="progress">
      <div className={!cell.dedicated && share > 0.9 ? "bar full" : "bar"} role="meter" aria-label={`Tenants of ${cell.name}`} aria-valuemin={0} aria-valuemax={cell.capacity} aria-valuenow={cell.tenants}>
        <div className="fill" style={{ transform: `scaleX(${share})` }} />
      </div>
      <span className="said">
        {cell.tenants.toLocaleString()} of {cell.capacity.toLocaleString()}
      </span>
    </div>
  );
}

const CELLS: readonly Column<Cell>[] = [
  {
    head: "Cell",
    kind: "lead",
    cell: (cell) => (
      <span className="what">
        <strong>{cell.name}</strong>
        <small className="soft">{cell.region}</small>
      </span>
    ),
  },
  { head: "State", cell: (cell) => <State of={cell.state} /> },
  { head: "Tenants", kind: "wide", cell: (cell) => <Full cell={cell} /> },
  { head: "For", cell: (cell) => (cell.dedicated ? "one tenant" : "many") },
  { head: "Labels", cell: (cell) => (cell.labels.length > 0 ? cell.labels.join(", ") : none) },
  { head: "Server", cell: (cell) => (cell.host ? <code>{`${cell.host}:${cell.port}`}</code> : none) },
  { head: "Replicas", kind: "number", cell: (cell) => cell.replicas?.length ?? 0 },
];

const WORKERS: readonly Column<Worker>[] = [
  {
    head: "Worker",
    kind: "lead",
    cell: (worker) => (
      <span className="what">
        <strong>{worker.name}</strong>
        <small className="soft">number {worker.no}</small>
      </span>
    ),
  },
  { head: "State", cell: (worker) => (worker.alive ? <Badge tone="good">alive</Badge> : <Badge tone="bad">silent</Badge>) },
  { head: "Cell", cell: (worker) => worker.cell },
  { head: "Database", cell: (worker) => <code>{worker.database}</code> },
  {
    head: "At work",
    kind: "wide",
    cell: (worker) => {
      const kinds = Object.entries(worker.kinds).map(([kind, count]) => `${count} ${kind}`);
      return worker.running > 0 ? kinds.join(", ") || worker.running : <span className="soft">idle</span>;
    },
  },
  { head: "Serving for", cell: (worker) => <Span at={worker.started_at} /> },
];

export function Cells() {
  const cells = usePolled("cells", (signal) => get("/v1/cells", { query: { limit: 500 }, signal }), () => CELLS_EVERY);
  const workers = usePolled("workers", (signal) => get("/v1/workers", { signal }), () => WORKERS_EVERY);
  return (
    <>
      <title>Cells and workers · Insula</title>
      <header className="head">
        <h1>Cells and workers</h1>
      </header>
      <section aria-label="Cells">
        {cells.refusal && <Refused refusal={cells.refusal} again={cells.again} stale={cells.value !== undefined} />}
        {!cells.value && !cells.refusal && <Loading what="cells" />}
        {cells.value && cells.value.items.length > 0 && <Table label="Cells" columns={CELLS} rows={cells.value.items} of={(cell) => cell.name} />}
        {cells.value?.items.length === 0 && (
          <Empty title="No cells">
            <p>
              <code>insula cell register NAME --host HOST</code> adds a Postgres that you run.
            </p>
          </Empty>
        )}
      </section>
      <section aria-label="Workers">
        <header className="head">
          <h2>Workers</h2>
          <p className="soft">One line for each queue that a process serves: shared databases, and those of single tenants while they are visited.</p>
        </header>
        {workers.refusal && <Refused refusal={workers.refusal} again={workers.again} stale={workers.value !== undefined} />}
        {workers.value?.away.length ? (
          <p className="notice warn" role="status">
            Nothing is known of the workers of {workers.value.away.join(", ")}: the database server there does not answer.
          </p>
        ) : null}
        {!workers.value && !workers.refusal && <Loading what="workers" />}
        {workers.value && workers.value.items.length > 0 && (
          <Table label="Workers" columns={WORKERS} rows={workers.value.items} of={(worker) => `${worker.cell} ${worker.database} ${worker.no}`} />
        )}
        {workers.value?.items.length === 0 && workers.value.away.length === 0 && (
          <Empty title="Nobody runs jobs">
            <p>A process of the role worker does: see the guide to jobs.</p>
          </Empty>
        )}
      </section>
    </>
  );
}
