// SPDX-License-Identifier: Apache-2.0
// Why there is nothing to see, and what to do about it. From the most to the least fundamental cause.
import { formatAgo, formatTime } from '../model/format';
import { parseSelector } from '../model/selector';
import { isRelative, kDefaults, timeToMs } from '../model/view_state';
import { answers, clockSkew, navigate, refresh, setRange, status, view } from '../state';
import { CopyLine } from './copy_line';

// An agent uploads every 10 s; three missed windows are silence.
export const kSilentAfterMs = 35_000;

export function EmptyState() {
  return <div class="empty" data-testid="empty">{explain()}</div>;
}

function explain() {
  if (isUntouched()) return <NoAgent />;
  const { query } = view.value;
  // The ranking leaves out service matchers only: with other filters ask for the plain page.
  if (isFiltered()) return <NothingMatched query={query} othersTotal={answers.value?.ranking.total ?? 0} />;
  return explainRange() ?? <Nothing />;
}

// No agent has ever reported.
export function isUntouched(): boolean {
  const current = status.value;
  return current !== null && current.nodes.length === 0 && current.store.newest_ms === 0;
}

export function isFiltered(): boolean {
  const parsed = parseSelector(view.value.query);
  return parsed.ok && parsed.matchers.length > 0;
}

// Why the range holds nothing of any kind; null when it should.
export function explainRange() {
  const current = status.value;
  if (!current) return null;
  const now = Date.now() + clockSkew();
  // A server that was restarted knows no nodes yet, but what it has stored.
  const lastSeen = Math.max(current.store.newest_ms, ...current.nodes.map((node) => node.last_seen_ms));
  if (isRelative(view.value) && now - lastSeen > kSilentAfterMs) return <Silent lastSeen={lastSeen} now={now} />;
  const { oldest_ms: oldest, newest_ms: newest } = current.store;
  const [from, to] = [timeToMs(view.value.from, now), timeToMs(view.value.to, now)];
  if (newest > 0 && (to <= oldest || from > newest)) return <OutOfStore oldest={oldest} newest={newest} now={now} />;
  return null;
}

export function NoAgent() {
  return (
    <>
      <h3>No agent has ever reported to this server</h3>
      <p>Start one on each machine that you want to see:</p>
      <CopyLine text="sudo firewatch-agent --server 127.0.0.1:7070" />
      <p>The first profile arrives within 10 seconds. <code>firewatch doctor</code> says what a machine allows.</p>
      <button type="button" class="button-main" onClick={refresh}>Look again</button>
    </>
  );
}

function NothingMatched({ query, othersTotal }: { query: string; othersTotal: number }) {
  return (
    <>
      <h3>No sample matches this filter</h3>
      <p><code>{query}</code></p>
      <p>{othersTotal > 0 ? 'Other services have samples in this range. ' : ''}An idle process has no samples; a typed name may be misspelled.</p>
      <button type="button" class="button-main" onClick={() => navigate({ query: '', focus: '', only: '' })}>Clear the filter</button>
    </>
  );
}

function Silent({ lastSeen, now }: { lastSeen: number; now: number }) {
  return (
    <>
      <h3>The agents are silent since {formatTime(lastSeen, now)}</h3>
      <p>The last upload came {formatAgo(now - lastSeen)} ago. On the machines, look at:</p>
      <CopyLine text="systemctl status firewatch-agent" />
      {lastSeen > 0 && <button type="button" class="button-main" onClick={() => setRange(String(lastSeen - 900_000), String(lastSeen + 10_000))}>Show the last 15 minutes that arrived</button>}
    </>
  );
}

function OutOfStore({ oldest, newest, now }: { oldest: number; newest: number; now: number }) {
  return (
    <>
      <h3>Nothing is stored for this range</h3>
      <p>Stored is {formatTime(oldest, now)} to {formatTime(newest, now)}.</p>
      <button type="button" class="button-main" onClick={() => setRange(String(Math.max(oldest, newest - 900_000)), String(newest + 10_000))}>Show the newest</button>
    </>
  );
}

function Nothing() {
  return (
    <>
      <h3>No samples in this range</h3>
      <p>Agents report every 10 seconds; a short or a quiet range may hold none.</p>
      <button type="button" class="button-main" onClick={() => setRange(kDefaults.from, kDefaults.to)}>Show the last 15 minutes</button>
    </>
  );
}
