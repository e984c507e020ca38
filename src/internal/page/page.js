'use strict';
// The page is complete without this. The script fetches it again, and keeps the counts of the last
// minutes: the process keeps none.
const every = 2000, kept = 5 * 60 * 1000, samples = [];

function sample() {
  const now = { at: Date.now() };
  for (const cell of document.querySelectorAll('[data-count]')) {
    now[cell.dataset.count] = Number(cell.dataset.value);
  }
  samples.push(now);
  while (samples[0].at < now.at - kept) samples.shift();
}

// The counts between samples, per second; a gauge as it is.
function series(cell) {
  const name = cell.dataset.of, last = samples[samples.length - 1];
  if (cell.dataset.kind === 'gauge') return samples.map(one => [one.at - last.at, one[name] || 0]);
  return samples.slice(1).map((one, n) =>
    [one.at - last.at, (one[name] - samples[n][name]) * 1000 / Math.max(1, one.at - samples[n].at)]);
}

function draw() {
  for (const cell of document.querySelectorAll('[data-of]')) {
    const points = series(cell), most = Math.max(1, ...points.map(point => point[1]));
    const path = points.map(([at, value]) =>
      `${(300 + at * 300 / kept).toFixed(1)},${(20 - value * 18 / most).toFixed(1)}`);
    cell.querySelector('path').setAttribute('d', path.length > 1 ? 'M' + path.join('L') : '');
  }
  const last = samples[samples.length - 1];
  const first = samples.find(one => one.at >= last.at - 60500);
  for (const cell of document.querySelectorAll('[data-last]')) {
    cell.textContent = (last[cell.dataset.last] - first[cell.dataset.last]).toLocaleString('en');
  }
}

async function update() {
  try {
    const response = await fetch('/', { cache: 'no-store', signal: AbortSignal.timeout(5000) });
    const page = new DOMParser().parseFromString(await response.text(), 'text/html');
    if (String(getSelection()) === '') {
      document.querySelector('main').replaceWith(document.adoptNode(page.querySelector('main')));
      document.title = page.title;
    }
    document.body.classList.remove('lost');
    sample();
    draw();
  } catch {
    document.body.classList.add('lost');
  }
  setTimeout(update, every);
}

document.body.classList.add('lives');
sample();
draw();
setTimeout(update, every);
