// What comes again: for one tenant, and on the host's own side.
import type { ReactNode } from "react";
import { get, post, type Schema } from "../api/client";
import type { Deed } from "../parts/deed";
import { type Deeds, useDeeds } from "../parts/deeds";
import { Refused } from "../parts/notice";
import { Pager, usePages } from "../parts/pager";
import { Badge } from "../parts/state";
import { type Column, Empty, Loading, Table } from "../parts/table";
import { usePolled } from "../polled";
import { Ago, Moment } from "../times";

type Schedule = Schema["Schedule"];
type HostSchedule = Schema["HostSchedule"];

const EVERY = 5000;

const none = <span className="none">–</span>;

const Came = ({ at }: { at: string | null | undefined }) => (at ? <Ago at={at} /> : none);

/** What both kinds of schedule have. */
interface Common {
  readonly name: string;
  readonly cron: string;
  readonly zone?: string | null;
  readonly paused: boolean;
  readonly next_at?: string | null;
  readonly last_at?: string | null;
  readonly error?: string | null;
}

function Standing({ schedule }: { schedule: Common }) {
  if (schedule.paused) return <Badge tone="warn">paused</Badge>;
  if (!schedule.next_at && schedule.error) return <Badge tone="bad">never comes</Badge>;
  return schedule.next_at ? <Badge tone="good">on</Badge> : <Badge tone="wait">not seen yet</Badge>;
}

function question(schedule: Common, whose: string, act: () => Promise<unknown>): Deed {
  return {
    title: schedule.paused ? `Let ${schedule.name} come again?` : `Pause ${schedule.name}?`,
    says: schedule.paused ? (
      <p>It comes from now on, for {whose}. What would have come meanwhile is not made up for.</p>
    ) : (
      <p>It does not come for {whose} until somebody resumes it. What it started goes on.</p>
    ),
    does: schedule.paused ? "Resume" : "Pause",
    leaves: schedule.paused ? "Leave it paused" : "Leave it on",
    grave: false,
    act: async () => {
      await act();
      return schedule.paused ? `${schedule.name} comes again.` : `${schedule.name} is paused.`;
    },
  };
}

/** Columns that both have, with what is its own in the middle. */
function columns<T extends Common>(own: readonly Column<T>[], act: (schedule: T) => void, under: (schedule: T) => ReactNode): Column<T>[] {
  return [
    {
      head: "Schedule",
      kind: "lead",
      cell: (schedule) => (
        <span className="what">
          <strong>{schedule.name}</strong>
          <small className="soft">{under(schedule)}</small>
        </span>
      ),
    },
    { head: "State", cell: (schedule) => <Standing schedule={schedule} /> },
    {
      head: "Comes",
      kind: "wide",
      cell: (schedule) => (
        <span className="what">
          <code>{schedule.cron}</code>
          <small className="soft">{schedule.zone ?? "the tenant's time zone"}</small>
          {schedule.error && <span className="error">{schedule.error}</span>}
        </span>
      ),
    },
    ...own,
    {
      head: "Next",
      cell: (schedule) =>
        schedule.next_at ? (
          <span className="what">
            <Ago at={schedule.next_at} />
            <small className="soft">
              <Moment at={schedule.next_at} />
            </small>
          </span>
        ) : (
          none
        ),
    },
    { head: "Last", cell: (schedule) => <Came at={schedule.last_at} /> },
    {
      head: "Actions",
      kind: "acts",
      cell: (schedule) => (
        <button type="button" aria-label={`${schedule.paused ? "Resume" : "Pause"} ${schedule.name}`} onClick={() => act(schedule)}>
          {schedule.paused ? "Resume" : "Pause"}
        </button>
      ),
    },
  ];
}

function tenantColumns(tenant: string, deeds: Deeds): Column<Schedule>[] {
  const act = (schedule: Schedule) => {
    const input = { path: { tenant, schedule: schedule.name } };
    const call = schedule.paused
      ? () => post("/v1/tenants/{tenant}/schedules/{schedule}/resume", input)
      : () => post("/v1/tenants/{tenant}/schedules/{schedule}/pause", input);
    deeds.ask(question(schedule, tenant, call));
  };
  const whose = (schedule: Schedule) => (schedule.origin === "code" ? "every tenant has it" : "this tenant's own");
  return columns([{ head: "Job", cell: (schedule) => schedule.kind }], act, whose);
}

export function TenantSchedules({ tenant }: { tenant: string }) {
  const pages = usePages(tenant);
  const query = pages.cursor ? { cursor: pages.cursor } : {};
  const found = usePolled(
    `schedules ${tenant} ${pages.cursor}`,
    (signal) => get("/v1/tenants/{tenant}/schedules", { path: { tenant }, query, signal }),
    () => EVERY,
  );
  const deeds = useDeeds(found.again);
  return (
    <section aria-label="Schedules">
      {deeds.shown}
      {found.refusal && <Refused refusal={found.refusal} again={found.again} stale={found.value !== undefined} />}
      {!found.value && !found.refusal && <Loading what="schedules" />}
      {found.value && found.value.items.length > 0 && (
        <>
          <Table label="Schedules" columns={tenantColumns(tenant, deeds)} rows={found.value.items} of={(schedule) => schedule.name} />
          <Pager pages={pages} next={found.value.next} label="schedules" />
        </>
      )}
      {found.value?.items.length === 0 && (
        <Empty title="Nothing comes again">
          <p>No schedule is this tenant's, and the application declares none for every tenant.</p>
        </Empty>
      )}
    </section>
  );
}

function hostColumns(deeds: Deeds): Column<HostSchedule>[] {
  const act = (schedule: HostSchedule) => {
    const input = { path: { schedule: schedule.name } };
    const call = schedule.paused ? () => post("/v1/host-schedules/{schedule}/resume", input) : () => post("/v1/host-schedules/{schedule}/pause", input);
    deeds.ask(question(schedule, "the host", call));
  };
  const firing = (schedule: HostSchedule) => (schedule.firing ? <Badge tone="run">attempt {schedule.attempt}</Badge> : none);
  return columns([{ head: "At work", cell: firing }], act, () => "of the host");
}

export function HostSchedules() {
  const pages = usePages("host");
  const query = pages.cursor ? { cursor: pages.cursor } : {};
  const found = usePolled(`host schedules ${pages.cursor}`, (signal) => get("/v1/host-schedules", { query, signal }), () => EVERY);
  const deeds = useDeeds(found.again);
  return (
    <>
      <title>Schedules · Insula</title>
      <header className="head">
        <h1>Schedules of the host</h1>
        <p className="soft">What is done once, wherever workers are. A tenant's own are on the tenant's page.</p>
      </header>
      {deeds.shown}
      {found.refusal && <Refused refusal={found.refusal} again={found.again} stale={found.value !== undefined} />}
      {!found.value && !found.refusal && <Loading what="schedules" />}
      {found.value && found.value.items.length > 0 && (
        <>
          <Table label="Schedules of the host" columns={hostColumns(deeds)} rows={found.value.items} of={(schedule) => schedule.name} />
          <Pager pages={pages} next={found.value.next} label="schedules" />
        </>
      )}
      {found.value?.items.length === 0 && (
        <Empty title="The host has no schedules">
          <p>An application declares them in its code; workers bring them here.</p>
        </Empty>
      )}
    </>
  );
}
