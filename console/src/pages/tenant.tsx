// One tenant: where it lives, and below that its jobs or its schedules.
import { get } from "../api/client";
import { Facts } from "../parts/fields";
import { Refused } from "../parts/notice";
import { Isolation, State } from "../parts/state";
import { Loading } from "../parts/table";
import { usePolled } from "../polled";
import { address, Link, type Place } from "../route";
import { Moment } from "../times";
import { Job } from "./job";
import { Jobs } from "./jobs";
import { TenantSchedules } from "./schedules";
import { Face } from "./tenants";

const EVERY = 10_000;

export function Tenant({ place }: { place: Place }) {
  const [, slug = "", room = "jobs", job] = place.parts;
  const { value: tenant, refusal, again } = usePolled(`tenant ${slug}`, (signal) => get("/v1/tenants/{tenant}", { path: { tenant: slug }, signal }), () => EVERY);
  const tab = (name: string, words: string) => (
    <Link to={address(["tenants", slug, ...(name === "jobs" ? [] : [name])])} aria-current={room === name ? "page" : undefined}>
      {words}
    </Link>
  );
  return (
    <>
      <title>{`${tenant?.name ?? slug} · Insula`}</title>
      <nav className="trail" aria-label="Where you are">
        <Link to={address(["tenants"])}>Tenants</Link>
        <span aria-hidden="true">/</span>
        {job ? <Link to={address(["tenants", slug])}>{slug}</Link> : <span aria-current="page">{slug}</span>}
      </nav>
      {refusal && <Refused refusal={refusal} again={again} stale={tenant !== undefined} />}
      {!tenant && !refusal && <Loading what="the tenant" />}
      {tenant && (
        <>
          <header className="head tenant">
            <Face tenant={tenant} />
            <h1>{tenant.name}</h1>
            <State of={tenant.state} />
          </header>
          {!job && (
            <Facts
              of={[
                ["Plan", tenant.plan],
                ["Isolation", <Isolation key="isolation" of={tenant.isolation} />],
                ["Cell", tenant.placement?.cell],
                ["Database", tenant.placement && <code>{tenant.placement.database}</code>],
                ["Schema", tenant.placement && <code>{tenant.placement.schema}</code>],
                ["Epoch", tenant.placement?.epoch],
                ["Time zone", tenant.settings.time_zone],
                ["Created", <Moment key="created" at={tenant.created_at} />],
              ]}
            />
          )}
          {!job && (
            <nav className="tabs" aria-label="Of this tenant">
              {tab("jobs", "Jobs")}
              {tab("schedules", "Schedules")}
            </nav>
          )}
          {room === "schedules" ? <TenantSchedules tenant={slug} /> : job ? <Job tenant={slug} id={job} /> : <Jobs tenant={slug} place={place} />}
        </>
      )}
    </>
  );
}
