// SPDX-License-Identifier: Apache-2.0
// Who talks to whom over TCP: the server's answer, checked, and what the page makes of it: order,
// filter, sums, and the query of a row's process. A row is a process (by its labels), a direction, a
// peer and the service's port, summed over the range (docs/network.md says how it is counted).
import { FormatError } from './columns';
import type { NameTest } from './search';
import { type Matcher, withEqual } from './selector';

export type Role = 'connect' | 'accept'; // who opened it: this process, or the peer

export interface Totals {
  opened: number;
  closed: number;
  failed: number; // never established
  resetsSent: number;
  resetsReceived: number;
  retransmits: number; // data segments
  synRetransmits: number;
  bytesSent: number;
  bytesReceived: number;
  segmentsSent: number;
  segmentsReceived: number;
  durationUs: number; // of the closed
  rttUs: number; // mean; 0: unknown
  living: number; // at the end of the range
}

export interface Connection extends Totals {
  key: string; // the same in every answer
  labels: Record<string, string>;
  role: Role;
  remote: string; // an address; "": peers that were not kept apart
  port: number; // of the service: the peer's when this process connects, else its own
}

export interface Connections {
  rows: Connection[];
  total: Totals; // of everything that matched, not of `rows` alone
  leftOut: number; // rows that are in the total only
  windows: number;
}

// --- The answer ---------------------------------------------------------------------------------------

const kNumbers: Record<keyof Totals, string> = {
  opened: 'opened',
  closed: 'closed',
  failed: 'failed',
  resetsSent: 'resets_sent',
  resetsReceived: 'resets_received',
  retransmits: 'retransmits',
  synRetransmits: 'syn_retransmits',
  bytesSent: 'bytes_sent',
  bytesReceived: 'bytes_received',
  segmentsSent: 'segments_sent',
  segmentsReceived: 'segments_received',
  durationUs: 'duration_us',
  rttUs: 'rtt_us',
  living: 'living',
};
const kNumberKeys = Object.keys(kNumbers) as (keyof Totals)[];

function asObject(value: unknown, what: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new FormatError(`${what} is no object`);
  return value as Record<string, unknown>;
}

// Absent is 0: a server may learn numbers that another did not know.
function asNumber(value: unknown, what: string): number {
  if (value === undefined) return 0;
  if (typeof value !== 'number' || !(value >= 0)) throw new FormatError(`${what} is no number`);
  return value;
}

function readTotals(from: Record<string, unknown>): Totals {
  const totals = {} as Totals;
  for (const key of kNumberKeys) totals[key] = asNumber(from[kNumbers[key]], kNumbers[key]);
  return totals;
}

function readRow(value: unknown): Connection {
  const from = asObject(value, 'a row');
  const labels: Record<string, string> = {};
  for (const [name, text] of Object.entries(asObject(from.labels, 'labels'))) {
    if (typeof text !== 'string') throw new FormatError(`label ${name} is no text`);
    labels[name] = text;
  }
  const { role, remote = '' } = from;
  if (role !== 'connect' && role !== 'accept') throw new FormatError('role is neither connect nor accept');
  if (typeof remote !== 'string') throw new FormatError('remote is no text');
  const port = asNumber(from.port, 'port');
  const names = Object.keys(labels).sort();
  const key = JSON.stringify([role, remote, port, ...names.map((name) => [name, labels[name]])]);
  return { key, labels, role, remote, port, ...readTotals(from) };
}

// Throws FormatError when it is not what docs/network.md says.
export function readConnections(value: unknown): Connections {
  const from = asObject(value, 'the answer');
  if (!Array.isArray(from.rows)) throw new FormatError('rows is no list');
  return {
    rows: from.rows.map(readRow),
    total: readTotals(asObject(from.total, 'total')),
    leftOut: asNumber(from.left_out, 'left_out'),
    windows: asNumber(from.windows, 'windows'),
  };
}

// --- Order --------------------------------------------------------------------------------------------

// By the columns of the table.
export const kConnectionSorts = [
  'process', 'remote', 'retransmits', 'failed', 'resets', 'sent', 'received', 'rtt', 'opened', 'living', 'node',
] as const;
export type ConnectionSortKey = (typeof kConnectionSorts)[number];

// What the server is asked to put first, where it does not keep a row for everything: its own orders
// are fewer than ours.
export type ServerSort = 'retransmits' | 'bytes' | 'failed' | 'opened' | 'rtt';
export const kServerSortText: Record<ServerSort, string> = {
  retransmits: 'most retransmits',
  bytes: 'most bytes',
  failed: 'most failures',
  opened: 'most connections opened',
  rtt: 'longest round trips',
};
export function serverSort(key: ConnectionSortKey): ServerSort {
  if (key === 'sent' || key === 'received') return 'bytes';
  if (key === 'failed' || key === 'opened' || key === 'rtt') return key;
  if (key === 'living') return 'opened';
  return key === 'resets' ? 'failed' : 'retransmits';
}

export const isText = (key: ConnectionSortKey) => key === 'process' || key === 'remote' || key === 'node';

export const resets = (totals: Totals) => totals.resetsSent + totals.resetsReceived;

// The number that a column shows; a text column has none.
export function numberOf(totals: Totals, key: ConnectionSortKey): number {
  switch (key) {
    case 'retransmits': return totals.retransmits;
    case 'failed': return totals.failed;
    case 'resets': return resets(totals);
    case 'sent': return totals.bytesSent;
    case 'received': return totals.bytesReceived;
    case 'rtt': return totals.rttUs;
    case 'opened': return totals.opened;
    case 'living': return totals.living;
    default: return 0;
  }
}

// "retransmits" or "-retransmits" (descending), as the link has it.
export interface ConnectionSort {
  key: ConnectionSortKey;
  ascending: boolean;
}
export function readSort(text: string): ConnectionSort {
  return { key: text.replace('-', '') as ConnectionSortKey, ascending: !text.startsWith('-') };
}

const collator = new Intl.Collator('en', { numeric: true });
const compareText: Partial<Record<ConnectionSortKey, (a: Connection, b: Connection) => number>> = {
  process: (a, b) => collator.compare(a.labels.service ?? '', b.labels.service ?? '') || collator.compare(a.labels.exe ?? '', b.labels.exe ?? ''),
  remote: (a, b) => collator.compare(a.remote, b.remote) || a.port - b.port,
  node: (a, b) => collator.compare(a.labels.node ?? '', b.labels.node ?? ''),
};

// Equal rows stand by bytes, then in an order of their own: a refresh moves only what has changed.
export function sortConnections(rows: Connection[], { key, ascending }: ConnectionSort): Connection[] {
  const direction = ascending ? 1 : -1;
  const compare = compareText[key] ?? ((a, b) => numberOf(a, key) - numberOf(b, key));
  // What is not known is at the end, whichever way.
  const unknown = (row: Connection) => Number(key === 'rtt' && row.rttUs === 0);
  const bytes = (row: Connection) => row.bytesSent + row.bytesReceived;
  return [...rows].sort((a, b) => unknown(a) - unknown(b) || direction * compare(a, b) || bytes(b) - bytes(a) || (a.key < b.key ? -1 : 1));
}

// --- Filter and sums ------------------------------------------------------------------------------------

export function peerText({ role, remote, port }: Pick<Connection, 'role' | 'remote' | 'port'>): string {
  if (remote === '') return 'other peers';
  if (role === 'accept') return `${remote} on :${port}`;
  return remote.includes(':') ? `[${remote}]:${port}` : `${remote}:${port}`;
}

export function filterConnections(rows: Connection[], test: NameTest | null): Connection[] {
  if (!test) return rows;
  return rows.filter((row) => test(row.role) || test(peerText(row)) || Object.values(row.labels).some(test));
}

// The mean round trip of several rows is not known: the answer has no counts to weigh them by.
export function sumConnections(rows: Connection[]): Totals {
  const sum = readTotals({});
  for (const row of rows) for (const key of kNumberKeys) sum[key] += row[key];
  return { ...sum, rttUs: rows.length === 1 ? rows[0].rttUs : 0 };
}

// --- The way to the flame graph -----------------------------------------------------------------------

// The labels that name a row's process among all that are profiled. What is not known is no matcher.
const kProcessLabels = ['service', 'exe', 'container_id', 'node'];
export function processMatchers(matchers: Matcher[], labels: Record<string, string>): Matcher[] {
  return kProcessLabels.reduce((all, name) => (labels[name] ? withEqual(all, name, labels[name]) : all), matchers);
}
