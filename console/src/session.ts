// Who is signed in: the operator's key, in this tab's memory and its sessionStorage, and nowhere else.
//
// Always: the key is in no address, no cookie and no storage that outlives the tab.
import { useSyncExternalStore } from "react";

const PLACE = "insula.key";

/** The key in force, and why there is none when one was taken back. */
export interface Session {
  readonly key: string | null;
  readonly ended: string | null;
}

function kept(): string | null {
  try {
    return sessionStorage.getItem(PLACE);
  } catch {
    // A browser that keeps nothing: the key lives as long as the page.
    return null;
  }
}

let session: Session = { key: kept(), ended: null };
const listeners = new Set<() => void>();

function become(next: Session) {
  session = next;
  try {
    if (next.key === null) sessionStorage.removeItem(PLACE);
    else sessionStorage.setItem(PLACE, next.key);
  } catch {
    // As above.
  }
  for (const listener of listeners) listener();
}

export const current = (): Session => session;
export const signIn = (key: string) => become({ key, ended: null });
export const signOut = (why: string | null = null) => become({ key: null, ended: why });

export function useSession(): Session {
  return useSyncExternalStore((listener) => {
    listeners.add(listener);
    return () => listeners.delete(listener);
  }, current);
}
