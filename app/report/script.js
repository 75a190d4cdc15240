// Search, filters and order of the cards. All of the state stands in the address behind "#", so
// that a view can be kept and passed on.
(() => {
  'use strict';
  const kStep = 120;  // cards that are added as one scrolls
  const kBins = 20;
  const byId = (id) => document.getElementById(id);
  const cards = byId('cards');
  const form = byId('bar');
  const [query, sort, min, max] = ['q', 'sort', 'min', 'max'].map(byId);
  const chips = [...document.querySelectorAll('.chip')];
  const textOf = (element, selector) => element.querySelector(selector).textContent;
  // Without marks, so that "cafe" finds "Café".
  const plain = (text) => text.normalize('NFKD').replace(/\p{M}/gu, '').toLowerCase();

  const pictures = [...cards.children].map((element, index) => {
    const caption = textOf(element, '.caption');
    const path = element.querySelector('.path').title;
    const sure = element.dataset.confidence;
    return {
      element, index, caption, path,
      status: element.dataset.status,
      confidence: sure === '' ? null : Number(sure),
      text: plain(`${caption}\n${path}\n${textOf(element, '.why')}`),
    };
  });

  const bins = Array.from({length: kBins}, () => byId('bins').appendChild(document.createElement('i')));
  const orders = {
    low: (a, b) => (a.confidence ?? 2) - (b.confidence ?? 2),
    high: (a, b) => (b.confidence ?? -1) - (a.confidence ?? -1),
    caption: (a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0),
    longest: (a, b) => b.caption.length - a.caption.length,
  };
  for (const picture of pictures) picture.key = picture.caption ? plain(picture.caption) : '\uffff';

  let arranged = '';       // the order that the cards stand in,
  let ordered = pictures;  // and they in it
  let matches = pictures;
  let shown = 0;

  const readAddress = () => {
    const state = new URLSearchParams(location.hash.slice(1));
    const percent = (name, usual) => {
      const value = Number.parseInt(state.get(name) ?? '', 10);
      return Number.isNaN(value) ? usual : Math.min(100, Math.max(0, value));
    };
    query.value = state.get('q') ?? '';
    sort.value = state.get('sort') in orders ? state.get('sort') : '';
    min.value = percent('min', 0);
    max.value = percent('max', 100);
    const statuses = new Set((state.get('status') ?? '').split(','));
    for (const chip of chips) chip.setAttribute('aria-pressed', statuses.has(chip.dataset.status));
  };

  const pressed = () => chips.filter((chip) => chip.getAttribute('aria-pressed') === 'true').map((chip) => chip.dataset.status);

  const writeAddress = () => {
    const state = new URLSearchParams();
    if (query.value) state.set('q', query.value);
    if (pressed().length) state.set('status', pressed().join(','));
    if (min.value > 0) state.set('min', min.value);
    if (max.value < 100) state.set('max', max.value);
    if (sort.value) state.set('sort', sort.value);
    const text = state.toString().replaceAll('%2C', ',');
    byId('clear').hidden = text === '';
    try {
      history.replaceState(null, '', `#${text}`);
    } catch { /* some browsers keep a file's address as it is */ }
  };

  const drawBins = (counts, low, high) => {
    const most = Math.max(1, ...counts);
    bins.forEach((bin, i) => {
      bin.style.height = `${(100 * counts[i]) / most}%`;
      bin.className = (i + 0.5) * (100 / kBins) > low && (i + 0.5) * (100 / kBins) < high ? 'in' : '';
    });
    byId('span').textContent = `${low}–${high} %`;
  };

  // Marks what was searched for in the cards that are shown, where the browser can.
  const mark = (words) => {
    if (!('highlights' in CSS)) return;
    CSS.highlights.delete('found');
    if (!words.length) return;
    const found = new Highlight();
    for (const {element} of matches.slice(0, shown)) {
      const node = element.querySelector('.caption').firstChild;
      const text = node ? node.data.toLowerCase() : '';
      for (const word of words) {
        for (let at = text.indexOf(word); at >= 0; at = text.indexOf(word, at + word.length)) {
          const range = new Range();
          range.setStart(node, at);
          range.setEnd(node, at + word.length);
          found.add(range);
        }
      }
    }
    CSS.highlights.set('found', found);
  };

  const end = new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting) && shown < matches.length) showMore();
  }, {rootMargin: '1500px'});

  const wordsOf = () => plain(query.value).split(/\s+/).filter(Boolean);

  const showMore = () => {
    const next = matches.slice(shown, shown + kStep);
    for (const {element} of next) element.hidden = false;
    shown += next.length;
    mark(wordsOf());
    // It tells of changes only: where the end is still near, it is to tell so again.
    end.unobserve(byId('more'));
    end.observe(byId('more'));
  };

  // Brings the cards into the order that is chosen.
  const arrange = () => {
    if (sort.value === arranged) return;
    arranged = sort.value;
    const order = orders[arranged];
    ordered = order ? [...pictures].sort((a, b) => order(a, b) || a.index - b.index) : pictures;
    const all = document.createDocumentFragment();
    for (const {element} of ordered) all.append(element);
    cards.append(all);
  };

  const apply = () => {
    const low = Math.min(min.value, max.value);
    const high = Math.max(min.value, max.value);
    const words = wordsOf();
    const statuses = new Set(pressed());
    const counts = new Array(kBins).fill(0);
    arrange();
    matches = ordered.filter((picture) => {
      if (statuses.size && !statuses.has(picture.status)) return false;
      if (!words.every((word) => picture.text.includes(word))) return false;
      const {confidence} = picture;
      if (confidence === null) return low === 0 && high === 100;
      ++counts[Math.min(kBins - 1, Math.floor(confidence * kBins))];
      return confidence * 100 >= low && confidence * 100 <= high;
    });
    drawBins(counts, low, high);
    for (const {element} of pictures) element.hidden = true;
    shown = 0;
    showMore();
    cards.classList.add('ready');
    const all = matches.length === pictures.length;
    const number = (count) => count.toLocaleString('en');
    byId('shown').textContent = all ? `${number(pictures.length)} pictures` : `${number(matches.length)} of ${number(pictures.length)} pictures`;
    byId('nothing').hidden = matches.length > 0;
    byId('copy').hidden = matches.length === 0;
    writeAddress();
  };

  let timer = 0;
  const soon = () => {
    clearTimeout(timer);
    timer = setTimeout(apply, pictures.length > 2000 ? 120 : 0);
  };

  query.addEventListener('input', soon);
  for (const input of [min, max]) input.addEventListener('input', soon);
  sort.addEventListener('change', apply);
  for (const chip of chips) {
    chip.addEventListener('click', () => {
      chip.setAttribute('aria-pressed', chip.getAttribute('aria-pressed') !== 'true');
      apply();
    });
  }
  form.addEventListener('submit', (event) => event.preventDefault());
  form.addEventListener('reset', (event) => {
    event.preventDefault();
    history.replaceState(null, '', '#');
    readAddress();
    apply();
    query.focus();
  });
  addEventListener('hashchange', () => { readAddress(); apply(); });
  addEventListener('keydown', (event) => {
    const typing = event.target.matches('input[type="search"], select');
    if (event.key === '/' && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      query.select();
    } else if (event.key === 'Escape' && event.target === query && query.value) {
      query.value = '';
      apply();
    }
  });
  byId('copy').addEventListener('click', async () => {
    const button = byId('copy');
    const usual = button.textContent;
    try {
      await navigator.clipboard.writeText(matches.map(({path}) => `${path}\n`).join(''));
      button.textContent = 'Copied';
    } catch {
      button.textContent = 'The browser does not let them be copied';
    }
    setTimeout(() => { button.textContent = usual; }, 2000);
  });
  byId('theme').addEventListener('click', () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
    root.dataset.theme = dark ? 'light' : 'dark';
    try {
      localStorage.setItem('ocelli-theme', root.dataset.theme);
    } catch { /* then it holds for this visit */ }
  });
  readAddress();
  apply();
})();
