// States and isolation modes, in colour, shape and word: never by colour alone.
import type { ReactNode } from "react";

export type Tone = "plain" | "wait" | "run" | "good" | "bad" | "warn";

export function Badge({ tone, children }: { tone: Tone; children: ReactNode }) {
  return <span className={`badge ${tone}`}>{children}</span>;
}

const TONES: Record<string, Tone> = {
  // Of jobs.
  waiting: "wait",
  later: "warn",
  running: "run",
  stopping: "warn",
  done: "good",
  dead: "bad",
  cancelled: "plain",
  // Of tenants.
  active: "good",
  provisioning: "run",
  suspended: "warn",
  deleting: "bad",
  deleted: "plain",
  failed: "bad",
  // Of cells.
  ready: "good",
  free: "wait",
  requested: "run",
  draining: "warn",
  removing: "warn",
  down: "bad",
};

export function State({ of }: { of: string }) {
  return <Badge tone={TONES[of] ?? "plain"}>{of}</Badge>;
}

/** How a tenant is kept apart, drawn as the house it lives in: a floor, a flat, a building, an island. */
const DRAWN: Record<string, ReactNode> = {
  row: <path d="M2 3.5h12M2 8h12M2 12.5h12" />,
  schema: <path d="M2.5 2.5h11v11h-11zM8 2.5v11M2.5 8h11" />,
  database: <path d="M3 4c0-1.1 2.2-2 5-2s5 .9 5 2v8c0 1.1-2.2 2-5 2s-5-.9-5-2zM3 4c0 1.1 2.2 2 5 2s5-.9 5-2" />,
  cell: <path d="M3 14V4.5a2 2 0 0 1 2-2h6a2 2 0 0 1 2 2V14zM6.5 14v-2.5a1.5 1.5 0 0 1 3 0V14M6 6h.01M10 6h.01" />,
};

export function Isolation({ of }: { of: string | null | undefined }) {
  if (!of) return <span className="soft">not placed</span>;
  return (
    <span className="isolation">
      <svg viewBox="0 0 16 16" aria-hidden="true" className="glyph">
        {DRAWN[of]}
      </svg>
      {of}
    </span>
  );
}
