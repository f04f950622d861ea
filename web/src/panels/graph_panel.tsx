// SPDX-License-Identifier: Apache-2.0
// Flame graph and table with what they share: search, the way down to the zoom, the layout.
import { useSignal } from '@preact/signals';
import { useRef } from 'preact/hooks';
import { binaryColor, makePalette } from '../flame/colors';
import { DetailsLine, FlameGraph } from '../flame/flame_graph';
import { kKernel } from '../model/columns';
import { formatCount, formatPercent, formatValue, shortenName } from '../model/format';
import { coveredBelow } from '../model/search';
import { type FlameTree, pathOf } from '../model/tree';
import type { Layout } from '../model/view_state';
import {
  focus, focusMissing, fullTree, hues, mark, matches, navigate, searchError, stale, tree, unit, view, zoomTo,
} from '../state';
import { theme } from '../theme';
import { EmptyState } from './empty_state';
import { FunctionTable } from './function_table';

const kLayouts: [Layout, string][] = [['graph', 'Flame graph'], ['both', 'Both'], ['table', 'Table']];

export function GraphPanel() {
  const { layout } = view.value;
  const empty = fullTree.value?.total[0] === 0;
  return (
    <section class={`panel graph ${stale.value ? 'is-stale' : ''}`} aria-label="Profile">
      <div class="panel-head graph-head">
        <div class="segments" role="group" aria-label="Show">
          {kLayouts.map(([value, label]) => (
            <button type="button" key={value} aria-pressed={layout === value} class={layout === value ? 'is-on' : ''}
              onClick={() => navigate({ layout: value }, 'replace')}>{label}</button>
          ))}
        </div>
        <SearchBox />
        <Legend />
      </div>
      {empty ? <EmptyState /> : (
        <>
          <Breadcrumb />
          <div class={`graph-body layout-${layout}`}>
            {layout !== 'table' && <div class="graph-flame"><DetailsLine /><FlameGraph /></div>}
            {layout !== 'graph' && <div class="graph-table"><FunctionTable /></div>}
          </div>
        </>
      )}
    </section>
  );
}

function SearchBox() {
  const input = useRef<HTMLInputElement>(null);
  const { search } = view.value;
  const current = tree.value;
  const found = matches.value;
  const focused = useSignal(false);
  return (
    <div class="search">
      <input ref={input} type="search" id="search" value={search} maxLength={256} spellcheck={false} autocomplete="off"
        class={searchError.value ? 'is-wrong' : ''}
        placeholder={focused.value ? 'text or /regex/' : 'Search functions  ( / )'}
        aria-label="Search functions and binaries: text or /regex/" aria-describedby="search-result" aria-invalid={searchError.value !== ''}
        onFocus={() => (focused.value = true)}
        onBlur={() => (focused.value = false)}
        onInput={(event) => navigate({ search: event.currentTarget.value, mark: '' }, 'replace')}
        onKeyDown={(event) => {
          if (event.key !== 'Escape') return;
          if (search) navigate({ search: '' }, 'replace');
          else input.current?.blur();
          event.stopPropagation();
        }}
        data-testid="search" />
      <span id="search-result" class={searchError.value ? 'problem' : 'search-result'} role="status" data-testid="search-result">
        {searchError.value || (current && found ? searchSummary(current) : '')}
      </span>
    </div>
  );
}

function searchSummary(current: FlameTree): string {
  const found = matches.value!;
  if (found.count === 0) return 'no match';
  const all = `${formatPercent(found.covered, current.total[0])} of all`;
  if (focus.value === 0) return `${all} · ${formatCount(found.count)} frames`;
  return `${formatPercent(coveredBelow(current, found, focus.value), current.total[focus.value])} of view · ${all}`;
}

// The binaries that burn most, with their colours.
const kLegendSize = 5;
function Legend() {
  const current = tree.value;
  if (!current) return null;
  const self = new Map<string, { value: number; kernel: boolean }>();
  for (let i = 1; i < current.size; ++i) {
    if (current.self[i] === 0) continue;
    const kernel = (current.flags[i] & kKernel) !== 0;
    const key = kernel ? 'kernel' : current.names[current.file[i]];
    const entry = self.get(key) ?? { value: 0, kernel };
    entry.value += current.self[i];
    self.set(key, entry);
  }
  const palette = makePalette(theme.value);
  const top = [...self].filter(([name]) => name !== '').sort((a, b) => b[1].value - a[1].value).slice(0, kLegendSize);
  return (
    <ul class="legend" aria-label="Colours: binaries by own time">
      {top.map(([name, { value, kernel }]) => (
        <li key={name} title={`${name}: ${formatPercent(value, current.total[0])} own time`}>
          <i class="swatch" style={{ background: binaryColor(palette, hues.value, name, kernel) }} />{name}
        </li>
      ))}
    </ul>
  );
}

// total › main › … › here: every part a way back.
const kCrumbs = 4;
function Breadcrumb() {
  const current = tree.value;
  if (!current) return null;
  if (focusMissing.value) {
    return (
      <div class="crumbs notice" role="status">
        The frame that this link zooms to is not in this data: all is shown.
        <button type="button" class="link" onClick={() => navigate({ focus: '' })}>Forget it</button>
      </div>
    );
  }
  const path = pathOf(current, focus.value);
  const shown = path.length > kCrumbs + 1 ? [path[0], -1, ...path.slice(-kCrumbs)] : path;
  const highlighted = mark.value >= 0 ? current.names[mark.value] : '';
  return (
    <nav class="crumbs" aria-label="Zoom" data-testid="crumbs">
      {focus.value === 0
        ? <span class="crumb-note">{unit.value === 'count' ? `${formatCount(current.total[0])} samples` : `${formatValue(current.total[0], unit.value)} of CPU time`} in view. Click a frame to zoom, right click for more.</span>
        : (
          <>
            {shown.map((node, i) => node < 0
              ? <span key="gap" class="crumb-gap">… {path.length - kCrumbs - 1} more ›</span>
              : i === shown.length - 1
                ? <b key={node} class="crumb-here" title={current.names[current.name[node]]}>{shortenName(current.names[current.name[node]])}</b>
                : <span key={node}><button type="button" class="link" title={current.names[current.name[node]]} onClick={() => zoomTo(node)}>{shortenName(current.names[current.name[node]])}</button> ›</span>)}
            <span class="crumb-note">{formatPercent(current.total[focus.value], current.total[0])} of all</span>
            <button type="button" class="button-small" onClick={() => zoomTo(0)} data-testid="reset">Reset zoom <kbd>Esc</kbd></button>
          </>
        )}
      {highlighted && (
        <span class="chip chip-mark"><span class="chip-text" title={highlighted}>{shortenName(highlighted)}</span>
          <button type="button" aria-label="Stop highlighting" onClick={() => navigate({ mark: '' }, 'replace')}>×</button></span>
      )}
    </nav>
  );
}
