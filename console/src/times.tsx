// Times: shown in the zone of whoever looks, with UTC beside them; spans that grow while one looks.
import { useSyncExternalStore } from "react";

/** How far the control plane's clock is ahead of this machine's, milliseconds. */
let ahead = 0;
export const heed = (now: string) => {
  ahead = new Date(now).getTime() - Date.now();
};

let second = Math.floor(Date.now() / 1000);
const listeners = new Set<() => void>();
let ticking: number | undefined;

function tick() {
  second = Math.floor(Date.now() / 1000);
  for (const listener of listeners) listener();
}

function subscribe(listener: () => void) {
  listeners.add(listener);
  ticking ??= window.setInterval(() => document.hidden || tick(), 1000);
  return () => {
    listeners.delete(listener);
    if (listeners.size === 0) {
      clearInterval(ticking);
      ticking = undefined;
    }
  };
}

/** Now by the control plane's clock, to the second. */
const useNow = (): number => useSyncExternalStore(subscribe, () => second) * 1000 + ahead;

const DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", year: "numeric" });
const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone;

const utc = (at: Date): string => `${at.toISOString().slice(0, 19).replace("T", " ")} UTC`;
const local = (at: Date): string => `${DAY.format(at)}, ${CLOCK.format(at)}`;

/** A moment in words: today's by the clock alone. */
export function Moment({ at }: { at: string }) {
  const when = new Date(at);
  const today = DAY.format(when) === DAY.format(Date.now());
  return (
    <time dateTime={at} title={utc(when)}>
      {today ? CLOCK.format(when) : local(when)}
    </time>
  );
}

/** A span, as exact as one wants to read it. */
export function span(milliseconds: number): string {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  const [days, hours, minutes] = [Math.floor(seconds / 86_400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  if (days > 0) return hours > 0 && days < 4 ? `${days} d ${hours} h` : `${days} d`;
  if (hours > 0) return minutes > 0 ? `${hours} h ${minutes} min` : `${hours} h`;
  if (minutes > 0) return minutes < 10 ? `${minutes} min ${seconds % 60} s` : `${minutes} min`;
  return `${seconds} s`;
}

/** How long ago something was, or how long it is until then. */
export function Span({ at, before = "", after = "" }: { at: string; before?: string; after?: string }) {
  const when = new Date(at);
  const gone = useNow() - when.getTime();
  return (
    <time dateTime={at} title={`${local(when)} (${ZONE})\n${utc(when)}`}>
      {before}
      {span(Math.abs(gone))}
      {after}
    </time>
  );
}

/** "3 s ago", "in 4 min". */
export function Ago({ at }: { at: string }) {
  const gone = useNow() - new Date(at).getTime();
  return gone >= 0 ? <Span at={at} after=" ago" /> : <Span at={at} before="in " />;
}
