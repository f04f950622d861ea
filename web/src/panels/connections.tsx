// SPDX-License-Identifier: Apache-2.0
// Who talks to whom over TCP in the range, and how well: a row per process, direction, peer and port.
// A process leads to its flame graph of the same time.
import { computed } from '@preact/signals';
import { useRef } from 'preact/hooks';
import {
  type Connection, type ConnectionSortKey, filterConnections, isText, kServerSortText, numberOf, peerText,
  processMatchers, readSort, sortConnections, sumConnections, type Totals,
} from '../model/connections';
import { formatBytes, formatCount, formatNanoseconds, formatPercent } from '../model/format';
import { compileSearch } from '../model/search';
import { formatSelector, parseSelector } from '../model/selector';
import { encodeView, type ViewState } from '../model/view_state';
import { answers, navigate, stale, view } from '../state';
import { ConnectionsEmpty } from './connections_empty';
import { colorOfService } from './series_colors';
import { useVirtualRows } from './virtual_rows';

const kRowHeight = 26;

const data = computed(() => answers.value?.connections?.data ?? null);
const sort = computed(() => readSort(view.value.order));
const findText = computed(() => view.value.find);
const finder = computed(() => {
  try {
    return { test: compileSearch(findText.value), error: '' };
  } catch (error) {
    return { test: null, error: (error as Error).message };
  }
});
const found = computed(() => filterConnections(data.value?.rows ?? [], finder.value.test));
const rows = computed(() => sortConnections(found.value, sort.value));
const total = computed(() => (finder.value.test ? sumConnections(found.value) : data.value?.total ?? sumConnections([])));

export function ConnectionsPanel() {
  const answer = answers.value?.connections;
  const empty = answer && (!answer.data || (answer.data.rows.length === 0 && answer.data.leftOut === 0));
  return (
    <section class={`panel graph ${stale.value ? 'is-stale' : ''}`} aria-label="Connections">
      <div class="panel-head graph-head">
        <FindBox />
        <span class="panel-note" role="status" data-testid="connections-note">{answer && !empty && <Note />}</span>
      </div>
      {empty ? <ConnectionsEmpty unsupported={!answer.data} /> : answer && <ConnectionTable />}
    </section>
  );
}

function FindBox() {
  const input = useRef<HTMLInputElement>(null);
  const { error } = finder.value;
  return (
    <div class="search">
      <input ref={input} type="search" id="search" value={findText.value} maxLength={256} spellcheck={false} autocomplete="off"
        class={error ? 'is-wrong' : ''} placeholder="Filter connections  ( / )"
        aria-label="Filter connections by process, address or node: text or /regex/" aria-describedby="find-problem" aria-invalid={error !== ''}
        onInput={(event) => navigate({ find: event.currentTarget.value }, 'replace')}
        onKeyDown={(event) => {
          if (event.key !== 'Escape') return;
          if (findText.value) navigate({ find: '' }, 'replace');
          else input.current?.blur();
          event.stopPropagation();
        }}
        data-testid="find" />
      <span id="find-problem" class="problem" role="status">{error}</span>
    </div>
  );
}

// What is listed of how much. Left out are those that are last in the server's order: the filter
// does not see them, a narrower query or range does.
function Note() {
  const { rows: all, leftOut } = data.value!;
  const listed = leftOut > 0
    ? `the ${formatCount(all.length)} with ${kServerSortText[answers.value!.connections!.sort]} of ${formatCount(all.length + leftOut)} rows`
    : `${formatCount(all.length)} ${all.length === 1 ? 'row' : 'rows'}`;
  return <>{finder.value.test ? `${formatCount(found.value.length)} of ${listed}` : listed}</>;
}

// --- The table ------------------------------------------------------------------------------------------

const kColumns: [ConnectionSortKey, string, string][] = [
  ['process', 'Process', 'Service and executable; a click opens its flame graph'],
  ['remote', 'Peer', '→ the process connects, ← the peer does'],
  ['retransmits', 'Retransmits', 'Data segments sent again, and their share of the segments sent'],
  ['failed', 'Failed', 'Connections that were never established, and SYNs sent again'],
  ['resets', 'Resets', 'Connections ended by a reset, sent or received'],
  ['sent', 'Sent', 'Bytes of payload'],
  ['received', 'Received', 'Bytes of payload'],
  ['rtt', 'RTT', 'Mean round-trip time'],
  ['opened', 'Opened', 'Connections established in the range'],
  ['living', 'Living', 'Connections at the end of the range'],
  ['node', 'Node', ''],
];

function ConnectionTable() {
  const list = rows.value;
  const { scroller, first, last, onScroll } = useVirtualRows(list.length, kRowHeight);
  const { key } = sort.value;
  const leftOut = data.value?.leftOut ?? 0;
  const most = list.reduce((max, row) => Math.max(max, numberOf(row, key)), 0);
  const filler = (count: number) => count > 0 && (
    <tr aria-hidden="true" style={{ height: `${count * kRowHeight}px` }}><td colSpan={kColumns.length} /></tr>
  );
  return (
    <div class="graph-body layout-table">
      <div class="table-scroller" ref={scroller} onScroll={onScroll} onKeyDown={moveFocus} tabIndex={0} role="region" aria-label="Connections, rows">
        <table class="functions connections" aria-rowcount={list.length + 2} data-testid="connections">
          <caption class="unseen">TCP connections by process and peer, summed over the range</caption>
          <thead>
            <tr aria-rowindex={1}>{kColumns.map(([of, label, title]) => <Head key={of} of={of} label={label} title={title} />)}</tr>
            <tr class="totals" aria-rowindex={2} data-testid="connections-total">
              <th scope="row" class="column-process">{finder.value.test ? 'Sum of matches' : 'Total'}</th>
              <td class="column-remote">{!finder.value.test && leftOut > 0 && `with ${formatCount(leftOut)} not listed`}</td>
              <Numbers of={total.value} sorted="process" most={0} />
              <td />
            </tr>
          </thead>
          <tbody>
            {filler(first)}
            {list.slice(first, last).map((row, i) => (
              <Row key={row.key} row={row} index={first + i} sorted={key} most={most} />
            ))}
            {filler(list.length - last)}
          </tbody>
        </table>
        {list.length === 0 && <p class="table-empty">No connection matches the filter.</p>}
      </div>
    </div>
  );
}

// Up and down go from process to process; Tab and Enter do what they do everywhere.
function moveFocus(event: KeyboardEvent): void {
  const step = event.key === 'ArrowDown' ? 1 : event.key === 'ArrowUp' ? -1 : 0;
  const row = (event.target as Element).closest('tbody tr');
  if (step === 0 || !row) return;
  let next = step > 0 ? row.nextElementSibling : row.previousElementSibling;
  while (next && !next.querySelector('a')) next = step > 0 ? next.nextElementSibling : next.previousElementSibling;
  if (!next) return;
  event.preventDefault();
  next.querySelector('a')!.focus();
}

function Head({ of, label, title }: { of: ConnectionSortKey; label: string; title: string }) {
  const { key, ascending } = sort.value;
  const on = key === of;
  const click = () => {
    // First click: the order that one wants, values from the top, names from A.
    const next = on ? !ascending : isText(of);
    navigate({ order: (next ? '' : '-') + of }, 'replace');
  };
  return (
    <th scope="col" class={`column-${of}`} aria-sort={on ? (ascending ? 'ascending' : 'descending') : 'none'}>
      <button type="button" onClick={click} title={title || undefined}>{label}<span aria-hidden="true">{on ? (ascending ? ' ▲' : ' ▼') : ''}</span></button>
    </th>
  );
}

function Row({ row, index, sorted, most }: { row: Connection; index: number; sorted: ConnectionSortKey; most: number }) {
  const { labels, role } = row;
  return (
    <tr aria-rowindex={index + 3}>
      <th scope="row" class="column-process"><Process labels={labels} /></th>
      <td class="column-remote" title={peerText(row)}>
        <span class="direction" aria-hidden="true">{role === 'connect' ? '→' : '←'}</span>
        <span class="unseen">{role === 'connect' ? 'to ' : 'from '}</span>{peerText(row)}
      </td>
      <Numbers of={row} sorted={sorted} most={most} />
      <td class="column-node" title={labels.node}>{labels.node}</td>
    </tr>
  );
}

function Process({ labels }: { labels: Record<string, string> }) {
  const { service = '', exe = '' } = labels;
  const program = exe.slice(exe.lastIndexOf('/') + 1);
  const name = service || program || labels.comm || '(unknown)';
  const title = Object.entries(labels).map(([label, value]) => `${label}: ${value}`).join('\n');
  const text = (
    <>
      <i class="swatch" style={{ background: colorOfService(service) }} />
      <span class="function-text">{name}</span>
      {program !== '' && program !== name && <span class="function-file">{program}</span>}
    </>
  );
  const to = service || exe ? flameGraphOf(labels) : null;
  if (!to) return <span class="function-name" title={title}>{text}</span>;
  return (
    <a class="function-name" href={`./${encodeView({ ...view.value, ...to })}`} title={`${title}\nClick for its flame graph`}
      aria-label={`${name}${program !== name ? ` ${program}` : ''}: flame graph`}
      onClick={(event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey) return;
        event.preventDefault();
        navigate(to);
      }}>{text}</a>
  );
}

// Null when the query in force does not parse: then there is none to add to.
function flameGraphOf(labels: Record<string, string>): Partial<ViewState> | null {
  const parsed = parseSelector(view.value.query);
  if (!parsed.ok) return null;
  return {
    page: 'profile', query: formatSelector(processMatchers(parsed.matchers, labels)), focus: '', only: '', mark: '',
    layout: view.value.layout === 'table' ? 'both' : view.value.layout,
  };
}

function Numbers({ of, sorted, most }: { of: Totals; sorted: ConnectionSortKey; most: number }) {
  // `more`: a second number; "" keeps its room, so that the first ones stand below each other.
  const cell = (key: ConnectionSortKey, text: string, title?: string, more?: string) => {
    const value = numberOf(of, key);
    return (
      <td class={`column-value column-${key} ${value === 0 && !more ? 'is-zero' : ''}`} title={title}>
        {sorted === key && <i class="cell-bar" aria-hidden="true" style={{ width: `${most > 0 ? (100 * value) / most : 0}%` }} />}
        <span>{text}</span>{more !== undefined && <span class="cell-share">{more}</span>}
      </td>
    );
  };
  const syn = of.synRetransmits;
  return (
    <>
      {cell('retransmits', formatCount(of.retransmits), `${of.retransmits} of ${of.segmentsSent} segments sent`,
        of.retransmits > 0 ? formatPercent(of.retransmits, of.segmentsSent) : '')}
      {cell('failed', formatCount(of.failed), `${of.failed} never established, ${syn} SYNs sent again`, syn > 0 ? `${formatCount(syn)} SYN` : '')}
      {cell('resets', formatCount(numberOf(of, 'resets')), `${of.resetsSent} sent, ${of.resetsReceived} received`)}
      {cell('sent', formatBytes(of.bytesSent), `${of.bytesSent} bytes in ${of.segmentsSent} segments`)}
      {cell('received', formatBytes(of.bytesReceived), `${of.bytesReceived} bytes in ${of.segmentsReceived} segments`)}
      {cell('rtt', of.rttUs > 0 ? formatNanoseconds(of.rttUs * 1000) : '–', of.rttUs > 0 ? undefined : 'not known')}
      {cell('opened', formatCount(of.opened), `${of.opened} opened, ${of.closed} closed${of.closed > 0 ? `, ${formatNanoseconds((of.durationUs * 1000) / of.closed)} long on average` : ''}`)}
      {cell('living', formatCount(of.living))}
    </>
  );
}
