// What is told to whoever looks: what was refused, and what was done.
import type { ReactNode } from "react";
import type { Refusal } from "../api/client";

/** Why something is not shown, or is old. */
export function Refused({ refusal, again, stale = false }: { refusal: Refusal; again?: () => void; stale?: boolean }) {
  return (
    <div className={stale ? "notice warn" : "notice bad"} role="alert">
      <div>
        <strong>{refusal.title}</strong>
        {refusal.detail && <p>{refusal.detail}</p>}
        {stale && <p>What is below is what was last known.</p>}
        {refusal.requestId && <p className="soft small">Request {refusal.requestId}</p>}
      </div>
      {again && (
        <button type="button" onClick={again}>
          Try again
        </button>
      )}
    </div>
  );
}

/** What was done, told once and until it is closed. */
export function Done({ children, close }: { children: ReactNode; close: () => void }) {
  return (
    <div className="notice good" role="status">
      <div>{children}</div>
      <button type="button" className="quiet" aria-label="Close this notice" onClick={close}>
        ✕
      </button>
    </div>
  );
}
