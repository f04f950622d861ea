// SPDX-License-Identifier: Apache-2.0
// The menu of one frame (right click, or the menu key).
import { useEffect, useRef } from 'preact/hooks';
import { kOther } from '../model/columns';
import { pathOf } from '../model/tree';
import { tree, zoomTo } from '../state';
import { markFunction, onlyFunction, openFrame } from './flame_graph';

export interface MenuPlace {
  node: number;
  x: number;
  y: number;
}

export function FrameMenu({ place, onClose }: { place: MenuPlace; onClose: () => void }) {
  const element = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const box = element.current!;
    const x = Math.min(place.x, innerWidth - box.offsetWidth - 8);
    const y = Math.min(place.y, innerHeight - box.offsetHeight - 8);
    box.style.transform = `translate(${x}px, ${y}px)`;
    box.querySelector('button')?.focus();
    const outside = (event: Event) => {
      if (!box.contains(event.target as Node)) onClose();
    };
    addEventListener('pointerdown', outside, true);
    addEventListener('blur', onClose);
    return () => {
      removeEventListener('pointerdown', outside, true);
      removeEventListener('blur', onClose);
    };
  }, [place.node]);

  const current = tree.value;
  if (!current || place.node >= current.size) return null;
  const { node } = place;
  const name = current.names[current.name[node]];
  const copy = (text: string) => void navigator.clipboard?.writeText(text);
  const stack = () => pathOf(current, node).slice(1).map((n) => current.names[current.name[n]]).join('\n');
  const isOther = (current.flags[node] & kOther) !== 0;
  const items: [string, () => void][] = isOther
    ? [['Load more frames', () => openFrame(node)]]
    : node === 0
      ? [['Show all', () => zoomTo(0)]]
      : [
          ['Zoom here', () => zoomTo(node)],
          ['Only stacks through this function', () => onlyFunction(name)],
          ['Highlight this function', () => markFunction(name)],
          ['Copy name', () => copy(name)],
          ['Copy stack', () => copy(stack())],
        ];
  const onKey = (event: KeyboardEvent) => {
    const buttons = [...element.current!.querySelectorAll('button')];
    const at = buttons.indexOf(document.activeElement as HTMLButtonElement);
    const move = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (move) buttons[(at + move + buttons.length) % buttons.length].focus();
    else if (event.key === 'Escape' || event.key === 'Tab') onClose();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  return (
    <div class="menu" role="menu" aria-label={name} ref={element} onKeyDown={onKey} data-testid="frame-menu">
      {items.map(([label, run]) => (
        <button type="button" role="menuitem" key={label} onClick={() => { run(); onClose(); }}>{label}</button>
      ))}
    </div>
  );
}
