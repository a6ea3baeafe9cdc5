// All tenants: who they are, what they bought, where they live.
import { useEffect } from "react";
import { get, type Schema } from "../api/client";
import { Choice, Search } from "../parts/fields";
import { Refused } from "../parts/notice";
import { Pager, usePages } from "../parts/pager";
import { Isolation, State } from "../parts/state";
import { type Column, Empty, Loading, Table } from "../parts/table";
import { usePolled } from "../polled";
import { address, go, Link, type Place } from "../route";

type Tenant = Schema["Tenant"];

const STATES: readonly Schema["TenantState"][] = ["provisioning", "active", "suspended", "deleted"];
const EVERY = 10_000;
const NEVER = () => 0;

/** A tenant's colour and first letter, as its own pages have them. */
export function Face({ tenant }: { tenant: Tenant }) {
  const color = tenant.settings.color;
  return (
    <span className="face" aria-hidden="true" style={color ? { borderColor: color, color } : {}}>
      <span>{(tenant.name || tenant.slug).slice(0, 1).toUpperCase()}</span>
    </span>
  );
}

const COLUMNS: readonly Column<Tenant>[] = [
  {
    head: "Tenant",
    kind: "lead",
    cell: (tenant) => (
      <Link to={address(["tenants", tenant.slug])} className="who">
        <Face tenant={tenant} />
        <span>
          <strong>{tenant.name}</strong>
          <small className="soft">{tenant.slug}</small>
        </span>
      </Link>
    ),
  },
  { head: "State", cell: (tenant) => <State of={tenant.state} /> },
  { head: "Plan", cell: (tenant) => tenant.plan },
  { head: "Isolation", cell: (tenant) => <Isolation of={tenant.isolation} /> },
  { head: "Cell", cell: (tenant) => tenant.placement?.cell ?? <span className="none">–</span> },
  {
    head: "Placement",
    kind: "wide",
    cell: (tenant) =>
      tenant.placement ? (
        <span className="place">
          <code>
            {tenant.placement.database}
            <wbr />.{tenant.placement.schema}
          </code>
          {tenant.placement.state !== "active" && <State of={tenant.placement.state} />}
        </span>
      ) : (
        <span className="none">–</span>
      ),
  },
];

export function Tenants({ place }: { place: Place }) {
  const [q, state, plan, cell] = ["q", "state", "plan", "cell"].map((name) => place.query.get(name) ?? "") as [string, string, string, string];
  const asked = { q, state, plan, cell };
  const of = JSON.stringify(asked);
  const pages = usePages(of);
  const query = {
    ...(q && { q }),
    ...(STATES.includes(state as Schema["TenantState"]) && { state: state as Schema["TenantState"] }),
    ...(plan && { plan }),
    ...(cell && { cell }),
    ...(pages.cursor && { cursor: pages.cursor }),
  };
  const found = usePolled(`tenants ${JSON.stringify(query)}`, (signal) => get("/v1/tenants", { query, signal }), () => EVERY);
  const plans = usePolled("plans", (signal) => get("/v1/plans", { query: { limit: 500 }, signal }), NEVER);
  const cells = usePolled("cells", (signal) => get("/v1/cells", { query: { limit: 500 }, signal }), NEVER);
  const narrow = (change: Partial<typeof asked>) => go(address(["tenants"], { ...asked, ...change }), "replace");

  // As in many places: a slash goes to the search.
  useEffect(() => {
    const slash = (event: KeyboardEvent) => {
      if (event.key !== "/" || event.ctrlKey || event.metaKey || event.target instanceof HTMLInputElement) return;
      event.preventDefault();
      document.querySelector<HTMLInputElement>(".search input")?.focus();
    };
    document.addEventListener("keydown", slash);
    return () => document.removeEventListener("keydown", slash);
  }, []);

  const narrowed = q || state || plan || cell;
  return (
    <>
      <title>Tenants · Insula</title>
      <header className="head">
        <h1>Tenants</h1>
      </header>
      <search className="filters">
        <Search label="Search" value={q} found={(q) => narrow({ q })} />
        <Choice label="State" value={state} chosen={(state) => narrow({ state })} of={[["", "not deleted"], ...STATES.map((name) => [name, name] as const)]} />
        <Choice label="Plan" value={plan} chosen={(plan) => narrow({ plan })} of={[["", "any"], ...names(plans.value?.items, plan)]} />
        <Choice label="Cell" value={cell} chosen={(cell) => narrow({ cell })} of={[["", "any"], ...names(cells.value?.items, cell)]} />
      </search>
      {found.refusal && <Refused refusal={found.refusal} again={found.again} stale={found.value !== undefined} />}
      {!found.value && !found.refusal && <Loading what="tenants" />}
      {found.value && found.value.items.length > 0 && (
        <>
          <Table label="Tenants" columns={COLUMNS} rows={found.value.items} of={(tenant) => tenant.id} />
          <Pager pages={pages} next={found.value.next} label="tenants" />
        </>
      )}
      {found.value?.items.length === 0 &&
        (narrowed ? (
          <Empty title="No tenant is like that">
            <button type="button" onClick={() => go(address(["tenants"]), "replace")}>
              Show all
            </button>
          </Empty>
        ) : (
          <Empty title="No tenants yet">
            <p>
              <code>insula tenant create SLUG --plan bronze</code> makes the first.
            </p>
          </Empty>
        ))}
    </>
  );
}

/** What can be chosen; what is chosen is among it, also while the rest is not known. */
function names(items: readonly { name: string }[] | undefined, chosen: string): (readonly [string, string])[] {
  const known = (items ?? []).map(({ name }) => name);
  if (chosen && !known.includes(chosen)) known.push(chosen);
  return known.map((name) => [name, name] as const);
}
