// Signing in: a key of the API, tried before it is kept.
import { type FormEvent, useState } from "react";
import { get, Refusal, refused } from "../api/client";
import { Mark } from "../parts/mark";
import { Refused } from "../parts/notice";
import { signIn, useSession } from "../session";

export function SignIn() {
  const { ended } = useSession();
  const [refusal, setRefusal] = useState<Refusal>();
  const [busy, setBusy] = useState(false);

  const attempt = async (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const key = String(new FormData(event.currentTarget).get("key") ?? "").trim();
    setBusy(true);
    setRefusal(undefined);
    try {
      // What no header can carry is no key either.
      if (!/^[!-~]+$/.test(key)) throw new Refusal("", "", 401, "", 0);
      await get("/v1/status", { key });
      signIn(key);
    } catch (error) {
      setRefusal(refused(error));
      setBusy(false);
    }
  };
  return (
    <main className="door">
      <title>Sign in · Insula</title>
      <form onSubmit={(event) => void attempt(event)}>
        <Mark />
        <h1>Insula</h1>
        <p className="soft">The operator's console</p>
        {ended && !refusal && (
          <p className="notice warn" role="status">
            {ended}
          </p>
        )}
        {refusal &&
          (refusal.status === 401 ? (
            <p className="notice bad" role="alert" id="wrong">
              This key is not in force. It may be mistyped, or somebody took it back.
            </p>
          ) : (
            <Refused refusal={refusal} />
          ))}
        <label className="field">
          <span>Key</span>
          <input name="key" type="password" required autoFocus autoComplete="off" spellCheck={false} placeholder="ik_…" aria-describedby="hint" aria-invalid={refusal?.status === 401} />
        </label>
        <button type="submit" className="main" disabled={busy}>
          {busy ? "Signing in…" : "Sign in"}
        </button>
        <p className="soft small" id="hint">
          A key of the API, as the command <code>insula</code> uses it. <code>insula up</code> says where it keeps one; <code>insula key create</code> makes one of your own. This tab forgets it
          when it is closed.
        </p>
      </form>
    </main>
  );
}
