// SPDX-License-Identifier: Apache-2.0
// CPU over time, total or stacked by service. Drag sets the range, double click goes back.
import { signal, useSignal, useSignalEffect } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import { formatCores, formatCount, formatTime } from '../model/format';
import { type Stack, stackSeries, sumLayers } from '../model/stack';
import { kDefaults } from '../model/view_state';
import { answers, isDefaultRange, navigate, setRange, view } from '../state';
import { theme } from '../theme';
import { colorOfRest, colorOfService, hasOwnColor } from './series_colors';

const cursorIndex = signal<number | null>(null);
const kHeight = 132;

function cssColor(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function fade(color: string, alpha: number): string {
  return color.replace(')', ` / ${alpha})`);
}

// uPlot draws no stacks: each series is a running sum, drawn from the top one down so that the
// lower ones paint over it.
function makeOptions(width: number, stack: Stack, stacked: boolean): uPlot.Options {
  const axis: uPlot.Axis = {
    stroke: cssColor('--muted'),
    grid: { stroke: cssColor('--grid'), width: 1 },
    ticks: { show: false },
    font: '11px system-ui, sans-serif',
  };
  const layers = stacked ? [...stack.layers].reverse() : [{ name: 'total', values: [], tops: [] }];
  const colorOf = (name: string) => (!stacked ? cssColor('--accent-line') : name === '' ? colorOfRest() : colorOfService(name));
  return {
    width,
    height: kHeight,
    padding: [8, 18, 0, 0],
    legend: { show: false },
    cursor: {
      y: false,
      points: { show: false },
      drag: { x: true, y: false, setScale: false, dist: 4 },
      // Ours goes back to the live range instead of re-scaling.
      bind: { dblclick: () => () => { setRange(kDefaults.from, kDefaults.to); return null; } },
    },
    scales: { x: { time: true }, y: { range: (_plot, _min, max) => [0, Math.max(max * 1.08, 0.01)] } },
    axes: [
      { ...axis, size: 24, space: 70, values: (_plot, times) => times.map((time) => shortTime(time, times)) },
      { ...axis, size: 46, space: 28, values: (_plot, values) => values.map((value) => yLabel(value)) },
    ],
    series: [
      {},
      ...layers.map(({ name }) => ({
        stroke: colorOf(name),
        width: stacked ? 1 : 1.5,
        fill: fade(colorOf(name), stacked ? 0.85 : 0.2),
        points: { show: false },
        spanGaps: false,
        paths: uPlot.paths.stepped!({ align: 1 }),
      })),
    ],
    hooks: {
      setCursor: [(plot) => (cursorIndex.value = plot.cursor.idx ?? null)],
      setSelect: [(plot) => {
        const { left, width: selected } = plot.select;
        if (selected < 4) return;
        const from = Math.round(plot.posToVal(left, 'x') * 1000);
        const to = Math.round(plot.posToVal(left + selected, 'x') * 1000);
        plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
        if (to - from >= 1000) setRange(String(from), String(to));
      }],
    },
  };
}

function yLabel(value: number): string {
  return answers.peek()?.series.unit === 'count' ? formatCount(value) : String(Math.round(value * 1000) / 1000);
}

function shortTime(seconds: number, all: number[]): string {
  const time = new Date(seconds * 1000);
  const span = (all.at(-1) ?? 0) - (all[0] ?? 0);
  if (span > 2 * 86400) return time.toLocaleDateString('en-CA').slice(5);
  return time.toLocaleTimeString('en-GB').slice(0, span < 600 ? 8 : 5);
}

export function Timeline() {
  const host = useRef<HTMLDivElement>(null);
  const width = useSignal(0);
  const stack = useSignal<Stack | null>(null);

  useEffect(() => {
    const element = host.current!;
    const observer = new ResizeObserver(() => (width.value = element.clientWidth));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);

  const plot = useRef<uPlot | null>(null);
  const shape = useRef('');
  useSignalEffect(() => {
    const series = answers.value?.series;
    const { stacked } = view.value;
    if (!series || width.value < 50) return;
    const made = stackSeries(series, hasOwnColor);
    stack.value = made;
    const columns = stacked ? [...made.layers].reverse().map(({ tops }) => tops) : [sumLayers(made)];
    const data = [made.times, ...columns] as uPlot.AlignedData;
    // New data into the same plot keeps a drag in progress alive.
    const next = JSON.stringify([width.value, theme.value, stacked, series.unit, made.layers.map(({ name }) => [name, colorOfService(name)])]);
    if (plot.current && next === shape.current) plot.current.setData(data);
    else {
      plot.current?.destroy();
      plot.current = new uPlot(makeOptions(width.value, made, stacked), data, host.current!);
      shape.current = next;
    }
  });
  useEffect(() => () => plot.current?.destroy(), []);

  const { stacked } = view.value;
  return (
    <section class="panel timeline" aria-label="Time line">
      <div class="panel-head">
        <h2>{answers.value?.series.unit === 'count' ? 'Samples per second' : 'CPU cores in use'}</h2>
        <Readout stack={stack.value} />
        {!isDefaultRange.value && (
          <button type="button" class="link" onClick={() => setRange(kDefaults.from, kDefaults.to)}>Back to last 15 min</button>
        )}
        <div class="segments segments-small" role="group" aria-label="Time line shows">
          <button type="button" aria-pressed={stacked} class={stacked ? 'is-on' : ''} onClick={() => navigate({ stacked: true }, 'replace')}>By service</button>
          <button type="button" aria-pressed={!stacked} class={stacked ? '' : 'is-on'} onClick={() => navigate({ stacked: false }, 'replace')}>Total</button>
        </div>
      </div>
      <div class="plot" ref={host} data-testid="timeline" onMouseLeave={() => (cursorIndex.value = null)} />
    </section>
  );
}

// What is under the cursor, in the panel's head: a legend that takes no room.
function Readout({ stack }: { stack: Stack | null }) {
  const i = cursorIndex.value;
  if (!stack || i === null || i >= stack.times.length) {
    return <span class="panel-note">drag to choose a range, double click to go back</span>;
  }
  const show = answers.value?.series.unit === 'count' ? formatCount : formatCores;
  const total = sumLayers(stack)[i];
  const top = stack.layers
    .map((layer) => ({ name: layer.name, value: layer.values[i] ?? 0 }))
    .sort((a, b) => b.value - a.value)
    .slice(0, 4)
    .filter(({ value }) => value > 0);
  return (
    <span class="panel-note readout">
      <b>{formatTime(stack.times[i] * 1000, Date.now())}</b>
      <b>{total === null ? 'nothing received' : show(total)}</b>
      {view.value.stacked && top.map(({ name, value }) => (
        <span key={name}><i class="swatch" style={{ background: name ? colorOfService(name) : colorOfRest() }} />{name || 'the rest'} {show(value)}</span>
      ))}
    </span>
  );
}
