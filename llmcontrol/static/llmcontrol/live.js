/* Requests as they come and end: asks for what is new while somebody looks. Only textContent is ever set. */
"use strict";
(() => {
  const table = document.getElementById("live");
  const body = document.getElementById("live-ended");
  const begun = document.getElementById("live-begun");
  const count = document.getElementById("live-open");
  const state = document.getElementById("live-state");
  const pause = document.getElementById("live-pause");
  const MOST_ROWS = 200, EVERY_MS = 2000, AGAIN_MS = 5000;
  // Several processes enter records at once, so a lower id may come after a higher one: so long it is still looked for.
  const LATE_MS = 10_000;
  const seen = new Map(); // id → row, of those that may be told again or are shown
  const heads = []; // [when, the highest id then]
  let open = new Map(); // key → row, of those in progress
  let after = null, paused = false, timer = null, asking = false;
  document.getElementById("live-most").textContent = MOST_ROWS;

  function cell(row, { kind, text }, url) {
    const at = row.insertCell();
    if (kind === "age") {
      at.className = "llmc-age";
      at.title = text;
    } else if (kind) {
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

  function showOpen({ open: told, more_open: more }) {
    const rows = new Map();
    for (const { key, age_s: age, cells } of told ?? []) {
      const row = open.get(key) ?? document.createElement("tr");
      if (!row.cells.length) cells.forEach((value) => cell(row, value, ""));
      row.begun = performance.now() - age * 1000;
      const there = begun.rows[rows.size];
      if (there !== row) begun.insertBefore(row, there ?? null);
      rows.set(key, row);
    }
    for (const [key, row] of open) if (!rows.has(key)) row.remove();
    open = rows;
    count.textContent = told ? `${table.dataset.open} ${rows.size}${more ? "+" : ""}.` : table.dataset.notOpen;
    age();
  }

  function age() {
    for (const row of open.values()) {
      const seconds = Math.floor((performance.now() - row.begun) / 1000).toLocaleString("en");
      row.querySelector(".llmc-age").textContent = table.dataset.ago.replace("0", seconds);
    }
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
      showOpen(said);
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
  setInterval(() => { if (!paused && !document.hidden) age(); }, 1000);
  // Nobody looks at a hidden page.
  document.addEventListener("visibilitychange", () => { if (!document.hidden && !paused) look(); });
  look();
})();
