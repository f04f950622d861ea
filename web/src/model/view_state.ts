// SPDX-License-Identifier: Apache-2.0
// The view, as the URL holds it: one table of fields with defaults, read and written here and
// nowhere else. What equals its default is left out, so "/" is the plain page. Nodes and functions
// are named by hash: a link stays under 2 KB however long the names are.

import { kConnectionSorts } from './connections';

export type Page = 'profile' | 'connections';
export type Layout = 'both' | 'graph' | 'table';
export type SampleType = 'cpu' | 'samples';

export interface ViewState {
  page: Page; // what the large panel shows
  query: string;
  from: string; // "now-15m", or unix milliseconds
  to: string; // "now", or unix milliseconds
  type: SampleType;
  focus: string; // path hash of the zoomed node
  only: string; // name hash: just the stacks through this function
  mark: string; // name hash of the function picked in the table
  search: string;
  sort: string; // "-self": descending
  layout: Layout;
  find: string; // of connections
  order: string; // of connections; "-retransmits": descending
  stacked: boolean; // time line by service
  live: boolean;
  maxNodes: number;
}

export const kDefaults: ViewState = {
  page: 'profile',
  query: '',
  from: 'now-15m',
  to: 'now',
  type: 'cpu',
  focus: '',
  only: '',
  mark: '',
  search: '',
  sort: '-self',
  layout: 'both',
  find: '',
  order: '-retransmits',
  stacked: true,
  live: true,
  maxNodes: 100_000,
};

export const kMaxLinkBytes = 2048;
const kMaxSearch = 256;
const kSorts = ['-self', 'self', '-total', 'total', 'name', '-name'];
const kOrders = kConnectionSorts.flatMap((key) => [key, `-${key}`]);

interface Field<T> {
  key: string;
  write: (value: T) => string;
  read: (text: string) => T | undefined; // undefined: not a value of ours, keep the default
}

const oneOf = <T extends string>(key: string, values: readonly T[]): Field<T> => ({
  key,
  write: (value) => value,
  read: (text) => values.find((value) => value === text),
});
const text = (key: string, pattern: RegExp): Field<string> => ({
  key,
  write: (value) => value,
  read: (value) => (pattern.test(value) ? value : undefined),
});
const flag = (key: string): Field<boolean> => ({
  key,
  write: (value) => (value ? '1' : '0'),
  read: (value) => (value === '1' ? true : value === '0' ? false : undefined),
});

const kHash = /^[0-9a-f]{16}$/;
const kSearch = new RegExp(`^[^]{0,${kMaxSearch}}$`);
const kTime = /^(now(-\d+(ms|s|m|h|d|w))?|\d{1,15})$/;

const kFields: { [K in keyof ViewState]: Field<ViewState[K]> } = {
  page: oneOf<Page>('view', ['profile', 'connections']),
  query: text('query', /^[^]*$/),
  from: text('from', kTime),
  to: text('to', kTime),
  type: oneOf<SampleType>('type', ['cpu', 'samples']),
  focus: text('focus', kHash),
  only: text('only', kHash),
  mark: text('mark', kHash),
  search: text('search', kSearch),
  sort: oneOf('sort', kSorts),
  layout: oneOf<Layout>('layout', ['both', 'graph', 'table']),
  find: text('find', kSearch),
  order: oneOf('order', kOrders),
  stacked: flag('stacked'),
  live: flag('live'),
  maxNodes: {
    key: 'max_nodes',
    write: String,
    read: (value) => (/^[1-9]\d{0,6}$/.test(value) ? Number(value) : undefined),
  },
};

const kKeys = Object.keys(kFields) as (keyof ViewState)[];

// The search part of a URL, "" or "?…".
export function encodeView(view: ViewState): string {
  const parameters: string[] = [];
  for (const key of kKeys) {
    if (view[key] === kDefaults[key]) continue;
    const field = kFields[key] as Field<unknown>;
    parameters.push(`${field.key}=${encodeComponent(field.write(view[key]))}`);
  }
  return parameters.length ? `?${parameters.join('&')}` : '';
}

// Readable where a query string allows it: {service="x"} keeps its = and ,.
function encodeComponent(value: string): string {
  const lone = /[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/g;
  return encodeURIComponent(value.replace(lone, '\uFFFD'))
    .replace(/%(3D|2C|3A|2F|7B|7D|40|7E)/g, (escape) => decodeURIComponent(escape))
    .replace(/%20/g, '+');
}

export interface Decoded {
  view: ViewState;
  problems: string[]; // parameters that were there and are not understood
}

export function decodeView(search: string): Decoded {
  const view = { ...kDefaults };
  const problems: string[] = [];
  const parameters = new URLSearchParams(search);
  const take = <K extends keyof ViewState>(key: K) => {
    const given = parameters.get(kFields[key].key);
    if (given === null) return;
    const value = kFields[key].read(normalize(key, given));
    if (value === undefined) problems.push(`${kFields[key].key}=${given}`);
    else view[key] = value;
  };
  kKeys.forEach(take);
  const known = new Set(kKeys.map((key) => kFields[key].key));
  for (const name of parameters.keys()) {
    if (!known.has(name)) problems.push(`${name}=${parameters.get(name)}`);
  }
  return { view, problems };
}

// Links written by hand may hold RFC 3339 times.
function normalize(key: keyof ViewState, value: string): string {
  if ((key !== 'from' && key !== 'to') || !/^\d{4}-\d\d-\d\d/.test(value)) return value;
  const ms = Date.parse(value);
  return Number.isNaN(ms) ? value : String(ms);
}

// Why a view has no link (and is therefore refused), or null.
export function linkProblem(view: ViewState): string | null {
  if (Math.max(view.search.length, view.find.length) > kMaxSearch) return `the search is longer than ${kMaxSearch} characters`;
  const length = encodeView(view).length;
  // The rest is for host and path.
  if (length > kMaxLinkBytes - 200) return `the query is too long for a link (${length} bytes)`;
  return null;
}

// --- Time ranges -----------------------------------------------------------------------------------

const kUnitMs: Record<string, number> = { ms: 1, s: 1e3, m: 6e4, h: 36e5, d: 864e5, w: 6048e5 };

export function isRelative(view: Pick<ViewState, 'from' | 'to'>): boolean {
  return view.from.startsWith('now') && view.to === 'now';
}

export function timeToMs(time: string, nowMs: number): number {
  const relative = /^now(?:-(\d+)(ms|s|m|h|d|w))?$/.exec(time);
  if (!relative) return Number(time);
  return relative[1] ? nowMs - Number(relative[1]) * kUnitMs[relative[2]] : nowMs;
}

// A step that gives some 150 points, and is never below the agent's window (10 s).
export function stepFor(rangeMs: number): number {
  const steps = [10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400];
  const wanted = rangeMs / 1000 / 180;
  return (steps.find((step) => step >= wanted) ?? 86400) * 1000;
}
