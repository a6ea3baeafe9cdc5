// Where one says what one wants to see.
import { type ReactNode, useEffect, useState } from "react";

/** A text that is looked for once nobody has typed for a moment. */
export function Search({ label, value, found, autoFocus = false }: { label: string; value: string; found: (text: string) => void; autoFocus?: boolean }) {
  const [text, setText] = useState(value);
  useEffect(() => setText(value), [value]);
  useEffect(() => {
    if (text.trim() === value) return;
    const timer = setTimeout(() => found(text.trim()), 250);
    return () => clearTimeout(timer);
  });
  return (
    <label className="field search">
      <span>{label}</span>
      <input type="search" value={text} autoFocus={autoFocus} spellCheck={false} autoComplete="off" onChange={(event) => setText(event.target.value)} />
    </label>
  );
}

export function Choice({ label, value, of, chosen }: { label: string; value: string; of: readonly (readonly [string, string])[]; chosen: (value: string) => void }) {
  return (
    <label className="field">
      <span>{label}</span>
      <select value={value} onChange={(event) => chosen(event.target.value)}>
        {of.map(([value, words]) => (
          <option key={value} value={value}>
            {words}
          </option>
        ))}
      </select>
    </label>
  );
}

/** Names and what they are, side by side. */
export function Facts({ of }: { of: readonly (readonly [string, ReactNode])[] }) {
  return (
    <dl className="facts">
      {of
        .filter(([, fact]) => fact !== null && fact !== undefined && fact !== "")
        .map(([name, fact]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{fact}</dd>
          </div>
        ))}
    </dl>
  );
}
