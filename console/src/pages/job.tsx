// One job: how far it is, what went wrong, and on demand what it was asked.
import { useRef, useState } from "react";
import { get, type Refusal, refused, type Schema } from "../api/client";
import { useDeeds } from "../parts/deeds";
import { Facts } from "../parts/fields";
import { Refused } from "../parts/notice";
import { State } from "../parts/state";
import { Loading } from "../parts/table";
import { usePolled } from "../polled";
import { Bar, said } from "../progress";
import { Moment } from "../times";
import { Acts } from "./job-deeds";
import { living, Since, word } from "./jobs";

type Found = Schema["Job"];

const SOON = 1000;
const LATER = 4000;

const moment = (at: string | null | undefined) => at && <Moment at={at} />;

export function Job({ tenant, id }: { tenant: string; id: string }) {
  const of = `job ${tenant} ${id}`;
  const { value, refusal, again } = usePolled(
    of,
    (signal) => get("/v1/tenants/{tenant}/jobs/{job}", { path: { tenant, job: id }, signal }),
    (job) => (living(job) ? SOON : LATER),
  );
  const deeds = useDeeds(again);
  const last = useRef<{ of: string; job: Found }>(undefined);
  if (value) last.current = { of, job: value };
  const job = last.current?.of === of ? last.current.job : undefined;
  const gone = refusal?.status === 404 && job !== undefined;

  return (
    <section aria-label="Job" className="job">
      {deeds.shown}
      {gone ? (
        <p className="notice" role="status">
          It has ended, and its end is not kept. What is below is what it last said.
        </p>
      ) : (
        refusal && <Refused refusal={refusal} again={again} stale={job !== undefined} />
      )}
      {!job && !refusal && <Loading what="the job" />}
      {job && (
        <>
          <header className="head">
            <h2>{job.kind}</h2>
            {!gone && <State of={word(job)} />}
            {!gone && (
              <span className="soft">
                <Since job={job} />
              </span>
            )}
            <span className="acts">{!gone && <Acts tenant={tenant} job={job} deeds={deeds} />}</span>
          </header>
          <Bar progress={job.progress} running={job.state === "running" && !gone} label="Progress" />
          {job.error && (
            <figure className={job.state === "dead" ? "fault dead" : "fault"}>
              <figcaption>What went wrong last</figcaption>
              <pre>{job.error}</pre>
            </figure>
          )}
          <Facts
            of={[
              ["Id", <code key="id">{job.id}</code>],
              ["Attempt", `${job.attempt} of ${job.attempts}`],
              ["Asked for", moment(job.created_at)],
              ["By", job.principal],
              ["Due", moment(job.due)],
              ["Last attempt began", moment(job.started_at)],
              ["Too late after", moment(job.deadline)],
              ["Ended", moment(job.ended_at)],
              ["Kept until", moment(job.expires_at)],
              ["Priority", job.priority === 0 ? "" : job.priority],
              ["Lane", job.lane],
              ["Worker", job.worker],
              ["Key", job.key && <code>{job.key}</code>],
              ["Trace", job.trace && <code>{job.trace}</code>],
              // What is no share of a whole is said in full.
              ["Progress", job.progress !== null && job.progress !== undefined && said(job.progress).share === undefined ? <code>{JSON.stringify(job.progress)}</code> : ""],
            ]}
          />
          {!gone && <Body key={of} tenant={tenant} id={id} />}
        </>
      )}
    </section>
  );
}

/** The tenant's own data: shown when somebody asks for it, because that is written down. */
function Body({ tenant, id }: { tenant: string; id: string }) {
  const [body, setBody] = useState<Schema["JobBody"]>();
  const [refusal, setRefusal] = useState<Refusal>();
  const look = async () => {
    setRefusal(undefined);
    try {
      setBody(await get("/v1/tenants/{tenant}/jobs/{job}/body", { path: { tenant, job: id } }));
    } catch (error) {
      setRefusal(refused(error));
    }
  };
  const written = (value: unknown) => <pre>{JSON.stringify(value, null, 2)}</pre>;
  return (
    <section className="body" aria-label="What it was asked">
      {refusal && <Refused refusal={refusal} />}
      {body ? (
        <>
          <h3>It was asked</h3>
          {written(body.body)}
          {body.result !== null && body.result !== undefined && (
            <>
              <h3>It answered</h3>
              {written(body.result)}
            </>
          )}
        </>
      ) : (
        <p>
          <button type="button" onClick={() => void look()}>
            Show what it was asked
          </button>
          <span className="soft small">The tenant's own data: the audit log says who looked.</span>
        </p>
      )}
    </section>
  );
}
