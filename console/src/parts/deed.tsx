// Something that changes something: asked for, confirmed, done or refused.
import { type ReactNode, useEffect, useRef, useState } from "react";
import { Refusal, refused } from "../api/client";
import { Refused } from "./notice";

/** What is to be confirmed. */
export interface Deed {
  readonly title: string;
  readonly says: ReactNode;
  /** On the button that does it. */
  readonly does: string;
  /** On the one that does not. */
  readonly leaves: string;
  readonly grave: boolean;
  /** Does it, and says what was done. */
  readonly act: () => Promise<ReactNode>;
}

/** Asks about a deed, or about none. A refusal is shown where it was asked for. */
export function Confirm({ deed, close, done }: { deed: Deed; close: () => void; done: (told: ReactNode) => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [busy, setBusy] = useState(false);
  const [refusal, setRefusal] = useState<Refusal>();
  useEffect(() => dialog.current?.showModal(), []);

  const act = async () => {
    setBusy(true);
    setRefusal(undefined);
    try {
      const told = await deed.act();
      // Closed by itself, so that the keyboard is where it was before.
      dialog.current?.close();
      done(told);
    } catch (error) {
      setRefusal(refused(error));
      setBusy(false);
    }
  };
  return (
    <dialog ref={dialog} onClose={close} onCancel={(event) => busy && event.preventDefault()} aria-labelledby="deed">
      <h2 id="deed">{deed.title}</h2>
      <div className="says">{deed.says}</div>
      {refusal && <Refused refusal={refusal} />}
      <div className="choice">
        <button type="button" disabled={busy} onClick={() => dialog.current?.close()}>
          {deed.leaves}
        </button>
        <button type="button" className={deed.grave ? "grave" : "main"} disabled={busy} onClick={() => void act()}>
          {busy ? "One moment…" : deed.does}
        </button>
      </div>
    </dialog>
  );
}
