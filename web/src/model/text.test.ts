// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from 'vitest';
import {
  formatAgo, formatBytes, formatCores, formatCount, formatNanoseconds, formatPercent, shortenName,
} from './format';
import { applySuggestion, formatSelector, parseSelector, spotAt, withEqual } from './selector';

describe('formatters', () => {
  test('durations keep three digits', () => {
    expect([0, 1, 999, 1500, 12_345_678, 999_600_000, 1e9, 59.94e9, 119e9, 7200e9, 2e14].map(formatNanoseconds)).toEqual([
      '0 s', '1.00 ns', '999 ns', '1.50 µs', '12.3 ms', '1.00 s', '1.00 s', '59.9 s', '119 s', '2.00 h', '2.31 d',
    ]);
  });
  test('counts, bytes, cores, ages', () => {
    expect([0, 999, 9999, 12_345, 3_400_000].map(formatCount)).toEqual(['0', '999', '9,999', '12.3 k', '3.40 M']);
    expect([512, 1536, 5 << 20].map(formatBytes)).toEqual(['512 B', '1.50 KiB', '5.00 MiB']);
    expect([0, 0.0001, 0.042, 0.5, 12.34, 320].map(formatCores)).toEqual(['0', '<0.001', '0.042', '0.50', '12.3', '320']);
    expect([4000, 120_000, 7.3e6, 5 * 864e5].map(formatAgo)).toEqual(['4 s', '2 min', '2 h', '5 d']);
  });
  test('a percentage never rounds up to all or down to nothing', () => {
    expect(formatPercent(1, 1)).toBe('100%');
    expect(formatPercent(9999, 10_000)).toBe('99.9%');
    expect(formatPercent(1, 1e9)).toBe('<0.01%');
    expect(formatPercent(0, 5)).toBe('0%');
    expect(formatPercent(1, 3)).toBe('33.3%');
    expect(formatPercent(5, 0)).toBe('–');
  });
});

describe('shortenName', () => {
  test.each([
    ['main', 'main'],
    ['ns::Map<int, std::vector<T>>::at(int const&) const', 'ns::Map<…>::at'],
    ['(anonymous namespace)::run(int)', '(anon)::run'],
    ['Foo::operator()(int) const', 'Foo::operator()'],
    ['bool operator< <int>(A<int> const&, B)', 'bool operator< <…>'],
    ['std::operator<<(std::ostream&, char)', 'std::operator<<'],
    ['<alloc::vec::Vec<u8> as core::ops::Drop>::drop', '<alloc::vec::Vec<…> as core::ops::Drop>::drop'],
    ['void f<&A::operator->>(A*)', 'void f<…>'],
    ['run::{lambda(int)#1}::operator()(int) const', 'run::{lambda(int)#1}::operator()'],
    ['do_syscall_64', 'do_syscall_64'],
    ['libc.so.6+0x2a4f', 'libc.so.6+0x2a4f'],
    ['(other)', '(other)'],
  ])('%s', (name, short) => expect(shortenName(name)).toBe(short));
});

describe('parseSelector', () => {
  test('reads every operator and escape', () => {
    expect(parseSelector('{service="x", node!="y",exe=~"a.*" , comm!~"q\\"\\\\\\n"}')).toEqual({
      ok: true,
      matchers: [
        { name: 'service', op: '=', value: 'x' },
        { name: 'node', op: '!=', value: 'y' },
        { name: 'exe', op: '=~', value: 'a.*' },
        { name: 'comm', op: '!~', value: 'q"\\\n' },
      ],
    });
  });
  test('nothing and {} mean everything', () => {
    for (const text of ['', '  ', '{}', ' { } ']) expect(parseSelector(text)).toEqual({ ok: true, matchers: [] });
  });
  test.each([
    ['service="x"', 1], ['{service}', 9], ['{service=x}', 10], ['{service="x"', 13], ['{service="x}', 10],
    ['{a="b" c="d"}', 8], ['{a="b"} rest', 9], ['{="x"}', 2],
  ])('%s fails at column %i', (text, column) => {
    expect(parseSelector(text)).toMatchObject({ ok: false, column });
  });
  test('what is written is read back', () => {
    const matchers = [{ name: 'a', op: '=' as const, value: 'q"\\\n{},=' }, { name: 'b', op: '!~' as const, value: '' }];
    expect(parseSelector(formatSelector(matchers))).toEqual({ ok: true, matchers });
  });
  test('a click on a service replaces the old one and keeps the rest', () => {
    const parsed = parseSelector('{service="x",node="n"}');
    expect(parsed.ok && formatSelector(withEqual(parsed.matchers, 'service', 'y'))).toBe('{node="n", service="y"}');
  });
});

describe('suggestions', () => {
  const take = (text: string, choice: string) => {
    const caret = text.indexOf('|');
    const clean = text.replace('|', '');
    const done = applySuggestion(clean, spotAt(clean, caret), choice);
    return done.text.slice(0, done.caret) + '|' + done.text.slice(done.caret);
  };
  test.each([
    ['|', 'service', '{service=|'],
    ['ser|', 'service', '{service=|'],
    ['{ser|', 'service', '{service=|'],
    ['{service=|', 'api', '{service="api"|}'],
    ['{service="a|', 'api', '{service="api"|}'],
    ['{service="a|bc"}', 'api', '{service="api"|}'],
    ['{service="x", no|', 'node', '{service="x", node=|'],
    ['{service="x", node=~"n|"}', 'n1', '{service="x", node=~"n1"|}'],
    ['{ser|="x"}', 'node', '{node=|"x"}'],
  ])('%s + %s', (text, choice, expected) => expect(take(text, choice)).toBe(expected));
  test('after a whole selector there is nothing to suggest', () => {
    expect(spotAt('{a="b"}', 7).kind).toBe('none');
    expect(spotAt('{a="b"', 6).kind).toBe('none');
  });
});
