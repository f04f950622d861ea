// SPDX-License-Identifier: Apache-2.0
// The page's state. `view` mirrors the URL and is all that decides what is shown; everything below
// it follows from `view` and the server's answers. Change it by navigate() only.
import { batch, computed, effect, signal } from '@preact/signals';
import {
  ApiError, apiUrl, getConnections, getJson, getProfile, type ProfileAnswer, type Range, type Series, type Status,
} from './api';
import { HueBook } from './flame/colors';
import { type Connections, readSort, type ServerSort, serverSort } from './model/connections';
import { onlyThrough } from './model/functions';
import { hashNames, hashText, hashToHex, hexToHash, indexOfHash } from './model/hash';
import { compileSearch, findMatches, type Matches } from './model/search';
import { formatSelector, parseSelector } from './model/selector';
import { buildTree, type FlameTree, hashPaths } from './model/tree';
import { decodeView, encodeView, isRelative, kDefaults, linkProblem, type Page, stepFor, timeToMs, type ViewState } from './model/view_state';

// --- The view and its URL -----------------------------------------------------------------------

const first = decodeView(location.search);
export const view = signal<ViewState>(first.view);
export const linkProblems = signal<string[]>(first.problems);
export const refusal = signal<string | null>(null); // why the last navigation was not taken

// `push` makes a step for "back"; typing and sorting replace.
export function navigate(change: Partial<ViewState>, how: 'push' | 'replace' = 'push'): boolean {
  const next = { ...view.value, ...change };
  const problem = linkProblem(next);
  if (problem) {
    refusal.value = problem;
    return false;
  }
  const url = location.pathname + encodeView(next);
  if (url !== location.pathname + location.search) {
    history[how === 'push' ? 'pushState' : 'replaceState'](null, '', url);
  }
  batch(() => {
    refusal.value = null;
    linkProblems.value = [];
    view.value = next;
  });
  return true;
}

addEventListener('popstate', () => {
  const { view: next, problems } = decodeView(location.search);
  batch(() => {
    refusal.value = null;
    linkProblems.value = problems;
    view.value = next;
  });
});

// Another query or range shows other stacks: a zoom of the old ones stays where the path exists.
export function setRange(from: string, to: string): void {
  navigate({ from, to, live: kDefaults.live });
}
export const isDefaultRange = computed(() => view.value.from === kDefaults.from && view.value.to === kDefaults.to);

// --- Answers --------------------------------------------------------------------------------------

export interface ConnectionsAnswer {
  sort: ServerSort; // what the server put first
  data: Connections | null; // null: the server knows no connections
}
export interface Answers {
  range: Range; // what was asked, of what follows
  series: Series; // of the view's type, by service
  ranking: Series; // CPU by service, without the query's own service matchers
  rankingSamples: Series;
  samples: Series; // sample count of exactly this query
  // What the large panel shows: asked for while it is shown, kept with its own range after that.
  profile: (ProfileAnswer & { range: Range }) | null;
  connections: (ConnectionsAnswer & { range: Range }) | null;
}

export const answers = signal<Answers | null>(null);
export const status = signal<Status | null>(null);
export const failure = signal<ApiError | null>(null);
export const loading = signal(false);
export const updatedAt = signal(0);
const refreshTick = signal(0);

export function refresh(): void {
  refreshTick.value++;
}

// What the answers depend on; a change of anything else must not ask the server again.
interface Asked extends Range {
  page: Page;
  maxNodes: number;
  sort: ServerSort;
}
const asked = computed(() => {
  const { query, from, to, type, maxNodes, page } = view.value;
  return JSON.stringify({ query, from, to, type, maxNodes, page, sort: sortAsked.value } satisfies Asked);
});
// An answer that has every row is put into any order here; else the server says which rows it has.
const sortAsked = computed<ServerSort>(() => {
  const last = answers.value?.connections;
  return last?.data?.leftOut === 0 ? last.sort : serverSort(readSort(view.value.order).key);
});

function withoutService(query: string): string {
  const parsed = parseSelector(query);
  return parsed.ok ? formatSelector(parsed.matchers.filter(({ name }) => name !== 'service')) : query;
}

let running: AbortController | null = null;

async function load(key: string): Promise<void> {
  running?.abort();
  const mine = (running = new AbortController());
  const { maxNodes, page, sort, ...range } = JSON.parse(key) as Asked;
  const now = Date.now() + clockSkew();
  const rangeMs = Math.max(1000, timeToMs(range.to, now) - timeToMs(range.from, now));
  // Equal requests are sent once.
  const sent = new Map<string, Promise<Series>>();
  const series = (query: string, type: string, step: number) => {
    const url = apiUrl('series', { ...range, query, type: type as Range['type'] }, { step: String(step), group_by: 'service' });
    if (!sent.has(url)) sent.set(url, getJson<Series>(url, mine.signal));
    return sent.get(url)!;
  };
  const step = stepFor(rangeMs);
  const wide = withoutService(range.query);
  loading.value = true;
  try {
    const results = await Promise.allSettled([
      series(range.query, range.type, step),
      series(wide, 'cpu', step),
      series(wide, 'samples', step),
      series(range.query, 'samples', step),
      page === 'connections'
        ? getConnections(range, sort, mine.signal).then((data): Partial<Answers> => ({ connections: { range, sort, data } }))
        : getProfile(apiUrl('profile', range, { format: 'columns', max_nodes: String(maxNodes) }), mine.signal)
          .then((profile): Partial<Answers> => ({ profile: { range, ...profile } })),
      getJson<Status>(apiUrl('status', {}), mine.signal),
    ] as const);
    if (mine.signal.aborted) return;
    take(range, results);
  } finally {
    if (running === mine) loading.value = false;
  }
}

type Results = PromiseSettledResult<unknown>[];

function take(range: Range, results: Results): void {
  const failed = results.find((result) => result.status === 'rejected') as PromiseRejectedResult | undefined;
  const value = <T>(index: number) => (results[index] as PromiseFulfilledResult<T>).value;
  batch(() => {
    if (results[5].status === 'fulfilled') status.value = value<Status>(5);
    failure.value = failed
      ? failed.reason instanceof ApiError ? failed.reason : new ApiError(String(failed.reason), 0)
      : null;
    if (results.slice(0, 5).every((result) => result.status === 'fulfilled')) {
      const { profile = null, connections = null } = answers.value ?? {};
      answers.value = {
        range, series: value(0), ranking: value(1), rankingSamples: value(2), samples: value(3),
        profile, connections, ...value<Partial<Answers>>(4),
      };
      updatedAt.value = Date.now();
    }
  });
}

// The server's clock minus ours: ages and ranges are the server's.
export function clockSkew(): number {
  return skew;
}
let skew = 0;
effect(() => {
  if (status.value) skew = status.value.now_ms - Date.now();
});

export const stale = computed(() => {
  const { query, from, to, type, page } = view.value;
  const current = (page === 'connections' ? answers.value?.connections : answers.value?.profile)?.range;
  if (!current) return false;
  return current.query !== query || current.from !== from || current.to !== to || current.type !== type;
});

// --- Live refresh -----------------------------------------------------------------------------------

const kRefreshMs = 10_000;
export const live = computed(() => view.value.live && isRelative(view.value));
const hidden = signal(document.hidden);
document.addEventListener('visibilitychange', () => (hidden.value = document.hidden));

export function startLoading(): void {
  effect(() => {
    refreshTick.value;
    void load(asked.value);
  });
  effect(() => {
    if (!live.value || hidden.value) return;
    // Back in view after a while: catch up at once.
    if (updatedAt.peek() && Date.now() - updatedAt.peek() > kRefreshMs) refreshTick.value = refreshTick.peek() + 1;
    const timer = setInterval(() => {
      if (!loading.peek()) refreshTick.value = refreshTick.peek() + 1;
    }, kRefreshMs);
    return () => clearInterval(timer);
  });
}

// --- What follows from the answers ----------------------------------------------------------------------

export const fullTree = computed<FlameTree | null>(() => answers.value?.profile?.tree ?? null);
const hueBook = new HueBook();
export const hues = computed(() => {
  if (fullTree.value) hueBook.learn(fullTree.value);
  return hueBook;
});
export const unit = computed(() => answers.value?.profile?.unit ?? 'nanoseconds');

// Index of the name with this hash in the answer's names, or -1.
function nameOfHash(text: string): number {
  const hash = hexToHash(text);
  return hash && fullTree.value ? indexOfHash(hashNames(fullTree.value.names), hash) : -1;
}
export const hashOfName = (name: string) => hashToHex(hashText(name));

const onlyHash = computed(() => view.value.only);
const markHash = computed(() => view.value.mark);
const focusHash = computed(() => view.value.focus);
const searchText = computed(() => view.value.search);

// "" when no such filter; null when this range has no such function.
export const onlyName = computed(() => {
  if (onlyHash.value === '') return '';
  const index = nameOfHash(onlyHash.value);
  return index < 0 ? null : fullTree.value!.names[index];
});

// The tree that is drawn: all, or the stacks through one function.
export const tree = computed<FlameTree | null>(() => {
  const full = fullTree.value;
  const index = nameOfHash(onlyHash.value);
  return full && index >= 0 ? buildTree(onlyThrough(full, index)) : full;
});

const hashes = computed(() => (tree.value ? hashPaths(tree.value) : null));
export function pathHash(node: number): string {
  const all = hashes.value;
  return !all || node === 0 ? '' : hashToHex({ high: all.high[node], low: all.low[node] });
}

export const focus = computed(() => {
  const hash = hexToHash(focusHash.value);
  return hash && hashes.value ? Math.max(0, indexOfHash(hashes.value, hash)) : 0;
});
export const focusMissing = computed(() => focusHash.value !== '' && tree.value !== null && focus.value === 0);

export const mark = computed(() => nameOfHash(markHash.value));

const compiled = computed(() => {
  try {
    return { test: compileSearch(searchText.value), error: '' };
  } catch (error) {
    return { test: null, error: (error as Error).message };
  }
});
export const searchError = computed(() => compiled.value.error);
export const searchTest = computed(() => compiled.value.test);
export const matches = computed<Matches | null>(() => {
  const current = tree.value;
  const { test } = compiled.value;
  return current && test ? findMatches(current, test) : null;
});

export function zoomTo(node: number): void {
  const hash = pathHash(node);
  if (hash !== view.value.focus) navigate({ focus: hash });
}
