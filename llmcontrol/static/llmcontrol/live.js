/* Requests as they are recorded: asks for what is new while somebody looks. Only textContent is ever set. */
"use strict";
(() => {
  const table = document.getElementById("live");
  const body = table.tBodies[0];
  const state = document.getElementById("live-state");
  const pause = document.getElementById("live-pause");
  const MOST_ROWS = 200, EVERY_MS = 2000, AGAIN_MS = 5000;
  // Several processes enter records at once, so a lower id may come after a higher one: so long it is still looked for.
  const LATE_MS = 10_000;
  const seen = new Map(); // id → row, of those that may be told again or are shown
  const heads = []; // [when, the highest id then]
  let after = null, paused = false, timer = null, asking = false;
  document.getElementById("live-most").textContent = MOST_ROWS;

  function cell(row, { kind, text }, url) {
    const at = row.insertCell();
    if (kind) {
      const label = document.createElement("span");
      label.className = "llmc-outcome";
      label.dataset.kind = kind;
      label.textContent = text;
      at.append(label);
    } else if (url) {
      const link = document.createElement("a");
      link.className = "text-primary-600 dark:text-primary-500";
      link.href = url;
      link.textContent = text;
      at.append(link);
    } else {
      at.textContent = text || "–";
    }
  }

  function show({ id, url, cells }) {
    if (seen.has(id)) return;
    const older = [...body.rows].find((row) => Number(row.dataset.id) < id);
    const row = body.insertRow(older ? older.sectionRowIndex : -1);
    row.dataset.id = id;
    cells.forEach((value, place) => cell(row, value, place === 1 ? url : ""));
    seen.set(id, row);
  }

  function forget() {
    while (body.rows.length > MOST_ROWS) body.deleteRow(-1);
    for (const [id, row] of seen) if (id <= after && !row.isConnected) seen.delete(id);
  }

  function moveOn(last) {
    const now = Date.now();
    if (after === null) after = last;
    heads.push([now, last]);
    while (heads[0][0] < now - LATE_MS) after = Math.max(after, heads.shift()[1]);
  }

  async function look() {
    if (asking) return;
    asking = true;
    clearTimeout(timer);
    let again = EVERY_MS;
    try {
      const query = new URLSearchParams(table.dataset.query);
      if (after !== null) query.set("after", after);
      const answer = await fetch(`${table.dataset.rows}?${query}`, { headers: { Accept: "application/json" }, credentials: "same-origin" });
      if (answer.redirected) throw new Error(table.dataset.loggedOut);
      const said = await answer.json().catch(() => ({}));
      if (!answer.ok) throw new Error(said.error || `HTTP ${answer.status}`);
      const gap = said.more && after !== null && !said.rows.some(({ id }) => seen.has(id));
      for (const row of said.rows.reverse()) show(row);
      moveOn(said.last);
      forget();
      state.textContent = gap ? table.dataset.gap : table.dataset.live;
    } catch (failure) {
      state.textContent = `${table.dataset.unread} (${failure.message})`;
      again = AGAIN_MS;
    } finally {
      asking = false;
    }
    if (paused) state.textContent = table.dataset.paused;
    else if (!document.hidden) timer = setTimeout(look, again);
  }

  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? table.dataset.resume : table.dataset.pause;
    pause.setAttribute("aria-pressed", paused);
    clearTimeout(timer);
    if (paused) state.textContent = table.dataset.paused;
    else look();
  });
  // Nobody looks at a hidden page.
  document.addEventListener("visibilitychange", () => { if (!document.hidden && !paused) look(); });
  look();
})();
