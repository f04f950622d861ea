// SPDX-License-Identifier: Apache-2.0
// The functions of what the graph shows: below the zoom, through the "only" filter, matching the
// search. Only the rows in sight are in the DOM.
import { computed } from '@preact/signals';
import { Marks, markFunction, onlyFunction } from '../flame/flame_graph';
import { formatPercent, formatValue, shortenName } from '../model/format';
import { type FunctionRow, functionTable, type Sort, type SortKey, sortRows } from '../model/functions';
import { focus, mark, navigate, searchTest, tree, unit, view } from '../state';
import { useVirtualRows } from './virtual_rows';

const kRowHeight = 24;

const allRows = computed(() => (tree.value ? functionTable(tree.value, focus.value) : []));
const sort = computed<Sort>(() => {
  const text = view.value.sort;
  return { key: text.replace('-', '') as SortKey, ascending: !text.startsWith('-') };
});
const rows = computed(() => {
  const current = tree.value;
  if (!current) return [];
  const test = searchTest.value;
  const fits = test
    ? allRows.value.filter((row) => test(current.names[row.name]) || test(current.names[row.file]))
    : allRows.value;
  return sortRows(fits, current.names, sort.value);
});
// Bars are as long as their share of the longest: shares of the whole would mostly be slivers.
const largest = computed(() => {
  const most = { self: 0, total: 0 };
  for (const row of rows.value) {
    most.self = Math.max(most.self, row.self);
    most.total = Math.max(most.total, row.total);
  }
  return most;
});

export function FunctionTable() {
  const list = rows.value;
  const current = tree.value;
  const { scroller, first, last, onScroll } = useVirtualRows(list.length, kRowHeight);
  const whole = current?.total[focus.value] ?? 0;
  const most = largest.value;
  return (
    <div class="table-scroller" ref={scroller} onScroll={onScroll} tabIndex={0}
      role="region" aria-label="Functions">
      <table class="functions" aria-rowcount={list.length + 1} data-testid="table">
        <caption class="unseen">Functions by their own CPU time and with what they call; shares are of the shown view</caption>
        <thead>
          <tr>
            <Head label="Function" of="name" />
            <Head label="Self" of="self" />
            <Head label="Total" of="total" />
          </tr>
        </thead>
        <tbody>
          {first > 0 && <tr aria-hidden="true" style={{ height: `${first * kRowHeight}px` }}><td colSpan={3} /></tr>}
          {current && list.slice(first, last).map((row, i) => (
            <Row key={`${row.name}/${row.file}`} row={row} index={first + i} whole={whole} most={most} names={current.names} />
          ))}
          {last < list.length && <tr aria-hidden="true" style={{ height: `${(list.length - last) * kRowHeight}px` }}><td colSpan={3} /></tr>}
        </tbody>
      </table>
      {current && list.length === 0 && <p class="table-empty">No function matches the search.</p>}
    </div>
  );
}

function Head({ label, of }: { label: string; of: SortKey }) {
  const { key, ascending } = sort.value;
  const on = key === of;
  const click = () => {
    // First click: the order that one wants, values from the top, names from A.
    const next = on ? !ascending : of === 'name';
    navigate({ sort: (next ? '' : '-') + of }, 'replace');
  };
  return (
    <th scope="col" class={`column-${of}`} aria-sort={on ? (ascending ? 'ascending' : 'descending') : 'none'}>
      <button type="button" onClick={click}>{label}<span aria-hidden="true">{on ? (ascending ? ' ▲' : ' ▼') : ''}</span></button>
    </th>
  );
}

function Row({ row, index, whole, most, names }: { row: FunctionRow; index: number; whole: number; most: { self: number; total: number }; names: string[] }) {
  const name = names[row.name];
  const file = names[row.file];
  const on = mark.value === row.name;
  return (
    <tr class={on ? 'is-on' : ''} aria-rowindex={index + 2}>
      <td class="column-name">
        <button type="button" class="function-name" aria-pressed={on} title={`${name}\n${file}`} onClick={() => markFunction(name)}>
          <span class="function-text">{shortenName(name)}</span>
          <span class="function-file">{file}</span>
        </button>
        <Marks flags={row.flags & 5} />
        <button type="button" class="row-action" onClick={() => onlyFunction(name)} title="Only stacks through this function" aria-label={`Only stacks through ${name}`}>only</button>
      </td>
      <Value value={row.self} whole={whole} most={most.self} />
      <Value value={row.total} whole={whole} most={most.total} />
    </tr>
  );
}

function Value({ value, whole, most }: { value: number; whole: number; most: number }) {
  return (
    <td class="column-value">
      <i class="cell-bar" aria-hidden="true" style={{ width: `${most > 0 ? (100 * value) / most : 0}%` }} />
      <span>{formatValue(value, unit.value)}</span>
      <span class="cell-share">{formatPercent(value, whole)}</span>
    </td>
  );
}
