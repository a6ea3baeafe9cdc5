// What an operator may do to a job, in a list and on its own page alike.
import { post, type Schema } from "../api/client";
import type { Deed } from "../parts/deed";
import type { Deeds } from "../parts/deeds";

type Job = Schema["Job"];

/** Its first digits are its time; the last tell it from its like. */
export const short = (id: string): string => id.slice(-12);

function cancel(tenant: string, job: Job): Deed {
  const running = job.state === "running";
  return {
    title: `Cancel ${job.kind}?`,
    says: (
      <p>
        {running ? "It is told to stop, and is over when it stops. What it has done until then stays done." : "It is over at once, and does not run."} Job <code>{short(job.id)}</code> of {tenant}.
      </p>
    ),
    does: "Cancel the job",
    leaves: "Leave it",
    grave: true,
    act: async () => {
      const now = await post("/v1/tenants/{tenant}/jobs/{job}/cancel", { path: { tenant, job: job.id } });
      return now.state === "running" ? `${now.kind} ${short(now.id)} was told to stop.` : `${now.kind} ${short(now.id)} is cancelled.`;
    },
  };
}

function retry(tenant: string, job: Job): Deed {
  return {
    title: `Try ${job.kind} ${job.state === "dead" ? "again" : "now"}?`,
    says: (
      <p>
        {job.state === "dead" ? "It waits for its turn again, as if it had just been asked for." : "It does not wait for its time, but goes as soon as a worker is free."} Job{" "}
        <code>{short(job.id)}</code> of {tenant}.
      </p>
    ),
    does: job.state === "dead" ? "Try again" : "Try now",
    leaves: "Leave it",
    grave: false,
    act: async () => {
      const now = await post("/v1/tenants/{tenant}/jobs/{job}/retry", { path: { tenant, job: job.id } });
      return `${now.kind} ${short(now.id)} waits for its turn.`;
    },
  };
}

export function Acts({ tenant, job, deeds }: { tenant: string; job: Job; deeds: Deeds }) {
  const name = `${job.kind} ${short(job.id)}`;
  const living = job.state === "waiting" || job.state === "later" || job.state === "running";
  return (
    <>
      {(job.state === "dead" || job.state === "later") && (
        <button type="button" aria-label={`Try ${name} ${job.state === "dead" ? "again" : "now"}`} onClick={() => deeds.ask(retry(tenant, job))}>
          {job.state === "dead" ? "Try again" : "Try now"}
        </button>
      )}
      {living && !job.cancelling && (
        <button type="button" aria-label={`Cancel ${name}`} onClick={() => deeds.ask(cancel(tenant, job))}>
          Cancel
        </button>
      )}
    </>
  );
}
