// SPDX-License-Identifier: Apache-2.0
// The query: own input with suggestions for label names and values. Text that does not parse is
// never run and never dropped: it stays, with the reason below it.
import { useSignal, useSignalEffect } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import { apiUrl, getJson } from '../api';
import { applySuggestion, parseSelector, spotAt } from '../model/selector';
import { failure, navigate, refusal, view } from '../state';

const kMaxSuggestions = 12;

async function fetchChoices(path: string, signal: AbortSignal): Promise<string[]> {
  const { from, to } = view.peek();
  const answer = await getJson<{ names?: string[]; values?: string[] }>(apiUrl(path, { from, to }), signal);
  return answer.names ?? answer.values ?? [];
}

export function QueryBar() {
  const draft = useSignal(view.value.query);
  const problem = useSignal('');
  const choices = useSignal<string[]>([]);
  const picked = useSignal(-1);
  const open = useSignal(false);
  const caret = useSignal(0);
  const input = useRef<HTMLInputElement>(null);

  // Somebody else changed the query: a click on a service, a chip, "back".
  useSignalEffect(() => {
    draft.value = view.value.query;
    problem.value = '';
  });

  const fetchFor = useRef<AbortController | null>(null);
  const listedFor = useRef('none');
  const suggest = async () => {
    fetchFor.current?.abort();
    const mine = (fetchFor.current = new AbortController());
    const spot = spotAt(draft.value, caret.value);
    // Names are no choices for a value: until the right ones have come there are none, or Enter
    // would put a choice where it does not belong. Typing on at one spot keeps its list.
    const place = spot.kind === 'value' ? `value of ${spot.name}` : spot.kind;
    if (place !== listedFor.current) {
      listedFor.current = place;
      choices.value = [];
      picked.value = -1;
    }
    let list: string[] = [];
    try {
      if (spot.kind === 'name') list = await fetchChoices('labels', mine.signal);
      if (spot.kind === 'value') list = await fetchChoices(`labels/${encodeURIComponent(spot.name)}/values`, mine.signal);
    } catch {
      // No suggestions, then: the input works without.
    }
    if (mine.signal.aborted || spot.kind === 'none') return;
    const prefix = spot.prefix.toLowerCase();
    const fits = list.filter((choice) => choice !== '' && choice.toLowerCase().includes(prefix));
    fits.sort((a, b) => Number(b.toLowerCase().startsWith(prefix)) - Number(a.toLowerCase().startsWith(prefix)));
    const pick = picked.value < 0 ? undefined : choices.value[picked.value];
    choices.value = fits.slice(0, kMaxSuggestions);
    picked.value = pick === undefined ? -1 : choices.value.indexOf(pick);
  };
  useEffect(() => () => fetchFor.current?.abort(), []);

  const commit = () => {
    const parsed = parseSelector(draft.value);
    problem.value = parsed.ok ? '' : parsed.error;
    if (!parsed.ok) return;
    open.value = false;
    navigate({ query: parsed.matchers.length === 0 ? '' : draft.value.trim() });
  };
  const choose = (choice: string) => {
    const done = applySuggestion(draft.value, spotAt(draft.value, caret.value), choice);
    draft.value = done.text;
    caret.value = done.caret;
    requestAnimationFrame(() => {
      input.current?.focus();
      input.current?.setSelectionRange(done.caret, done.caret);
    });
    void suggest();
  };
  const onKey = (event: KeyboardEvent) => {
    const count = choices.value.length;
    const shown = open.value && count > 0;
    if (event.key === 'ArrowDown' && shown) picked.value = (picked.value + 1) % count;
    else if (event.key === 'ArrowUp' && shown) picked.value = (picked.value + count - (picked.value < 0 ? 0 : 1)) % count;
    else if (event.key === 'Tab' && shown && picked.value >= 0) choose(choices.value[picked.value]);
    else if (event.key === 'Enter') {
      if (shown && picked.value >= 0) choose(choices.value[picked.value]);
      else commit();
    } else if (event.key === 'Escape') {
      open.value = false; // the text stays: nothing typed is dropped
      event.stopPropagation();
      return;
    } else return;
    event.preventDefault();
  };
  const moved = () => {
    const at = input.current?.selectionStart ?? 0;
    if (at !== caret.value || choices.value.length === 0) {
      caret.value = at;
      void suggest();
    }
  };

  const serverProblem = failure.value?.status === 400 ? failure.value.message : '';
  const shownProblem = problem.value || refusal.value || (draft.value === view.value.query ? serverProblem : '');
  const listed = open.value && choices.value.length > 0;
  return (
    <div class="query">
      <input
        ref={input}
        class={`query-input ${shownProblem ? 'is-wrong' : ''}`}
        type="text"
        spellcheck={false}
        autocomplete="off"
        placeholder='Whole machine. Filter: {service="nginx", comm=~"worker.*"}'
        aria-label="Query: a label selector"
        role="combobox"
        aria-expanded={listed}
        aria-controls="query-choices"
        aria-autocomplete="list"
        aria-activedescendant={listed && picked.value >= 0 ? `choice-${picked.value}` : undefined}
        aria-invalid={shownProblem !== ''}
        aria-describedby="query-problem"
        value={draft.value}
        onInput={(event) => {
          draft.value = event.currentTarget.value;
          caret.value = event.currentTarget.selectionStart ?? draft.value.length;
          problem.value = '';
          picked.value = -1;
          open.value = true;
          void suggest();
        }}
        onFocus={() => {
          open.value = true;
          moved();
        }}
        onClick={() => {
          open.value = true;
          moved();
        }}
        onKeyUp={(event) => {
          if (event.key === 'ArrowLeft' || event.key === 'ArrowRight') moved();
        }}
        onBlur={() => (open.value = false)}
        onKeyDown={onKey}
        data-testid="query"
      />
      {draft.value.trim() !== view.value.query && (
        <button type="button" class="query-run" onMouseDown={(event) => event.preventDefault()} onClick={commit}>Run ⏎</button>
      )}
      {/* mousedown would take the focus, and the list with it */}
      <ul id="query-choices" role="listbox" aria-label="Suggestions" class="choices" hidden={!listed} onMouseDown={(event) => event.preventDefault()}>
        {choices.value.map((choice, i) => (
          <li role="option" id={`choice-${i}`} key={choice} aria-selected={i === picked.value}
            class={i === picked.value ? 'is-picked' : ''} onClick={() => choose(choice)}>{choice}</li>
        ))}
      </ul>
      <div id="query-problem" class="query-problem" role="alert">{shownProblem}</div>
    </div>
  );
}
