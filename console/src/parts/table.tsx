// Lists: a table where there is room, and where there is not, a card for each row.
import type { ReactNode } from "react";

export interface Column<T> {
  readonly head: string;
  readonly cell: (row: T) => ReactNode;
  readonly kind?: "wide" | "number" | "acts" | "lead";
}

/** Roles are said: a browser forgets them where rows are laid out as cards. */
export function Table<T>({ label, columns, rows, of }: { label: string; columns: readonly Column<T>[]; rows: readonly T[]; of: (row: T) => string }) {
  return (
    <table role="table" aria-label={label}>
      <thead role="rowgroup">
        <tr role="row">
          {columns.map((column) => (
            <th key={column.head} role="columnheader" scope="col" className={column.kind}>
              {column.kind === "acts" ? <span className="unseen">{column.head}</span> : column.head}
            </th>
          ))}
        </tr>
      </thead>
      <tbody role="rowgroup">
        {rows.map((row) => (
          <tr key={of(row)} role="row">
            {columns.map((column) => (
              <td key={column.head} role="cell" className={column.kind} data-head={column.head}>
                <div>{column.cell(row)}</div>
              </td>
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** Where rows will be. */
export function Loading({ what }: { what: string }) {
  return (
    <div className="loading" role="status">
      <span className="unseen">Loading {what}</span>
      {[0, 1, 2, 3].map((line) => (
        <div key={line} className="bone" />
      ))}
    </div>
  );
}

/** There is nothing, and what that means. */
export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <div className="empty">
      <svg viewBox="0 0 48 32" aria-hidden="true">
        <path d="M6 27c6-3.5 12-3.5 18 0s12 3.5 18 0M15 22V11l9-6 9 6v11M21.5 22v-4.5a2.5 2.5 0 0 1 5 0V22" />
      </svg>
      <h3>{title}</h3>
      {children}
    </div>
  );
}
