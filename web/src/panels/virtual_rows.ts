// SPDX-License-Identifier: Apache-2.0
// A table of any length, of which only the rows in sight are in the DOM. Rows are all of one height;
// the caller puts rows without content, as high as what is missing, above and below.
import { useSignal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';

const kOverscan = 8;

export function useVirtualRows(count: number, rowHeight: number) {
  const scroller = useRef<HTMLDivElement>(null);
  const top = useSignal(0);
  const height = useSignal(400);
  useEffect(() => {
    const element = scroller.current!; // the reference is gone before the observer is
    const observer = new ResizeObserver(() => (height.value = element.clientHeight));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  const first = Math.max(0, Math.min(Math.floor(top.value / rowHeight) - kOverscan, count - 1));
  const last = Math.min(count, Math.ceil((top.value + height.value) / rowHeight) + kOverscan);
  return { scroller, first, last, onScroll: () => (top.value = scroller.current?.scrollTop ?? 0) };
}
