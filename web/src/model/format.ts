// SPDX-License-Identifier: Apache-2.0
// Numbers as people read them. Three significant digits everywhere: more would claim a precision
// that samples do not have.

export type Unit = 'nanoseconds' | 'count';

function digits(value: number): string {
  const size = Math.abs(value);
  if (size >= 99.95 || value === 0) return value.toFixed(0);
  if (size >= 9.995) return value.toFixed(1);
  return value.toFixed(2);
}

function scaled(value: number, steps: [number, string][]): string {
  for (const [scale, suffix] of steps) {
    if (Math.abs(value) >= scale * 0.9995) return digits(value / scale) + suffix;
  }
  const [scale, suffix] = steps[steps.length - 1];
  return digits(value / scale) + suffix;
}

export function formatNanoseconds(ns: number): string {
  if (ns === 0) return '0 s';
  const seconds = ns / 1e9;
  if (Math.abs(seconds) >= 120) {
    return scaled(seconds, [[86400, ' d'], [3600, ' h'], [60, ' min']]);
  }
  return scaled(ns, [[1e9, ' s'], [1e6, ' ms'], [1e3, ' µs'], [1, ' ns']]);
}

export function formatCount(count: number): string {
  if (Number.isInteger(count) && Math.abs(count) < 10_000) return count.toLocaleString('en-US');
  return scaled(count, [[1e12, ' T'], [1e9, ' G'], [1e6, ' M'], [1e3, ' k'], [1, '']]);
}

export function formatValue(value: number, unit: Unit): string {
  return unit === 'nanoseconds' ? formatNanoseconds(value) : formatCount(value);
}

export function formatPercent(part: number, whole: number): string {
  if (!(whole > 0)) return '–';
  const percent = (100 * part) / whole;
  if (percent === 0) return '0%';
  if (percent < 0.01) return '<0.01%';
  if (percent >= 99.95) return percent >= 99.9995 ? '100%' : '99.9%'; // 100 only when nothing is missing
  return (percent >= 9.995 ? percent.toFixed(1) : percent.toFixed(2)) + '%';
}

export function formatCores(cores: number): string {
  if (cores === 0) return '0';
  if (cores < 0.0005) return '<0.001';
  return cores >= 99.95 ? cores.toFixed(0) : cores >= 9.995 ? cores.toFixed(1) : cores < 0.0995 ? cores.toFixed(3) : cores.toFixed(2);
}

export function formatBytes(bytes: number): string {
  return scaled(bytes, [[1 << 30, ' GiB'], [1 << 20, ' MiB'], [1 << 10, ' KiB'], [1, ' B']]);
}

export function formatAgo(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 90) return `${seconds} s`;
  if (seconds < 90 * 60) return `${Math.round(seconds / 60)} min`;
  if (seconds < 36 * 3600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

// Local wall clock, "14:03:20", with the date when it is not today's.
export function formatTime(ms: number, nowMs: number): string {
  const time = new Date(ms);
  const text = time.toLocaleTimeString('en-GB');
  if (new Date(nowMs).toDateString() === time.toDateString()) return text;
  return `${localDate(time)} ${text}`;
}

function localDate(time: Date): string {
  const two = (value: number) => String(value).padStart(2, '0');
  return `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())}`;
}

// What <input type="datetime-local" step="1"> speaks.
export function toLocalInput(ms: number): string {
  const time = new Date(ms);
  return `${localDate(time)}T${time.toLocaleTimeString('en-GB')}`;
}

// A C++ or Rust name for a narrow box: template arguments and parameters are folded,
// "ns::Map<int, T>::at(int const&) const" is "ns::Map<…>::at". The full name stays in the tooltip,
// the details line and the table's title.
export function shortenName(name: string): string {
  if (!/[<(]/.test(name)) return name;
  // Brackets that do not pair are taken out first and put back at the end.
  const kept: string[] = [];
  const text = name.replace(
    /\(anonymous namespace\)|operator(\(\)|<=>|<<=?|>>=?|<=?|>=?|->\*?)|->|\{[^{}]*\}/g,
    (token) => {
      kept.push(token === '(anonymous namespace)' ? '(anon)' : token);
      return '\u0001';
    },
  );
  // Rust's "<T as Trait>::method" begins with the bracket that says what it is about.
  const lead = text.startsWith('<') ? 1 : 0;
  let out = '';
  let angle = 0;
  let round = 0;
  for (const c of text) {
    if (c === '\u0001') {
      const token = kept.shift()!;
      if (angle <= lead && round === 0) out += token;
    } else if (c === '(' && angle <= lead) {
      ++round;
    } else if (c === ')' && angle <= lead) {
      round = Math.max(0, round - 1);
    } else if (round > 0) {
      continue;
    } else if (c === '<') {
      if (++angle === lead + 1) out += '<…>';
      else if (angle <= lead) out += c;
    } else if (c === '>') {
      if (angle-- <= lead) out += c;
      angle = Math.max(0, angle);
    } else if (angle <= lead) {
      out += c;
    }
  }
  out = out.replace(/ const$| \[clone.*$/, '').trim();
  return out === '' ? name : out;
}
