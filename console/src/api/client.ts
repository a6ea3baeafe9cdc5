// The REST API, as its OpenAPI document describes it: a call that the document does not have does not compile.
//
// Always: the key travels in a header; what is refused is a `Refusal` with the words of the API.
import { current, signOut } from "../session";
import type { components, paths } from "./schema.gen";

export type Schema = components["schemas"];
type Method = "get" | "post" | "delete";
type Call<P extends keyof paths, M extends Method> = paths[P] extends { [K in M]: infer C } ? C : never;
/** Paths that take this method. */
type PathsOf<M extends Method> = { [P in keyof paths]: [Call<P, M>] extends [never] ? never : P }[keyof paths];
type PathOf<C> = C extends { parameters: { path: infer A } } ? { path: A } : { path?: never };
type QueryOf<C> = C extends { parameters: { query?: infer A } } ? { query?: A } : { query?: never };
type Input<C> = PathOf<C> & QueryOf<C> & { signal?: AbortSignal; key?: string };
export type Answer<P extends keyof paths, M extends Method> =
  Call<P, M> extends { responses: { 200: { content: { "application/json": infer A } } } } ? A : never;

/** Why a call was not done, in the API's own words (RFC 9457), or in ours when nobody answered. */
export class Refusal extends Error {
  constructor(
    readonly title: string,
    readonly detail: string,
    readonly status: number,
    readonly requestId: string,
    /** Seconds after which it is worth another try, when the API says. */
    readonly after: number,
  ) {
    super(detail || title);
  }
}

function place(template: string, path: Record<string, string>, query: Record<string, unknown>): string {
  const filled = template.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(path[name] ?? ""));
  const asked = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== "") asked.set(name, String(value));
  }
  return asked.size > 0 ? `${filled}?${asked}` : filled;
}

async function refusal(response: Response): Promise<Refusal> {
  const problem: Partial<Schema["Problem"]> = await response.json().catch(() => ({}));
  const title = problem.title ?? `The control plane answered ${response.status}`;
  const after = Number(response.headers.get("retry-after")) || 0;
  return new Refusal(title, problem.detail ?? "", response.status, problem.request_id ?? "", after);
}

/** The same without what only the compiler looks at. */
interface Sent {
  path?: object;
  query?: object;
  signal?: AbortSignal;
  /** A key that is only tried. */
  key?: string;
}

async function call(method: Method, template: string, input: Sent): Promise<unknown> {
  const { path = {}, query = {}, signal, key = current().key } = input;
  const headers: Record<string, string> = { accept: "application/json" };
  if (key !== null) headers["authorization"] = `Bearer ${key}`;
  const asked: RequestInit = { method: method.toUpperCase(), headers, cache: "no-store", credentials: "omit", redirect: "error" };
  if (signal) asked.signal = signal;
  if (method === "post") {
    headers["content-type"] = "application/json";
    asked.body = "{}";
  }
  let response;
  try {
    response = await fetch(place(template, { ...path }, { ...query }), asked);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refusal("The control plane does not answer", "It is not running, or this machine cannot reach it.", 0, "", 0);
  }
  if (response.ok) return response.json();
  const refused = await refusal(response);
  // Taken back while we were at work: whoever signs in anew is told why.
  if (response.status === 401 && input.key === undefined && current().key === key) {
    signOut("This key is no longer in force. Sign in with another one.");
  }
  throw refused;
}

export const get = <P extends PathsOf<"get">>(path: P, input: Input<Call<P, "get">>) =>
  call("get", path, input as Sent) as Promise<Answer<P, "get">>;
export const post = <P extends PathsOf<"post">>(path: P, input: Input<Call<P, "post">>) =>
  call("post", path, input as Sent) as Promise<Answer<P, "post">>;
export const remove = <P extends PathsOf<"delete">>(path: P, input: Input<Call<P, "delete">>) =>
  call("delete", path, input as Sent) as Promise<Answer<P, "delete">>;

/** Whatever was thrown, as a refusal that can be shown. */
export const refused = (error: unknown): Refusal =>
  error instanceof Refusal ? error : new Refusal("The console went wrong", String(error), 0, "", 0);
