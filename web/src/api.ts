// SPDX-License-Identifier: Apache-2.0
// The server's HTTP API: shapes, addresses, and errors that say what went wrong.
import { decodeColumns, FormatError } from './model/columns';
import { type Connections, readConnections, type ServerSort } from './model/connections';
import type { Unit } from './model/format';
import { buildTree, type FlameTree } from './model/tree';
import type { ViewState } from './model/view_state';

export interface SeriesGroup {
  labels: Record<string, string>;
  total: number;
  points: [number, number][];
}
export interface Series {
  step_ms: number;
  unit: Unit;
  from_ms: number;
  to_ms: number;
  total: number;
  groups: SeriesGroup[];
}
export interface NodeModule {
  name: string; // cpu, network, enforce
  state: 'active' | 'degraded' | 'off';
  why: string; // '' when active
}
export interface NodeStatus {
  node: string;
  last_seen_ms: number;
  hz: number;
  agent_version: string;
  sampler?: string; // ebpf; perf and ptrace are fallbacks
  sampler_note?: string; // why, what that lacks and costs; '' for ebpf
  modules?: NodeModule[]; // those that are enabled in the agent
}
export interface Status {
  version: string;
  now_ms: number;
  nodes: NodeStatus[];
  store: { disk_bytes: number; windows: number; duplicates: number; oldest_ms: number; newest_ms: number };
  losses: Record<string, number>;
  stack_ends: Record<string, number>;
}

export interface Unnamed {
  unit: Unit;
  total: number;
  frames: number; // values times frames without a name
  all_frames: number;
  binaries: {
    path: string;
    build_id: string;
    reason: string;
    text: string;
    advice: string; // a command, a sentence, or ''
    detail: string;
    self: number;
    total: number;
    frames: number;
  }[];
}

export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number, // 0: no answer at all
  ) {
    super(message);
  }
}

export type Range = Pick<ViewState, 'query' | 'from' | 'to' | 'type'>;

// Relative, so that the page works behind a path prefix.
export function apiUrl(path: string, range: Partial<Range>, more: Record<string, string> = {}): string {
  const parameters = new URLSearchParams();
  for (const [key, value] of Object.entries({ ...range, ...more })) {
    if (value !== '') parameters.set(key, value);
  }
  const text = parameters.toString();
  return `api/v1/${path}${text ? `?${text}` : ''}`;
}

async function get(url: string, signal: AbortSignal): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url, { signal });
  } catch (error) {
    if (signal.aborted) throw error;
    throw new ApiError('The server does not answer', 0);
  }
  if (response.ok) return response;
  let message = `The server answered ${response.status}`;
  try {
    const body = (await response.json()) as { error?: unknown };
    if (typeof body.error === 'string') message = body.error;
  } catch {
    // Not JSON: the status has to do.
  }
  throw new ApiError(message, response.status);
}

export async function getJson<T>(url: string, signal: AbortSignal): Promise<T> {
  const response = await get(url, signal);
  try {
    return (await response.json()) as T;
  } catch (error) {
    if (signal.aborted) throw error;
    throw new ApiError(`${url.split('?')[0]}: the answer is not JSON`, response.status);
  }
}

export interface ProfileAnswer {
  tree: FlameTree;
  unit: Unit;
}

export async function getProfile(url: string, signal: AbortSignal): Promise<ProfileAnswer> {
  const response = await get(url, signal);
  const bytes = new Uint8Array(await response.arrayBuffer());
  try {
    const unit = response.headers.get('X-Firewatch-Unit') === 'nanoseconds' ? 'nanoseconds' : 'count';
    return { tree: buildTree(decodeColumns(bytes)), unit };
  } catch (error) {
    if (error instanceof FormatError) throw new ApiError(`Profile damaged: ${error.message}`, response.status);
    throw error;
  }
}

export const kMaxConnections = 1000; // rows that are asked for; the rest comes as a sum

// Null: the server is from before it kept connections.
export async function getConnections(
  { query, from, to }: Range, sort: ServerSort, signal: AbortSignal,
): Promise<Connections | null> {
  const url = apiUrl('connections', { query, from, to }, { sort, limit: String(kMaxConnections) });
  try {
    return readConnections(await getJson<unknown>(url, signal));
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return null;
    if (error instanceof FormatError) throw new ApiError(`Connections damaged: ${error.message}`, 200);
    throw error;
  }
}
