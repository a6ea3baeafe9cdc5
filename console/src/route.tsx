// Where in the console one is: the address after `/console/`, and its query. The browser's own back and forward work.
import { type AnchorHTMLAttributes, type MouseEvent, useSyncExternalStore } from "react";

const BASE = "/console/";

const listeners = new Set<() => void>();
const told = () => {
  for (const listener of listeners) listener();
};
window.addEventListener("popstate", told);

/** The parts of the path, decoded, and what the query says. */
export interface Place {
  readonly parts: readonly string[];
  readonly query: URLSearchParams;
}

const decoded = (part: string): string => {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
};

export function usePlace(): Place {
  const address = useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => location.pathname + location.search,
  );
  const url = new URL(address, location.origin);
  const parts = url.pathname.slice(BASE.length).split("/").filter(Boolean).map(decoded);
  return { parts, query: url.searchParams };
}

/** An address in the console. Empty values are left out of the query. */
export function address(parts: readonly string[], query: Record<string, string | undefined> = {}): string {
  const asked = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value) asked.set(name, value);
  const path = BASE + parts.map(encodeURIComponent).join("/");
  return asked.size > 0 ? `${path}?${asked}` : path;
}

export function go(to: string, how: "push" | "replace" = "push") {
  if (to === location.pathname + location.search) return;
  history[how === "push" ? "pushState" : "replaceState"](null, "", to);
  if (how === "push") scrollTo(0, 0);
  told();
}

/** A link within the console. */
export function Link({ to, onClick, ...rest }: { to: string } & AnchorHTMLAttributes<HTMLAnchorElement>) {
  const follow = (event: MouseEvent<HTMLAnchorElement>) => {
    onClick?.(event);
    // Another tab or window is the browser's business.
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    go(to);
  };
  return <a href={to} onClick={follow} {...rest} />;
}
