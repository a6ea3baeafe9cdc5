// The frame around every page, and which page it is.
import { useEffect } from "react";
import { get, type Schema } from "./api/client";
import { Mark } from "./parts/mark";
import { Empty } from "./parts/table";
import { Cells } from "./pages/cells";
import { SignIn } from "./pages/sign-in";
import { HostSchedules } from "./pages/schedules";
import { Tenant } from "./pages/tenant";
import { Tenants } from "./pages/tenants";
import { type Polled, usePolled } from "./polled";
import { address, Link, type Place, usePlace } from "./route";
import { signOut, useSession } from "./session";
import { heed } from "./times";

const STATUS_EVERY = 10_000;

const ROOMS = [
  ["tenants", "Tenants"],
  ["schedules", "Schedules"],
  ["cells", "Cells"],
] as const;

export function App() {
  const { key } = useSession();
  // Another key is another reader: nothing of the last one's is left.
  return key === null ? <SignIn /> : <House key={key} />;
}

function House() {
  const place = usePlace();
  const status = usePolled("status", (signal) => get("/v1/status", { signal }), () => STATUS_EVERY);
  const now = status.value?.now;
  useEffect(() => {
    if (now) heed(now);
  }, [now]);
  const room = place.parts[0] ?? "tenants";
  return (
    <>
      <a className="skip" href="#page">
        To the page
      </a>
      <header className="frame">
        <Link to={address(["tenants"])} className="brand">
          <Mark />
          Insula
        </Link>
        <nav aria-label="Console">
          {ROOMS.map(([name, words]) => (
            <Link key={name} to={address([name])} aria-current={room === name ? "page" : undefined}>
              {words}
            </Link>
          ))}
        </nav>
        <Whole status={status} />
        <button type="button" className="quiet" onClick={() => signOut()}>
          Sign out
        </button>
      </header>
      <main id="page" tabIndex={-1}>
        <Page place={place} room={room} />
      </main>
      <footer>
        {status.value && <span>Insula {status.value.version}</span>}
        <a href="/console/licences.txt">Licences</a>
      </footer>
    </>
  );
}

/** How the control plane is, in a word. */
function Whole({ status: { value, refusal } }: { status: Polled<Schema["Status"]> }) {
  const [tone, words] = refusal ? ["bad", "away"] : !value ? ["plain", "…"] : value.ready ? ["good", "ready"] : ["warn", "starting"];
  return (
    <span className={`badge ${tone} whole`} role="status" title={refusal?.message}>
      {words}
    </span>
  );
}

function Page({ place, room }: { place: Place; room: string }) {
  const { parts } = place;
  if (room === "tenants" && parts.length <= 1) return <Tenants place={place} />;
  if (room === "tenants" && (parts.length === 2 || (parts.length <= 4 && (parts[2] === "jobs" || (parts[2] === "schedules" && parts.length === 3))))) {
    return <Tenant key={parts[1]} place={place} />;
  }
  if (room === "schedules" && parts.length === 1) return <HostSchedules />;
  if (room === "cells" && parts.length === 1) return <Cells />;
  return (
    <Empty title="There is no such page">
      <title>Insula</title>
      <p>
        <Link to={address(["tenants"])}>To the tenants</Link>
      </p>
    </Empty>
  );
}
