// SPDX-License-Identifier: Apache-2.0
// Why there are no connections to see, from the most to the least fundamental cause.
import type { NodeModule } from '../api';
import { kDefaults } from '../model/view_state';
import { navigate, setRange, status, view } from '../state';
import { CopyLine } from './copy_line';
import { explainRange, isFiltered, isUntouched, NoAgent } from './empty_state';

export function ConnectionsEmpty({ unsupported }: { unsupported: boolean }) {
  return <div class="empty" data-testid="empty">{explain(unsupported)}</div>;
}

function explain(unsupported: boolean) {
  if (unsupported) return <OldServer />;
  if (isUntouched()) return <NoAgent />;
  const nodes = status.value?.nodes ?? [];
  const modules = nodes.flatMap((node) => (node.modules ?? []).filter(({ name }) => name === 'network').map((module) => ({ node: node.node, ...module })));
  // After a restart the server knows no nodes, and nothing about their modules.
  if (nodes.length > 0 && modules.length === 0) return <ModuleMissing nodes={nodes.length} />;
  if (modules.length > 0 && modules.every(({ state }) => state === 'off')) return <ModuleOff modules={modules} />;
  if (isFiltered()) return <NothingMatched />;
  return explainRange() ?? <Nothing lacking={modules.filter(({ state }) => state !== 'active')} watching={modules.length} nodes={nodes.length} />;
}

function OldServer() {
  return (
    <>
      <h3>This server keeps no connections</h3>
      <p>It is {status.value ? `version ${status.value.version}, ` : ''}from before connections were stored. On the machine itself, the agent shows what it sees:</p>
      <CopyLine text="firewatch connections" />
      <button type="button" class="button-main" onClick={() => navigate({ page: 'profile' })}>Back to the profile</button>
    </>
  );
}

function ModuleMissing({ nodes }: { nodes: number }) {
  return (
    <>
      <h3>No agent watches connections</h3>
      <p>{nodes === 1 ? 'The agent runs' : `All ${nodes} agents run`} without the module <code>network</code>. Switch it on:</p>
      <CopyLine text="firewatch-agent --modules cpu,network" />
      <p>or by <code>modules: [cpu, network]</code> in the agent’s configuration, which is read again on SIGHUP.</p>
    </>
  );
}

function ModuleOff({ modules }: { modules: (NodeModule & { node: string })[] }) {
  return (
    <>
      <h3>The module <code>network</code> is off</h3>
      <Reasons modules={modules} />
      <p>On the machine, <code>firewatch doctor --modules</code> says more.</p>
    </>
  );
}

const kMaxReasons = 5;
function Reasons({ modules }: { modules: (NodeModule & { node: string })[] }) {
  return (
    <ul class="reasons">
      {modules.slice(0, kMaxReasons).map(({ node, state, why }) => <li key={node}><b>{node}</b> {state}{why && `: ${why}`}</li>)}
      {modules.length > kMaxReasons && <li>and {modules.length - kMaxReasons} more</li>}
    </ul>
  );
}

function NothingMatched() {
  return (
    <>
      <h3>No connection matches this query</h3>
      <p><code>{view.value.query}</code></p>
      <p>The process may have none in this range; a typed name may be misspelled.</p>
      <button type="button" class="button-main" onClick={() => navigate({ query: '' })}>Clear the query</button>
    </>
  );
}

function Nothing({ lacking, watching, nodes }: { lacking: (NodeModule & { node: string })[]; watching: number; nodes: number }) {
  return (
    <>
      <h3>No TCP connections in this range</h3>
      <p>No process opened, used or closed one{watching < nodes ? ` on the ${watching} of ${nodes} nodes whose agents watch connections` : ''}. Agents report every 10 seconds.</p>
      {lacking.length > 0 && <Reasons modules={lacking} />}
      <button type="button" class="button-main" onClick={() => setRange(kDefaults.from, kDefaults.to)}>Show the last 15 minutes</button>
    </>
  );
}
