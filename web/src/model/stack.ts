// SPDX-License-Identifier: Apache-2.0
// From the server's series to what the time line draws: one common time axis, gaps told from zeros,
// and running sums for stacked areas.
import type { Series } from '../api';

export interface Layer {
  name: string; // "" is the rest
  values: (number | null)[]; // per step, in cores or samples per second
  tops: (number | null)[]; // running sum, what is drawn
}
export interface Stack {
  times: number[]; // seconds
  layers: Layer[]; // bottom first
}

// `own` says which services have a layer of their own. A step without any point is a gap (null):
// nothing was received; a service without a point in a step that others have used no CPU.
export function stackSeries(series: Series, own: (service: string) => boolean): Stack {
  const { step_ms: step, from_ms: from, to_ms: to } = series;
  const first = Math.floor(from / step) * step;
  const count = Math.max(1, Math.ceil((to - first) / step));
  const times = Array.from({ length: count }, (_, i) => (first + i * step) / 1000);
  const scale = series.unit === 'nanoseconds' ? 1 / (step * 1e6) : 1000 / step;
  const any = new Uint8Array(count);
  const layers = new Map<string, number[]>();
  const layerOf = (name: string) => {
    if (!layers.has(name)) layers.set(name, new Array<number>(count).fill(0));
    return layers.get(name)!;
  };
  const mine = series.groups.filter((group) => own(group.labels.service ?? ''));
  const rest = series.groups.filter((group) => !own(group.labels.service ?? ''));
  for (const group of [...mine, ...rest]) {
    const values = layerOf(mine.includes(group) ? (group.labels.service ?? '') : '');
    for (const [ms, value] of group.points) {
      const i = Math.floor((ms - first) / step);
      if (i < 0 || i >= count) continue;
      values[i] += value * scale;
      any[i] = 1;
    }
  }
  // The last step is not over yet: what has not been received is not a drop to zero.
  const sums = new Array<number>(count).fill(0);
  return {
    times,
    layers: [...layers].map(([name, values]) => ({
      name,
      values: values.map((value, i) => (any[i] ? value : null)),
      tops: values.map((value, i) => (any[i] ? (sums[i] += value) : null)),
    })),
  };
}

export function sumLayers(stack: Stack): (number | null)[] {
  return stack.layers.at(-1)?.tops ?? stack.times.map(() => null);
}
