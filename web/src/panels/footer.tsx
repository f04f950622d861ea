// SPDX-License-Identifier: Apache-2.0
// How good the data is, and how to take it elsewhere.
import { apiUrl } from '../api';
import { formatAgo, formatBytes, formatCount, formatPercent } from '../model/format';
import { completeStacks, hadUserStack } from '../model/stack_ends';
import { answers, clockSkew, status, view } from '../state';
import { CopyLine } from './copy_line';
import { kSilentAfterMs } from './empty_state';
import { Modules } from './modules';
import { UnnamedShare } from './unnamed';

export function Footer() {
  return (
    <footer class="footer">
      <div class="facts"><Samples /><Nodes /><Fallbacks /><Modules /><Losses /><StackEnds /><UnnamedShare /><Store /></div>
      <Downloads />
    </footer>
  );
}

function Samples() {
  const count = answers.value?.samples.total;
  return count === undefined ? null : <span><b>{formatCount(count)}</b> samples</span>;
}

function Nodes() {
  const current = status.value;
  if (!current) return null;
  const now = Date.now() + clockSkew();
  const silent = current.nodes.filter((node) => now - node.last_seen_ms > kSilentAfterMs);
  const detail = current.nodes
    .map((node) => `${node.node}: ${node.hz} Hz, agent ${node.agent_version}, seen ${formatAgo(now - node.last_seen_ms)} ago`)
    .join('\n');
  return (
    <span title={detail}>
      <b>{current.nodes.length}</b> {current.nodes.length === 1 ? 'node' : 'nodes'}
      {silent.length > 0 && <span class="warn"> ({silent.length} silent)</span>}
    </span>
  );
}

// Nodes that could not be sampled the best way say so, with the reason.
function Fallbacks() {
  const nodes = status.value?.nodes.filter((node) => node.sampler_note) ?? [];
  if (nodes.length === 0) return null;
  const samplers = [...new Set(nodes.map((node) => node.sampler))].join(', ');
  return (
    <span class="warn" title={nodes.map((node) => `${node.node}: ${node.sampler_note}`).join('\n')}>
      fallback sampler: <b>{samplers}</b>
      {nodes.length === 1 ? ` (${nodes[0].sampler_note})` : ` on ${nodes.length} nodes`}
    </span>
  );
}

const listed = (entries: Record<string, number>) =>
  Object.entries(entries).filter(([, count]) => count > 0).sort((a, b) => b[1] - a[1]);
const spaced = (name: string) => name.replaceAll('_', ' ');

function Losses() {
  const losses = listed(status.value?.losses ?? {});
  const sum = losses.reduce((total, [, count]) => total + count, 0);
  if (!status.value) return null;
  return (
    <span class={sum > 0 ? 'warn' : ''} title={losses.map(([name, count]) => `${spaced(name)}: ${count}`).join('\n') || 'Nothing was lost'}>
      <b>{formatCount(sum)}</b> lost{losses.length > 0 && ` (${spaced(losses[0][0])} ${formatCount(losses[0][1])}${losses.length > 1 ? ', …' : ''})`}
    </span>
  );
}

function StackEnds() {
  const ends = status.value?.stack_ends ?? {};
  const { complete, all } = completeStacks(ends);
  if (all === 0) return null;
  const reasons = listed(ends).map(([name, count]) => `${spaced(name)}: ${count}${!hadUserStack(name) ? '' : ` (${formatPercent(count, all)})`}`);
  return (
    <span title={['How user stacks of all programs ended, whatever is selected; complete is "root":', ...reasons].join('\n')}>
      <b>{formatPercent(complete, all)}</b> complete stacks
    </span>
  );
}

function Store() {
  const store = status.value?.store;
  if (!store) return null;
  return <span title={`${store.windows} windows stored, ${store.duplicates} retries recognised`}><b>{formatBytes(store.disk_bytes)}</b> stored</span>;
}

// The same range and filter as on the page.
function Downloads() {
  const { query, from, to, type } = view.value;
  const range = { query, from, to, type };
  const pprof = new URL('pprof/profile', location.href.split('?')[0]);
  if (query) pprof.searchParams.set('query', query);
  pprof.searchParams.set('from', from);
  pprof.searchParams.set('to', to);
  return (
    <div class="downloads">
      <span>Download</span>
      <a href={apiUrl('profile', range, { format: 'pprof' })} download="firewatch.pb.gz">pprof</a>
      <a href={apiUrl('profile', range, { format: 'folded' })} download="firewatch.folded">folded</a>
      <a href={apiUrl('profile', range, { format: 'json' })} download="firewatch.json">JSON</a>
      <CopyLine text={`go tool pprof '${pprof.href.replaceAll("'", '%27')}'`} />
      <span class="version">{status.value?.version}</span>
    </div>
  );
}
