// SPDX-License-Identifier: Apache-2.0
import { render } from 'preact';
import './styles.css';
import { App } from './app';
import { startLoading } from './state';

startLoading();
render(<App />, document.getElementById('app')!);
