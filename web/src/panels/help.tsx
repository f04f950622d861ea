// SPDX-License-Identifier: Apache-2.0
// Every key and every click in one place ("?").
import { signal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';

export const helpOpen = signal(false);

const kKeys: [string, string][] = [
  ['/', 'search functions and binaries, or filter connections: text, or /regex/'],
  ['Esc', 'show all again (in a text field: leave it)'],
  ['← → ↑ ↓', 'in the graph: siblings, parent, largest child'],
  ['Enter', 'zoom to the frame'],
  ['Backspace', 'zoom out by one frame'],
  ['o', 'only stacks through this function'],
  ['c', 'copy the name'],
  ['↑ ↓', 'in connections: from process to process; Enter opens the flame graph'],
  ['Menu', 'all actions of a frame (also a right click)'],
  ['?', 'this list'],
];
const kPointer: [string, string][] = [
  ['click a service', 'filter by it; again: all services'],
  ['drag on the time line', 'choose a range; double click goes back'],
  ['click a frame', 'zoom; the browser’s back button undoes it'],
  ['click a function', 'mark it in the graph'],
  ['click a process', 'of a connection: its flame graph of the same time'],
];

export function Help() {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    if (helpOpen.value) dialog.current?.showModal();
    else dialog.current?.close();
  }, [helpOpen.value]);
  return (
    <dialog class="help" ref={dialog} aria-label="Keys" onClose={() => (helpOpen.value = false)}
      onKeyDown={(event) => event.stopPropagation()}
      onClick={(event) => {
        if (event.target === dialog.current) helpOpen.value = false; // the ground around it
      }}>
      <h2>Keys</h2>
      <dl>{kKeys.map(([key, what]) => [<dt key={key}><kbd>{key}</kbd></dt>, <dd key={what}>{what}</dd>])}</dl>
      <h2>Pointer</h2>
      <dl>{kPointer.map(([key, what]) => [<dt key={key}>{key}</dt>, <dd key={what}>{what}</dd>])}</dl>
      <p>The address of this page holds the whole view: query, range, zoom, search and order. Copy it to share what you see.</p>
      <button type="button" class="button-main" onClick={() => (helpOpen.value = false)}>Close</button>
    </dialog>
  );
}
