// SPDX-License-Identifier: Apache-2.0
// Who uses the CPU: services by share. A click filters; a second click takes the filter away.
import { formatCores, formatCount, formatPercent } from '../model/format';
import { formatSelector, parseSelector, withEqual } from '../model/selector';
import { answers, navigate, view } from '../state';
import { colorOfService } from './series_colors';

export function Services() {
  const current = answers.value;
  if (!current) return <section class="panel services" aria-label="Services"><PanelHead /></section>;
  const { ranking, rankingSamples } = current;
  const samples = new Map(rankingSamples.groups.map((group) => [group.labels.service ?? '', group.total]));
  const seconds = Math.max(1, ranking.to_ms - ranking.from_ms) * 1e6; // in nanoseconds
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
      <PanelHead count={ranking.groups.length} cores={ranking.total / seconds} />
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
                <span class="rank-cores">{formatCores(group.total / seconds)} cores</span>
                <span class="rank-samples">{formatCount(samples.get(service) ?? 0)} samples</span>
              </button>
            </li>
          );
        })}
      </ul>
    </section>
  );
}

function PanelHead({ count, cores }: { count?: number; cores?: number }) {
  return (
    <div class="panel-head">
      <h2>Services</h2>
      {count !== undefined && <span class="panel-note">{count} · {formatCores(cores!)} cores in use</span>}
    </div>
  );
}
