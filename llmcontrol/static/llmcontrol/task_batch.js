// The page of a batch of tasks: its states as WS /ws tells them, its results as REST has them (docs/sockets.md, docs/tasks.md).
"use strict";

(() => {
  const ENDED = new Set(["completed", "failed", "cancelled", "expired"]);
  const AGAIN_MS = 2000;
  const page = document.getElementById("batch");
  const link = document.getElementById("batch-link");
  const rows = new Map([...page.querySelectorAll("[data-task]")].map((row) => [row.dataset.task, row]));
  const unread = new Set(); // tasks whose row is behind what REST knows
  const names = Object.fromEntries([...page.querySelectorAll(".llmc-figures [data-state]")].map((each) => [each.dataset.state, each.textContent]));
  const say = (what, why) => (link.textContent = why ? `${page.dataset[what]} (${why})` : page.dataset[what]);
  let socket = null;
  let seq = null;
  let reading = false;

  const stateOf = (row) => row.querySelector(".llmc-state");
  const allEnded = () => [...rows.values()].every((row) => ENDED.has(stateOf(row).dataset.state));

  function show(row, status) {
    stateOf(row).dataset.state = status;
    stateOf(row).textContent = names[status] || status;
  }

  function count() {
    const counts = {};
    for (const row of rows.values()) {
      const state = stateOf(row).dataset.state;
      counts[state] = (counts[state] || 0) + 1;
    }
    let ended = 0;
    for (const figure of page.querySelectorAll("[data-count]")) {
      const state = figure.dataset.count;
      figure.textContent = counts[state] || 0;
      ended += ENDED.has(state) ? counts[state] || 0 : 0;
    }
    document.getElementById("batch-ended").textContent = ended;
    document.getElementById("batch-fill").style.width = `${(100 * ended) / rows.size}%`;
  }

  // One at a time: a batch may have a thousand tasks that end at once.
  async function read() {
    if (reading) return;
    reading = true;
    let asked = "";
    try {
      for (const id of unread) {
        unread.delete(id); // what is told meanwhile puts it back
        asked = id;
        const answer = await fetch(`${page.dataset.tasks}/${id}`, { headers: { Accept: "application/json" } });
        if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
        const task = await answer.json();
        const row = rows.get(id);
        show(row, task.status);
        row.querySelector(".llmc-result").textContent = task.result ? JSON.stringify(task.result) : task.error ? task.error.message : "";
        count();
      }
    } catch (failure) {
      unread.add(asked);
      say("unread", failure.message);
      setTimeout(read, AGAIN_MS);
    } finally {
      reading = false;
    }
    if (!unread.size && allEnded()) end();
  }

  function end() {
    say("over");
    if (socket) socket.close();
  }

  function readAll() {
    for (const [id, row] of rows) if (!ENDED.has(stateOf(row).dataset.state)) unread.add(id);
    read();
  }

  function hear(told) {
    seq = told.seq;
    if (told.type === "hello") say("live");
    if (told.type === "hello" || told.type === "resync") readAll();
    const row = told.type === "task" && rows.get(told.data.task_id);
    if (!row) return;
    show(row, told.data.status);
    count();
    if (ENDED.has(told.data.status)) {
      unread.add(told.data.task_id);
      read();
    }
  }

  async function follow() {
    try {
      const csrf = page.querySelector("[name=csrfmiddlewaretoken]").value;
      const answer = await fetch(page.dataset.ticket, { method: "POST", headers: { "X-CSRFToken": csrf } });
      if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
      const { ticket } = await answer.json();
      const scheme = location.protocol === "https:" ? "wss:" : "ws:";
      const since = seq === null ? "" : `?since=${seq}`;
      socket = new WebSocket(`${scheme}//${location.host}/ws${since}`, ["llmcontrol", `ticket.${ticket}`]);
      socket.onmessage = (message) => hear(JSON.parse(message.data));
      socket.onclose = () => {
        if (allEnded()) return;
        say("lost");
        readAll(); // where sockets are switched off, this is all the news there is
        setTimeout(follow, AGAIN_MS);
      };
    } catch (failure) {
      say("noNews", failure.message);
      setTimeout(follow, AGAIN_MS);
    }
  }

  count();
  if (allEnded()) end();
  else follow();
})();
