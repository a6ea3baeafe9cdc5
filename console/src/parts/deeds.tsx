// What a page may do: one deed at a time is asked about, and the last one is told of.
import { type ReactNode, useState } from "react";
import { Confirm, type Deed } from "./deed";
import { Done } from "./notice";

export interface Deeds {
  readonly ask: (deed: Deed) => void;
  /** What was last done, and the question at hand: to be placed in the page. */
  readonly shown: ReactNode;
}

/** `after` runs when something was done: what the page shows has changed. */
export function useDeeds(after: () => void): Deeds {
  const [deed, setDeed] = useState<Deed>();
  const [told, setTold] = useState<ReactNode>();
  const done = (what: ReactNode) => {
    setTold(what);
    setDeed(undefined);
    after();
  };
  const shown = (
    <>
      {told && <Done close={() => setTold(undefined)}>{told}</Done>}
      {deed && <Confirm deed={deed} close={() => setDeed(undefined)} done={done} />}
    </>
  );
  return {
    ask: (next) => {
      setTold(undefined);
      setDeed(next);
    },
    shown,
  };
}
