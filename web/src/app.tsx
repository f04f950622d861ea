// SPDX-License-Identifier: Apache-2.0
// The page: header, services, time line, profile or connections, footer.
import { useEffect } from 'preact/hooks';
import { selected } from './flame/flame_graph';
import { ConnectionsPanel } from './panels/connections';
import { Footer } from './panels/footer';
import { GraphPanel } from './panels/graph_panel';
import { Chips, Header } from './panels/header';
import { Help, helpOpen } from './panels/help';
import { ModulesDialog } from './panels/modules';
import { Services } from './panels/services';
import { Timeline } from './panels/timeline';
import { UnnamedDialog } from './panels/unnamed';
import { answers, failure, loading, refresh, view, zoomTo } from './state';

function ErrorBanner() {
  const error = failure.value;
  if (!error || error.status === 400) return null; // a refused query is shown at the query
  return (
    <div class="banner" role="alert" data-testid="error">
      <span>{error.message}{answers.value ? '. What you see is the last answer.' : '.'}</span>
      <button type="button" class="button-small" onClick={refresh} disabled={loading.value}>Retry</button>
    </div>
  );
}

function onPageKey(event: KeyboardEvent): void {
  const typing = event.target instanceof HTMLInputElement;
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === '/') {
    document.getElementById('search')?.focus();
    event.preventDefault();
  } else if (event.key === '?') {
    helpOpen.value = true;
  } else if (event.key === 'Escape' && view.value.page === 'profile') {
    selected.value = -1;
    zoomTo(0);
  }
}

export function App() {
  useEffect(() => {
    addEventListener('keydown', onPageKey);
    return () => removeEventListener('keydown', onPageKey);
  }, []);
  return (
    <div class="app">
      <Header />
      <Chips />
      <ErrorBanner />
      <main class="main">
        <Services />
        <div class="right">
          <Timeline />
          {view.value.page === 'connections' ? <ConnectionsPanel /> : <GraphPanel />}
        </div>
      </main>
      <Footer />
      <Help />
      <UnnamedDialog />
      <ModulesDialog />
    </div>
  );
}
