// What the API says, asked for again and again while somebody looks: a page that is hidden asks nothing.
//
// Always: one question at a time; what was last known stays while the API is away; whoever is refused asks again ever more seldom.
import { useCallback, useEffect, useRef, useState } from "react";
import { type Refusal, refused } from "./api/client";

/** Longest pause between two tries, milliseconds. */
const SELDOM = 30_000;

export interface Polled<T> {
  /** What was last known. */
  readonly value: T | undefined;
  /** Why the last try gave nothing. */
  readonly refusal: Refusal | undefined;
  /** Asks at once. */
  readonly again: () => void;
}

interface Known<T> {
  readonly of: string;
  readonly value: T | undefined;
  readonly refusal: Refusal | undefined;
}

/**
 * Asks by `load`. Another `of` is another question: what was known of the last is forgotten.
 * `every` says after how many milliseconds the answer is old; 0 for never.
 */
export function usePolled<T>(of: string, load: (signal: AbortSignal) => Promise<T>, every: (value: T) => number): Polled<T> {
  const [known, setKnown] = useState<Known<T>>({ of, value: undefined, refusal: undefined });
  const latest = useRef({ load, every });
  latest.current = { load, every };
  const wake = useRef(() => {});

  useEffect(() => {
    let asking: AbortController | undefined;
    let timer: number | undefined;
    let failures = 0;
    let over = false;

    const ask = async () => {
      clearTimeout(timer);
      asking?.abort();
      const mine = new AbortController();
      asking = mine;
      let pause;
      try {
        const value = await latest.current.load(mine.signal);
        if (over || mine.signal.aborted) return;
        failures = 0;
        setKnown({ of, value, refusal: undefined });
        pause = latest.current.every(value);
      } catch (error) {
        if (over || mine.signal.aborted) return;
        const refusal = refused(error);
        failures += 1;
        setKnown((was) => ({ of, value: was.of === of ? was.value : undefined, refusal }));
        // What is not there, or not allowed, is not asked for again.
        pause = refusal.status >= 400 && refusal.status < 500 && refusal.status !== 429 ? 0 : Math.min(SELDOM, Math.max(refusal.after * 1000, 1000 * 2 ** failures));
      }
      asking = undefined;
      if (pause > 0 && !document.hidden) timer = window.setTimeout(ask, pause);
    };
    const seen = () => {
      if (document.hidden) {
        clearTimeout(timer);
        asking?.abort();
      } else void ask();
    };

    wake.current = () => void ask();
    document.addEventListener("visibilitychange", seen);
    if (!document.hidden) void ask();
    return () => {
      over = true;
      clearTimeout(timer);
      asking?.abort();
      document.removeEventListener("visibilitychange", seen);
    };
  }, [of]);

  const again = useCallback(() => wake.current(), []);
  const fresh = known.of === of;
  return { value: fresh ? known.value : undefined, refusal: fresh ? known.refusal : undefined, again };
}
