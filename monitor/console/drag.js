// Threshold lines: dragged by pointer or moved by arrow keys. The server is told a few times a
// second while a line moves; where it stands meanwhile is drawn here, so nothing jumps.
(() => {
  let moving = null, sent = 0, later = null;
  const zones = () => document.querySelector('.zones');
  const lines = () => [...document.querySelectorAll('.line')];
  const share = (risk) => Math.min(0.5, Math.pow(10, -risk));
  const top = () => Number(zones().dataset.max);
  const words = (p) => Number((p * 100).toPrecision(2)).toLocaleString('en', { maximumSignificantDigits: 2, maximumFractionDigits: 12 }) + ' %';
  const risk = (line) => Number(line.dataset.risk);
  const place = () => {
    if (!zones()) return;
    const at = {};
    for (const line of lines()) {
      const part = Math.min(1, risk(line) / top()) * 100;
      at[line.dataset.name] = part;
      line.style.left = part + '%';
      line.classList.toggle('low', part < 16);
      line.classList.toggle('high', part > 84);
      line.querySelector('.tag span').textContent = line.dataset.title + ' ' + words(share(risk(line)));
      line.setAttribute('aria-valuenow', risk(line).toFixed(2));
      line.setAttribute('aria-valuetext', words(share(risk(line))) + ' of honest events');
    }
    const flag = zones().querySelector('.zone.flag'), hold = zones().querySelector('.zone.quarantine');
    flag.style.left = at.flag + '%'; flag.style.width = Math.max(0, at.quarantine - at.flag) + '%';
    hold.style.left = at.quarantine + '%'; hold.style.right = '0';
  };
  const tell = (last) => {
    clearTimeout(later); later = null;
    const now = Date.now(), wait = 120 - (now - sent);
    if (!last && wait > 0) { later = setTimeout(() => tell(true), wait); return; }
    sent = now;
    const at = Object.fromEntries(lines().map((line) => [line.dataset.name, share(risk(line))]));
    emitEvent('thresholds', { flag: at.flag, quarantine: at.quarantine });
  };
  const set = (line, value) => {
    const other = Object.fromEntries(lines().map((each) => [each.dataset.name, risk(each)]));
    const low = line.dataset.name === 'quarantine' ? other.flag : 0.31;
    const high = line.dataset.name === 'flag' ? other.quarantine : top();
    line.dataset.risk = Math.min(high, Math.max(low, value));
    place();
  };
  document.addEventListener('pointerdown', (event) => {
    const line = event.target.closest && event.target.closest('.line');
    if (!line) return;
    moving = line; line.setPointerCapture(event.pointerId); line.focus(); event.preventDefault();
  });
  document.addEventListener('pointermove', (event) => {
    if (!moving) return;
    const box = zones().getBoundingClientRect();
    set(moving, (event.clientX - box.left) / box.width * top());
    tell(false);
  });
  const end = () => { if (moving) { moving = null; tell(true); } };
  document.addEventListener('pointerup', end);
  document.addEventListener('pointercancel', end);
  document.addEventListener('keydown', (event) => {
    const line = event.target.closest && event.target.closest('.line');
    const step = { ArrowLeft: -0.05, ArrowRight: 0.05, PageDown: -0.5, PageUp: 0.5 }[event.key];
    if (!line || !step) return;
    event.preventDefault(); set(line, risk(line) + step); tell(false);
  });
  // What a key still has to tell goes before what is typed into a field next.
  document.addEventListener('focusout', (event) => {
    if (later && event.target.closest && event.target.closest('.line')) tell(true);
  });
  window.monitorLines = (flag, quarantine, max) => {
    if (!zones()) return;
    zones().dataset.max = max;
    const at = { flag, quarantine };
    for (const line of lines()) if (line !== moving) line.dataset.risk = -Math.log10(at[line.dataset.name]);
    place();
  };
})();
