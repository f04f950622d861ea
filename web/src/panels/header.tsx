// SPDX-License-Identifier: Apache-2.0
// The header: view, query, time range, sample type, live, theme; below it the filters as chips, each of
// which is a way back.
import { useSignal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import { formatTime, toLocalInput } from '../model/format';
import { formatMatcher, formatSelector, parseSelector } from '../model/selector';
import { isRelative, kDefaults, type Page, timeToMs } from '../model/view_state';
import { clockSkew, linkProblems, live, loading, navigate, onlyName, refresh, setRange, view } from '../state';
import { cycleTheme, themeChoice } from '../theme';
import { helpOpen } from './help';
import { QueryBar } from './query_bar';

const kPresets = ['5m', '15m', '1h', '6h', '24h'];

export function Header() {
  return (
    <header class="header">
      <a class="brand" href="./" title="Firewatch: the whole machine, last 15 minutes" onClick={(event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey) return;
        event.preventDefault();
        navigate(kDefaults);
      }}>
        <Flame />
        <h1>Firewatch</h1>
      </a>
      <PagePicker />
      <QueryBar />
      <RangePicker />
      <TypePicker />
      <LiveButton />
      <ThemeButton />
      <button type="button" class="tool tool-icon" onClick={() => (helpOpen.value = true)} aria-label="Keys and help" title="Keys and help (?)">?</button>
      <div class={`progress ${loading.value ? 'is-on' : ''}`} aria-hidden="true" />
    </header>
  );
}

function Flame() {
  return (
    <svg class="brand-mark" viewBox="0 0 32 32" aria-hidden="true">
      <rect x="2" y="5" width="28" height="6" rx="1.5" class="mark-1" />
      <rect x="5" y="13" width="19" height="6" rx="1.5" class="mark-2" />
      <rect x="9" y="21" width="9" height="6" rx="1.5" class="mark-3" />
    </svg>
  );
}

const kPages: [Page, string, string][] = [
  ['profile', 'Profile', 'Where CPU time goes'],
  ['connections', 'Connections', 'Who talks to whom over TCP'],
];

function PagePicker() {
  const { page } = view.value;
  return (
    <nav class="segments" aria-label="View" data-testid="pages">
      {kPages.map(([value, label, title]) => (
        <button type="button" key={value} aria-current={page === value ? 'page' : undefined} class={page === value ? 'is-on' : ''}
          title={title} onClick={() => navigate({ page: value })}>{label}</button>
      ))}
    </nav>
  );
}

function RangePicker() {
  const open = useSignal(false);
  const element = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const close = (event: Event) => {
      if (!element.current?.contains(event.target as Node)) open.value = false;
    };
    addEventListener('pointerdown', close);
    return () => removeEventListener('pointerdown', close);
  }, []);
  const { from, to } = view.value;
  return (
    <div class="range" ref={element} onKeyDown={(event) => {
      if (event.key !== 'Escape' || !open.value) return;
      open.value = false;
      event.stopPropagation();
    }}>
      <div class="segments" role="group" aria-label="Time range">
        {kPresets.map((preset) => {
          const on = from === `now-${preset}` && to === 'now';
          return (
            <button type="button" key={preset} aria-pressed={on} class={on ? 'is-on' : ''}
              title={`The last ${preset}`} onClick={() => setRange(`now-${preset}`, 'now')}>{preset}</button>
          );
        })}
        <button type="button" class={isRelative(view.value) && kPresets.some((p) => from === `now-${p}`) ? '' : 'is-on'}
          aria-expanded={open.value} aria-haspopup="dialog" onClick={() => (open.value = !open.value)}>Custom</button>
      </div>
      {open.value && <RangeForm onDone={() => (open.value = false)} />}
    </div>
  );
}

function RangeForm({ onDone }: { onDone: () => void }) {
  const now = Date.now() + clockSkew();
  const from = useSignal(toLocalInput(timeToMs(view.peek().from, now)));
  const to = useSignal(toLocalInput(timeToMs(view.peek().to, now)));
  const problem = useSignal('');
  const apply = (event: Event) => {
    event.preventDefault();
    const [begin, end] = [Date.parse(from.value), Date.parse(to.value)];
    if (Number.isNaN(begin) || Number.isNaN(end)) problem.value = 'Both times are needed.';
    else if (begin >= end) problem.value = 'The begin must be before the end.';
    else {
      setRange(String(begin), String(end));
      onDone();
    }
  };
  return (
    <div class="popover" role="dialog" aria-label="Absolute time range"><form onSubmit={apply}>
      <label>From <input type="datetime-local" step="1" value={from.value} onInput={(e) => (from.value = e.currentTarget.value)} /></label>
      <label>To <input type="datetime-local" step="1" value={to.value} onInput={(e) => (to.value = e.currentTarget.value)} /></label>
      <p class="problem" role="alert">{problem.value}</p>
      <button type="submit" class="button-main">Apply</button>
    </form></div>
  );
}

function TypePicker() {
  const type = view.value.type;
  return (
    <div class="segments" role="group" aria-label="What is counted">
      <button type="button" aria-pressed={type === 'cpu'} class={type === 'cpu' ? 'is-on' : ''}
        title="CPU time" onClick={() => navigate({ type: 'cpu' })}>CPU</button>
      <button type="button" aria-pressed={type === 'samples'} class={type === 'samples' ? 'is-on' : ''}
        title="Number of samples" onClick={() => navigate({ type: 'samples' })}>Samples</button>
    </div>
  );
}

function LiveButton() {
  const relative = isRelative(view.value);
  if (!relative) {
    return <button type="button" class="tool" onClick={() => setRange(kDefaults.from, kDefaults.to)} title="Back to the last 15 minutes">Go live</button>;
  }
  return (
    <button type="button" class={`tool ${live.value ? 'is-live' : ''}`} aria-pressed={live.value} data-testid="live"
      title={live.value ? 'Refreshes every 10 s; click to pause' : 'Paused; click to refresh every 10 s'}
      onClick={() => {
        navigate({ live: !view.value.live }, 'replace');
        if (view.value.live) refresh();
      }}>
      <span class="dot" aria-hidden="true" />{live.value ? 'Live' : 'Paused'}
    </button>
  );
}

function ThemeButton() {
  const choice = themeChoice.value;
  const icon = { auto: '◐', light: '☀', dark: '☾' }[choice];
  return (
    <button type="button" class="tool tool-icon" onClick={cycleTheme} aria-label={`Theme: ${choice}`} title={`Theme: ${choice}`}>{icon}</button>
  );
}

// Everything that narrows the view, each with an ×.
export function Chips() {
  const { query, from, to, only } = view.value;
  const parsed = parseSelector(query);
  const matchers = parsed.ok ? parsed.matchers : [];
  const chips: { key: string; text: string; clear: () => void }[] = matchers.map((matcher, i) => ({
    key: `m${i}`,
    text: formatMatcher(matcher),
    clear: () => navigate({ query: formatSelector(matchers.filter((other) => other !== matcher)) }),
  }));
  if (!isRelative(view.value)) {
    const now = Date.now() + clockSkew();
    chips.push({
      key: 'range',
      text: `${formatTime(timeToMs(from, now), now)} – ${formatTime(timeToMs(to, now), now)}`,
      clear: () => setRange(kDefaults.from, kDefaults.to),
    });
  }
  if (only !== '') {
    chips.push({ key: 'only', text: `only through ${onlyName.value ?? 'a function that is not in this range'}`, clear: () => navigate({ only: '', focus: '' }) });
  }
  const ignored = linkProblems.value;
  if (chips.length === 0 && ignored.length === 0) return null;
  return (
    <div class="chips" data-testid="chips">
      {chips.map((chip) => (
        <span class="chip" key={chip.key}>
          <span class="chip-text" title={chip.text}>{chip.text}</span>
          <button type="button" onClick={chip.clear} aria-label={`Remove ${chip.text}`}>×</button>
        </span>
      ))}
      {chips.length > 0 && (
        <button type="button" class="link" onClick={() => navigate({ query: '', from: kDefaults.from, to: kDefaults.to, only: '', focus: '' })}>
          Clear all
        </button>
      )}
      {ignored.length > 0 && (
        <span class="problem" role="alert">Not understood in this link: {ignored.join(', ')}</span>
      )}
    </div>
  );
}
