// What a job says of its progress. It may say anything; a share of a whole is drawn, the rest is shown as it is.

export interface Said {
  /** 0 to 1; none when it is not a share of anything. */
  readonly share: number | undefined;
  readonly words: string;
}

const WHOLES = ["of", "total"];
const within = (share: number): number => Math.min(1, Math.max(0, share));

/** Reads `{percent}`, or a number beside `of` or `total`. */
export function said(progress: unknown): Said {
  if (typeof progress !== "object" || progress === null || Array.isArray(progress)) {
    return { share: undefined, words: typeof progress === "string" ? progress : JSON.stringify(progress) };
  }
  const fields = progress as Record<string, unknown>;
  const numbers = Object.entries(fields).filter((entry): entry is [string, number] => typeof entry[1] === "number");
  const percent = numbers.find(([name]) => name === "percent")?.[1];
  if (percent !== undefined) return { share: within(percent / 100), words: `${Math.round(percent)} %` };
  const whole = numbers.find(([name]) => WHOLES.includes(name))?.[1];
  const part = numbers.find(([name]) => !WHOLES.includes(name));
  if (whole === undefined || part === undefined) return { share: undefined, words: JSON.stringify(progress) };
  const noun = part[0] === "done" ? "" : ` ${part[0].replaceAll("_", " ")}`;
  return { share: whole > 0 ? within(part[1] / whole) : 1, words: `${part[1].toLocaleString()} of ${whole.toLocaleString()}${noun}` };
}

/** A bar; one that only says that something is under way when nothing is known of how far. */
export function Bar({ progress, running, label }: { progress: unknown; running: boolean; label: string }) {
  const { share, words } = progress === null || progress === undefined ? { share: undefined, words: "" } : said(progress);
  if (share === undefined && !running) return words ? <span className="said">{words}</span> : null;
  const now = share === undefined ? {} : { "aria-valuenow": Math.round(share * 100), "aria-valuetext": words };
  return (
    <div className="progress">
      <div className="bar" role="progressbar" aria-label={label} aria-valuemin={0} aria-valuemax={100} {...now}>
        <div className={share === undefined ? "fill unknown" : running ? "fill live" : "fill"} style={share === undefined ? {} : { transform: `scaleX(${share})` }} />
      </div>
      <span className="said">{words || "under way"}</span>
    </div>
  );
}
