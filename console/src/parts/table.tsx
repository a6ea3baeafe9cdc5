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
        <path d="M6 26c6-4 10-4 18 0s12 4 18 0M12 22c2-8 7-12 12-12s10 4 12 12M24 10V4" />
      </svg>
      <h3>{title}</h3>
      {children}
    </div>
  );
}
