// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from 'vitest';
import type { Series } from '../api';
import { stackSeries, sumLayers } from './stack';

const kSecond = 1e9;
const series = (groups: [string, [number, number][]][], unit: Series['unit'] = 'nanoseconds'): Series => ({
  step_ms: 10_000, unit, from_ms: 5_000, to_ms: 45_000, total: 0,
  groups: groups.map(([service, points]) => ({ labels: { service }, total: 0, points })),
});

describe('stackSeries', () => {
  test('CPU time per step becomes cores, and layers add up', () => {
    const stack = stackSeries(series([['a', [[0, 10 * kSecond], [20_000, 5 * kSecond]]], ['b', [[20_000, 20 * kSecond]]]]), () => true);
    expect(stack.times).toEqual([0, 10, 20, 30, 40]);
    expect(stack.layers.map(({ name }) => name)).toEqual(['a', 'b']);
    expect(stack.layers[0].tops).toEqual([1, null, 0.5, null, null]);
    expect(stack.layers[1].tops).toEqual([1, null, 2.5, null, null]);
    expect(stack.layers[1].values).toEqual([0, null, 2, null, null]);
    expect(sumLayers(stack)).toEqual([1, null, 2.5, null, null]);
  });

  test('small services share one layer, drawn last', () => {
    const stack = stackSeries(series([['a', [[0, 1 * kSecond]]], ['x', [[0, 2 * kSecond]]], ['y', [[0, 3 * kSecond]]]]), (s) => s === 'a');
    expect(stack.layers.map(({ name, values }) => [name, values[0]])).toEqual([['a', 0.1], ['', 0.5]]);
  });

  test('samples become samples per second; points outside the range are left out', () => {
    const stack = stackSeries(series([['a', [[-10_000, 99], [10_000, 190], [90_000, 99]]]], 'count'), () => true);
    expect(stack.layers[0].values).toEqual([null, 19, null, null, null]);
  });

  test('nothing at all is one gap, not an error', () => {
    expect(sumLayers(stackSeries(series([]), () => true))).toEqual([null, null, null, null, null]);
  });
});
