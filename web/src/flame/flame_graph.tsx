// SPDX-License-Identifier: Apache-2.0
// The flame graph as a component: pointer and keys, details line, tooltip, menu, and the tree in the
// DOM that says to a screen reader what the canvas shows.
import { signal, useSignal, useSignalEffect } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import { kInlined, kKernel, kNotSymbolized, kOther } from '../model/columns';
import { formatPercent, formatValue } from '../model/format';
import { reasonText, sourceOf } from '../model/reasons';
import { type FlameTree, isAncestorOrSelf, largestChild } from '../model/tree';
import { focus, hashOfName, hues, mark, matches, navigate, tree, unit, view, zoomTo } from '../state';
import { unnamedOpen } from '../panels/unnamed';
import { theme } from '../theme';
import { FlameView } from './flame_view';
import { FrameMenu, type MenuPlace } from './frame_menu';

export const hovered = signal(-1);
export const selected = signal(-1); // the keyboard's node

// Every number that a frame has, in words.
export function describe(current: FlameTree, node: number, root: number): string {
  const { total, self } = current;
  return [
    `${formatValue(total[node], unit.value)} total, ${formatPercent(total[node], total[0])} of all`,
    root > 0 ? `${formatPercent(total[node], total[root])} of the view` : '',
    `${formatValue(self[node], unit.value)} self`,
  ].filter(Boolean).join(', ');
}

export function Marks({ flags }: { flags: number }) {
  return (
    <>
      {flags & kKernel ? <span class="badge badge-kernel">kernel</span> : null}
      {flags & kInlined ? <span class="badge" title="Compiled into its caller">inlined</span> : null}
      {flags & kNotSymbolized ? <span class="badge" title={`No name: ${reasonText(flags)}`}>no symbol</span> : null}
    </>
  );
}

// Always there, always of one height: what the pointer is on, else the keyboard's frame, else the zoom.
export function DetailsLine() {
  const current = tree.value;
  if (!current) return null;
  const pick = hovered.value >= 0 ? hovered.value : selected.value >= 0 ? selected.value : focus.value;
  const node = pick < current.size ? pick : 0;
  const { total, self } = current;
  return (
    <div class="details" data-testid="details">
      <span class="details-name" title={current.names[current.name[node]]}>{current.names[current.name[node]]}</span>
      <span class="details-file">{current.names[current.file[node]]}</span>
      <Source tree={current} node={node} />
      <Marks flags={current.flags[node]} />
      <Reason flags={current.flags[node]} />
      <span class="details-numbers">
        <Number label="self" value={formatValue(self[node], unit.value)} />
        <Number label="total" value={formatValue(total[node], unit.value)} />
        <Number label="of all" value={formatPercent(total[node], total[0])} />
        {focus.value > 0 && <Number label="of view" value={formatPercent(total[node], total[focus.value])} />}
      </span>
    </div>
  );
}

// Where the function begins, as far as it is known.
function Source({ tree: current, node }: { tree: FlameTree; node: number }) {
  const { short, full } = sourceOf(current, node);
  return short ? <span class="details-source" title={full} data-testid="source">{short}</span> : null;
}

function Reason({ flags }: { flags: number }) {
  const text = reasonText(flags);
  if (!text) return null;
  return (
    <button type="button" class="link details-reason" onClick={() => (unnamedOpen.value = true)} data-testid="reason"
      title="What helps">{text}</button>
  );
}

function Number({ label, value }: { label: string; value: string }) {
  return <span class="number"><b>{value}</b> {label}</span>;
}

function Tooltip({ place }: { place: { x: number; y: number } }) {
  const current = tree.value;
  const node = hovered.value;
  const element = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const box = element.current;
    if (!box) return;
    const x = Math.min(place.x + 14, innerWidth - box.offsetWidth - 8);
    const y = place.y + 18 + box.offsetHeight > innerHeight ? place.y - box.offsetHeight - 10 : place.y + 18;
    box.style.transform = `translate(${Math.max(4, x)}px, ${Math.max(4, y)}px)`;
  });
  if (!current || node < 0 || node >= current.size) return null;
  const { total, self, flags } = current;
  return (
    <div class="tooltip" ref={element} data-testid="tooltip">
      <div class="tooltip-name">{current.names[current.name[node]]}</div>
      <div class="tooltip-file">{current.names[current.file[node]]} <Marks flags={flags[node]} /></div>
      {sourceOf(current, node).full ? <div class="tooltip-file">{sourceOf(current, node).full}</div> : null}
      {reasonText(flags[node]) ? <div class="tooltip-note">No name: {reasonText(flags[node])}</div> : null}
      <dl>
        <dt>total</dt><dd>{formatValue(total[node], unit.value)}</dd><dd>{formatPercent(total[node], total[0])} of all</dd>
        <dt>self</dt><dd>{formatValue(self[node], unit.value)}</dd><dd>{formatPercent(self[node], total[0])} of all</dd>
        {focus.value > 0 && <><dt /><dd /><dd>{formatPercent(total[node], total[focus.value])} of view</dd></>}
      </dl>
      {flags[node] & kOther ? <div class="tooltip-note">Small frames that were left out. Click to load more of them.</div> : null}
    </div>
  );
}

// What a click does; also the keyboard's Enter.
export function openFrame(node: number): void {
  const current = tree.value;
  if (!current) return;
  if (current.flags[node] & kOther) navigate({ maxNodes: Math.min(view.value.maxNodes * 10, 9_000_000) });
  else zoomTo(node);
}

export function markFunction(name: string): void {
  const hash = hashOfName(name);
  navigate({ mark: view.value.mark === hash ? '' : hash, search: '' }, 'replace');
}

export function onlyFunction(name: string): void {
  navigate({ only: hashOfName(name), focus: '' });
}

// Up: parent. Down: the child with most value. Left and right: siblings.
function step(key: string, current: FlameTree, at: number): number {
  const up = current.parent[at];
  switch (key) {
    case 'ArrowUp': return up;
    case 'ArrowDown': return largestChild(current, at);
    case 'ArrowLeft': return at > 0 && at > current.firstChild[up] ? at - 1 : -1;
    case 'ArrowRight': return at > 0 && at + 1 < current.firstChild[up] + current.childCount[up] ? at + 1 : -1;
    case 'Home': return 0;
    default: return -1;
  }
}

export function FlameGraph() {
  const scroller = useRef<HTMLDivElement>(null);
  const flame = useRef<FlameView | null>(null);
  const pointer = useSignal({ x: 0, y: 0 });
  const menu = useSignal<MenuPlace | null>(null);

  useEffect(() => {
    const made = new FlameView(scroller.current!);
    flame.current = made;
    publish(made);
    return () => made.dispose();
  }, []);

  useSignalEffect(() => {
    const current = tree.value;
    if (!current) return;
    if (selected.value >= current.size) selected.value = -1;
    flame.current?.show({
      tree: current, focus: focus.value, selected: selected.value,
      matches: matches.value, mark: mark.value, theme: theme.value, hues: hues.value,
    });
  });
  useSignalEffect(() => {
    tree.value; // another tree has other nodes
    hovered.value = -1;
  });
  useSignalEffect(() => flame.current?.setHovered(hovered.value));

  const onKey = (event: KeyboardEvent) => {
    const current = tree.value;
    if (!current || event.ctrlKey || event.metaKey || event.altKey) return;
    const at = selected.value >= 0 ? selected.value : focus.value;
    if (event.key.startsWith('Arrow') || event.key === 'Home') {
      const next = selected.value < 0 ? at : step(event.key, current, at);
      if (next >= 0) {
        selected.value = next;
        // Walking out of the view takes the view along.
        if (!isAncestorOrSelf(current, focus.value, next) && !isAncestorOrSelf(current, next, focus.value)) zoomTo(current.parent[next]);
      }
    } else if (event.key === 'Enter' || event.key === ' ') openFrame(at);
    else if (event.key === 'Backspace') zoomTo(current.parent[focus.value]);
    else if (event.key === 'c') void navigator.clipboard?.writeText(current.names[current.name[at]]);
    else if (event.key === 'o' && at > 0) onlyFunction(current.names[current.name[at]]);
    else if (event.key === 'ContextMenu' || (event.key === 'F10' && event.shiftKey)) openMenuAt(at);
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  const openMenuAt = (node: number) => {
    const place = flame.current?.placeOf(node);
    const area = scroller.current!.getBoundingClientRect();
    if (place) menu.value = { node, x: area.left + place.x + 8, y: area.top + place.y + 18 };
  };

  return (
    <div class="flame">
      <div
        class="flame-scroller"
        ref={scroller}
        role="tree"
        tabIndex={0}
        aria-label="Flame graph: arrow keys walk, Enter zooms, Escape shows all"
        aria-owns="flame-tree"
        aria-activedescendant={selected.value >= 0 ? `frame-${selected.value}` : undefined}
        data-testid="flame"
        onMouseMove={(event) => {
          pointer.value = { x: event.clientX, y: event.clientY };
          hovered.value = flame.current?.nodeUnder(event) ?? -1;
        }}
        onMouseLeave={() => (hovered.value = -1)}
        onScroll={() => (hovered.value = -1)}
        onClick={(event) => {
          const node = flame.current?.nodeUnder(event) ?? -1;
          if (node < 0) return;
          selected.value = -1;
          openFrame(node);
        }}
        onContextMenu={(event) => {
          const node = flame.current?.nodeUnder(event) ?? -1;
          if (node < 0) return;
          event.preventDefault();
          menu.value = { node, x: event.clientX, y: event.clientY };
        }}
        onKeyDown={onKey}
      />
      <AccessibleTree />
      {hovered.value >= 0 && !menu.value && <Tooltip place={pointer.value} />}
      {menu.value && <FrameMenu place={menu.value} onClose={() => {
        menu.value = null;
        scroller.current?.focus();
      }} />}
    </div>
  );
}

// The way down to the keyboard's frame (else to the zoom) and its largest children; not the whole tree, which
// may have a million nodes. The table is the other view of the same numbers.
const kMaxSpokenChildren = 30;
function AccessibleTree() {
  const current = tree.value;
  if (!current) return <div id="flame-tree" class="unseen" role="group"><div role="treeitem">no data</div></div>;
  const at = selected.value >= 0 ? selected.value : focus.value;
  const path: number[] = [];
  for (let node = at; ; node = current.parent[node]) {
    path.unshift(node);
    if (node === 0) break;
  }
  const children = Array.from({ length: current.childCount[at] }, (_, i) => current.firstChild[at] + i)
    .sort((a, b) => current.total[b] - current.total[a])
    .slice(0, kMaxSpokenChildren);
  return (
    <div id="flame-tree" class="unseen" role="group">
      {[...path, ...children].map((node) => {
        const up = current.parent[node];
        return (
          <div
            role="treeitem"
            key={node}
            id={`frame-${node}`}
            aria-level={current.depth[node] + 1}
            aria-setsize={node === 0 ? 1 : current.childCount[up]}
            aria-posinset={node === 0 ? 1 : node - current.firstChild[up] + 1}
            aria-expanded={current.childCount[node] > 0 ? path.includes(node) : undefined}
            aria-selected={node === at}
          >
            {current.names[current.name[node]]}, {describe(current, node, focus.value)}
          </div>
        );
      })}
    </div>
  );
}

// Read-only data for tests of the page: geometry instead of pixels.
declare global {
  interface Window {
    firewatchDrawn?: () => { boxes: ReturnType<FlameView['drawnBoxes']>; renderer: string; frameMs: number; settled: boolean };
  }
}
function publish(made: FlameView): void {
  window.firewatchDrawn = () => ({
    boxes: made.drawnBoxes(), renderer: made.rendererKind, frameMs: made.lastFrameMs, settled: !made.animating,
  });
}
