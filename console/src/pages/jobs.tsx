// A tenant's jobs, newest first, as they get on: bars move while one looks.
import { get, post, remove, type Schema } from "../api/client";
import { useDeeds } from "../parts/deeds";
import { Search } from "../parts/fields";
import { Refused } from "../parts/notice";
import { Pager, usePages } from "../parts/pager";
import { State } from "../parts/state";
import { type Column, Empty, Loading, Table } from "../parts/table";
import { usePolled } from "../polled";
import { Bar } from "../progress";
import { address, go, Link, type Place } from "../route";
import { Ago, Span } from "../times";
import { Acts, short } from "./job-deeds";

type Job = Schema["Job"];
type JobState = Schema["JobState"];

const STATES: readonly JobState[] = ["waiting", "later", "running", "done", "dead", "cancelled"];
/** While something is under way, and while nothing is. */
const SOON = 1000;
const LATER = 4000;

export const living = (job: Job): boolean => job.state === "running" || job.state === "waiting";

/** As it stands, in a word. */
export const word = (job: Job): string => (job.cancelling ? "stopping" : job.state);

/** Since when it is as it is, or when it is to be. */
export function Since({ job }: { job: Job }) {
  switch (job.state) {
    case "waiting":
      return <Span at={job.due ?? job.created_at} before="waiting " />;
    case "later":
      return job.due ? <Ago at={job.due} /> : <Ago at={job.created_at} />;
    case "running":
      return <Span at={job.started_at ?? job.created_at} before="at work " />;
    default:
      return <Ago at={job.ended_at ?? job.created_at} />;
  }
}

function columns(tenant: string, deeds: ReturnType<typeof useDeeds>): Column<Job>[] {
  return [
    {
      head: "Job",
      kind: "lead",
      cell: (job) => (
        <Link to={address(["tenants", tenant, "jobs", job.id])} className="what" title={job.id}>
          <strong>{job.kind}</strong>
          <small className="soft">
            <code>{short(job.id)}</code>
            {job.lane && ` · lane ${job.lane}`}
          </small>
        </Link>
      ),
    },
    { head: "State", cell: (job) => <State of={word(job)} /> },
    {
      head: "Progress or error",
      kind: "wide",
      cell: (job) => (
        <>
          <Bar progress={job.progress} running={job.state === "running"} label={`Progress of ${job.kind} ${short(job.id)}`} />
          {job.error && (
            <span className={job.state === "dead" ? "error" : "error soft"} title={job.error}>
              {job.error}
            </span>
          )}
          {!job.error && !job.progress && job.state !== "running" && <span className="none">–</span>}
        </>
      ),
    },
    {
      head: "Attempt",
      kind: "number",
      cell: (job) => (
        <>
          {job.attempt}
          <span className="soft"> of {job.attempts}</span>
        </>
      ),
    },
    { head: "Since", cell: (job) => <Since job={job} /> },
    { head: "Actions", kind: "acts", cell: (job) => <Acts tenant={tenant} job={job} deeds={deeds} /> },
  ];
}

export function Jobs({ tenant, place }: { tenant: string; place: Place }) {
  const kind = place.query.get("kind") ?? "";
  const state = STATES.find((name) => name === place.query.get("state"));
  const pages = usePages(`${tenant} ${state} ${kind}`);
  const query = { ...(state && { state }), ...(kind && { kind }), ...(pages.cursor && { cursor: pages.cursor }) };
  const found = usePolled(
    `jobs ${tenant} ${JSON.stringify(query)}`,
    (signal) => get("/v1/tenants/{tenant}/jobs", { path: { tenant }, query, signal }),
    (page) => (page.items.some(living) ? SOON : LATER),
  );
  const deeds = useDeeds(found.again);
  const to = (change: { state?: JobState | undefined; kind?: string }) => address(["tenants", tenant], { state, kind, ...change });

  return (
    <section aria-label="Jobs">
      <search className="filters">
        <nav className="chips" aria-label="Jobs by state">
          <Link to={to({ state: undefined })} aria-current={state ? undefined : "true"}>
            all
          </Link>
          {STATES.map((name) => (
            <Link key={name} to={to({ state: name })} aria-current={state === name ? "true" : undefined}>
              {name}
            </Link>
          ))}
        </nav>
        <Search label="Kind" value={kind} found={(kind) => go(to({ kind }), "replace")} />
      </search>
      {state === "dead" && (found.value?.items.length ?? 0) > 0 && <Dead tenant={tenant} deeds={deeds} />}
      {deeds.shown}
      {found.refusal && <Refused refusal={found.refusal} again={found.again} stale={found.value !== undefined} />}
      {!found.value && !found.refusal && <Loading what="jobs" />}
      {found.value && found.value.items.length > 0 && (
        <>
          <Table label="Jobs" columns={columns(tenant, deeds)} rows={found.value.items} of={(job) => job.id} />
          <Pager pages={pages} next={found.value.next} label="jobs" />
        </>
      )}
      {found.value?.items.length === 0 && (
        <Empty title={state === "dead" ? "No dead letters" : state || kind ? "No job is like that" : "No jobs"}>
          <p>{state === "dead" ? "Nothing of this tenant was given up." : "Here are those that wait and run, and the ends that are kept."}</p>
        </Empty>
      )}
    </section>
  );
}

/** What may be done to all that were given up. */
function Dead({ tenant, deeds }: { tenant: string; deeds: ReturnType<typeof useDeeds> }) {
  const letters = (count: number) => (count === 1 ? "1 dead letter" : `${count} dead letters`);
  const path = { tenant };
  return (
    <div className="all-dead">
      <p>Jobs that were given up, until somebody has them tried again or forgets them.</p>
      <button
        type="button"
        onClick={() =>
          deeds.ask({
            title: "Try all dead letters again?",
            says: <p>All of {tenant} wait for their turn again, but those whose keys living jobs have. Mend first what they died of.</p>,
            does: "Try all again",
            leaves: "Leave them",
            grave: false,
            act: async () => `${letters((await post("/v1/tenants/{tenant}/dead-jobs/replay", { path })).jobs)} of ${tenant} wait again.`,
          })
        }
      >
        Try all again
      </button>
      <button
        type="button"
        onClick={() =>
          deeds.ask({
            title: "Forget all dead letters?",
            says: <p>All of {tenant} are gone then, with what they were asked. Nothing brings them back.</p>,
            does: "Forget them all",
            leaves: "Keep them",
            grave: true,
            act: async () => `Forgot ${letters((await remove("/v1/tenants/{tenant}/dead-jobs", { path })).jobs)} of ${tenant}.`,
          })
        }
      >
        Forget all
      </button>
    </div>
  );
}
