// Page by page through a list that the API hands out by cursors: forward by its `next`, back by what was seen.
import { useState } from "react";

export interface Pages {
  /** Where this page begins. */
  readonly cursor: string | undefined;
  readonly number: number;
  readonly on: (next: string) => void;
  readonly back: () => void;
}

/** Another `of` is another list: it begins at its beginning. */
export function usePages(of: string): Pages {
  const [trail, setTrail] = useState<{ of: string; cursors: readonly string[] }>({ of, cursors: [] });
  const cursors = trail.of === of ? trail.cursors : [];
  return {
    cursor: cursors.at(-1),
    number: cursors.length + 1,
    on: (next) => setTrail({ of, cursors: [...cursors, next] }),
    back: () => setTrail({ of, cursors: cursors.slice(0, -1) }),
  };
}

export function Pager({ pages, next, label }: { pages: Pages; next: string | null | undefined; label: string }) {
  if (pages.number === 1 && !next) return null;
  return (
    <nav className="pager" aria-label={`Pages of ${label}`}>
      <button type="button" disabled={pages.number === 1} onClick={pages.back}>
        ← Back
      </button>
      <span className="soft">Page {pages.number}</span>
      <button type="button" disabled={!next} onClick={() => next && pages.on(next)}>
        More →
      </button>
    </nav>
  );
}
