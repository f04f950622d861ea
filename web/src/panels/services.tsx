// SPDX-License-Identifier: Apache-2.0
// Who uses the CPU: services by share. A click filters; a second click takes the filter away.
import { formatCores, formatCount, formatPercent } from '../model/format';
import { formatSelector, parseSelector, withEqual } from '../model/selector';
import { answers, navigate, status, view } from '../state';
import { colorOfService } from './series_colors';

const kWindowMs = 10_000; // of an agent

export function Services() {
  const current = answers.value;
  if (!current) return <section class="panel services" aria-label="Services"><PanelHead /></section>;
  const { ranking, rankingSamples } = current;
  const samples = new Map(rankingSamples.groups.map((group) => [group.labels.service ?? '', group.total]));
  const coveredNs = coveredMs(ranking.from_ms, ranking.to_ms) * 1e6;
  const parsed = parseSelector(view.value.query);
  const matchers = parsed.ok ? parsed.matchers : [];
  const chosen = matchers.find(({ name, op }) => name === 'service' && op === '=')?.value;
  const largest = ranking.groups[0]?.total ?? 1;
  const toggle = (service: string) => {
    const next = service === chosen ? matchers.filter(({ name }) => name !== 'service') : withEqual(matchers, 'service', service);
    navigate({ query: formatSelector(next), focus: '' });
  };
  return (
    <section class="panel services" aria-label="Services">
      <PanelHead count={ranking.groups.length} cores={ranking.total / coveredNs} />
      <ul class="ranking" data-testid="ranking">
        {ranking.groups.map((group) => {
          const service = group.labels.service ?? '';
          const on = service === chosen;
          return (
            <li key={service}>
              <button type="button" class={`rank ${on ? 'is-on' : ''} ${chosen !== undefined && !on ? 'is-off' : ''}`}
                aria-pressed={on} onClick={() => toggle(service)}
                title={on ? 'Click to show all services' : `Show only ${service}`}>
                <span class="rank-name"><i class="swatch" style={{ background: colorOfService(service) }} />{service || '(no service)'}</span>
                <span class="rank-share">{formatPercent(group.total, ranking.total)}</span>
                <span class="rank-bar" aria-hidden="true"><i style={{ width: `${(100 * group.total) / largest}%`, background: colorOfService(service) }} /></span>
                <span class="rank-cores">{formatCores(group.total / coveredNs)} cores</span>
                <span class="rank-samples">{formatCount(samples.get(service) ?? 0)} samples</span>
              </button>
            </li>
          );
        })}
      </ul>
    </section>
  );
}

// The part of the range that is stored: a server that has run for a minute has no average of 15.
function coveredMs(from: number, to: number): number {
  const store = status.value?.store;
  if (!store || store.newest_ms === 0) return Math.max(1, to - from);
  return Math.max(kWindowMs, Math.min(to, store.newest_ms) - Math.max(from, store.oldest_ms));
}

function PanelHead({ count, cores }: { count?: number; cores?: number }) {
  return (
    <div class="panel-head">
      <h2>Services</h2>
      {count !== undefined && <span class="panel-note">{count} · {formatCores(cores!)} cores in use</span>}
    </div>
  );
}
