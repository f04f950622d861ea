// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from 'vitest';
import { Random } from './testing';
import {
  decodeView, encodeView, isRelative, kDefaults, kMaxLinkBytes, linkProblem, stepFor, timeToMs, type ViewState,
} from './view_state';

function randomView(random: Random): ViewState {
  const pick = <T>(...values: T[]): T => values[random.below(values.length)];
  const hash = () => Array.from({ length: 16 }, () => '0123456789abcdef'[random.below(16)]).join('');
  const text = (length: number) =>
    Array.from({ length: random.below(length) }, () => pick('a', '"', '&', '=', '+', ' ', '%', 'ü', '火', '/', '#', '?', '\\', '{', '}')).join('');
  return {
    page: pick('profile', 'connections'),
    query: pick('', `{service="${text(40)}"}`, text(60)),
    from: pick('now-15m', 'now-6h', String(random.below(2e9) * 1000)),
    to: pick('now', String(random.below(2e9) * 1000)),
    type: pick('cpu', 'samples'),
    focus: pick('', hash()),
    only: pick('', hash()),
    mark: pick('', hash()),
    search: text(80),
    sort: pick('-self', 'self', '-total', 'total', 'name', '-name'),
    layout: pick('both', 'graph', 'table'),
    find: text(80),
    order: pick('-retransmits', 'process', '-sent', 'living', '-rtt'),
    stacked: pick(true, false),
    live: pick(true, false),
    maxNodes: pick(100_000, 1, 1_000_000),
  };
}

describe('view state in the URL', () => {
  test('the plain page has a plain URL', () => {
    expect(encodeView(kDefaults)).toBe('');
    expect(decodeView('')).toEqual({ view: kDefaults, problems: [] });
  });

  test('every view comes back from its link', () => {
    const random = new Random(31);
    for (let round = 0; round < 3000; ++round) {
      const view = randomView(random);
      const link = encodeView(view);
      expect(decodeView(link)).toEqual({ view, problems: [] });
      expect(encodeView(decodeView(link).view)).toBe(link);
    }
  });

  test('a selector stays readable', () => {
    expect(encodeView({ ...kDefaults, query: '{service="a",exe=~"b.*"}' }))
      .toBe('?query={service=%22a%22,exe=~%22b.*%22}');
  });

  test('any view that is let through has a link under 2 KB', () => {
    const random = new Random(32);
    for (let round = 0; round < 500; ++round) {
      const view = { ...randomView(random), query: '火'.repeat(random.below(400)) };
      if (linkProblem(view) === null) expect(encodeView(view).length).toBeLessThan(kMaxLinkBytes);
      else expect(encodeView(view).length).toBeGreaterThan(kMaxLinkBytes - 200);
    }
    expect(linkProblem({ ...kDefaults, query: 'x'.repeat(5000) })).toMatch(/too long for a link/);
  });

  test('what is not understood is named, not dropped silently', () => {
    const { view, problems } = decodeView('?type=alloc&focus=main&service=x&from=yesterday');
    expect(view).toEqual(kDefaults);
    expect(problems).toEqual(['from=yesterday', 'type=alloc', 'focus=main', 'service=x']);
  });

  test('RFC 3339 times become milliseconds', () => {
    const { view } = decodeView('?from=2026-01-02T03:04:05Z&to=2026-01-02T04:00:00%2B01:00');
    expect(view.from).toBe(String(Date.UTC(2026, 0, 2, 3, 4, 5)));
    expect(view.to).toBe(String(Date.UTC(2026, 0, 2, 3)));
  });

  test('a lone surrogate does not break the link', () => {
    expect(decodeView(encodeView({ ...kDefaults, search: 'a\ud800b' })).view.search).toBe('a\ufffdb');
  });
});

describe('time', () => {
  test('relative and absolute', () => {
    expect(timeToMs('now-15m', 1_000_000)).toBe(100_000);
    expect(timeToMs('now', 5)).toBe(5);
    expect(timeToMs('1700000000000', 5)).toBe(1_700_000_000_000);
    expect(isRelative({ from: 'now-1h', to: 'now' })).toBe(true);
    expect(isRelative({ from: 'now-1h', to: '5' })).toBe(false);
  });
  test('steps give between 40 and 200 points, and none is below the window', () => {
    for (const minutes of [15, 60, 360, 1440, 10_080, 43_200]) {
      const points = (minutes * 6e4) / stepFor(minutes * 6e4);
      expect(points).toBeLessThanOrEqual(200);
      expect(points).toBeGreaterThanOrEqual(40);
    }
    expect(stepFor(1000)).toBe(10_000);
  });
});
