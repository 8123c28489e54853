/* The playground: a key of an hour, one socket, and up to two answers that are shown as they come. Only textContent is ever set. */
"use strict";
(() => {
  const form = document.getElementById("playground");
  const state = document.getElementById("playground-state");
  const panes = Object.fromEntries([...document.querySelectorAll("[data-side]")].map((pane) => [pane.dataset.side, pane]));
  const HOUR_MS = 3600 * 1000, TRIES = 20, AGAIN_MS = 500;
  const kept = document.getElementById("replayed");
  const replayed = kept ? JSON.parse(kept.textContent) : { messages: [], fields: {} };
  let key = null, socket = null;
  const running = new Map();

  const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  const csrf = () => form.elements.csrfmiddlewaretoken.value;

  async function rest(method, path, body) {
    const headers = { "X-CSRFToken": csrf(), "Content-Type": "application/json" };
    const answer = await fetch(path, { method, headers, body: body && JSON.stringify(body), credentials: "same-origin" });
    const said = answer.status === 204 ? null : await answer.json().catch(() => null);
    if (!answer.ok) throw new Error((said && said.errors && said.errors.map((one) => one.detail).join(" ")) || `${method} ${path}: ${answer.status}`);
    return said;
  }

  async function keyFor(team) {
    if (key && key.team === team && key.until > Date.now() + 60_000) return key;
    const until = Date.now() + HOUR_MS;
    const made = await rest("POST", form.dataset.keys, {
      name: form.dataset.name, team, scopes: ["chat", "models"], expires_at: new Date(until).toISOString(),
    });
    key = { team, until, value: made.key };
    if (socket) socket.close();
    return key;
  }

  /* A key that was made a moment ago is not known everywhere yet. */
  async function connected(value) {
    if (socket && socket.readyState === WebSocket.OPEN) return socket;
    for (let tries = 0; tries < TRIES; tries++) {
      const found = await opened(value);
      if (found) return (socket = found);
      await wait(AGAIN_MS);
    }
    throw new Error(form.dataset.refused);
  }

  function opened(value) {
    return new Promise((resolve) => {
      const next = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${form.dataset.socket}`);
      // The server says nothing to a good key: what it answers to an unknown frame shows that it took the key.
      next.onopen = () => { next.send(JSON.stringify({ type: "auth", key: value })); next.send(JSON.stringify({ type: "cancel", id: "-" })); };
      next.onmessage = (event) => {
        const frame = JSON.parse(event.data);
        if (frame.id !== "-") return;
        next.onmessage = (later) => heard(JSON.parse(later.data));
        next.onclose = () => { for (const id of [...running.keys()]) ended(id, form.dataset.closed); };
        resolve(next);
      };
      next.onclose = next.onerror = () => resolve(null);
    });
  }

  function ask(side, model) {
    const pane = panes[side];
    const id = `${side}${Date.now()}`;
    const messages = [...replayed.messages];
    if (form.elements.prompt.value) messages.push({ role: "user", content: form.elements.prompt.value });
    if (form.elements.system.value) messages.unshift({ role: "system", content: form.elements.system.value });
    const request = { ...replayed.fields, model, messages, stream: true, stream_options: { include_usage: true }, max_tokens: Number(form.elements.max_tokens.value) || undefined };
    if (!messages.length) delete request.messages; // a prompt template has them all
    if (form.elements.temperature.value) request.temperature = Number(form.elements.temperature.value);
    pane.hidden = false;
    pane.querySelector("h3").textContent = model;
    pane.querySelector(".llmc-play-answer").textContent = "";
    pane.querySelector("dl").replaceChildren();
    pane.querySelector("details").hidden = true;
    running.set(id, { pane, began: performance.now(), first: null });
    socket.send(JSON.stringify({ type: "generate", id, request }));
  }

  function heard(frame) {
    const one = running.get(frame.id);
    if (!one) return;
    if (frame.type === "delta" && frame.text) {
      if (one.first === null) show(one.pane, form.dataset.first, `${Math.round((one.first = performance.now()) - one.began)} ms`);
      one.pane.querySelector(".llmc-play-answer").append(frame.text);
    } else if (frame.type === "delta" && frame.delta && frame.delta.tool_calls) {
      for (const { function: called } of frame.delta.tool_calls) {
        if (called && called.name) one.pane.querySelector(".llmc-play-answer").append(`\n→ ${called.name} `);
        if (called && called.arguments) one.pane.querySelector(".llmc-play-answer").append(called.arguments);
      }
    } else if (frame.type === "usage") {
      show(one.pane, form.dataset.tokens, form.dataset.counts.replace("IN", frame.usage.prompt_tokens).replace("OUT", frame.usage.completion_tokens));
    } else if (frame.type === "error") {
      ended(frame.id, frame.error.message);
    } else if (frame.type === "done") {
      show(one.pane, form.dataset.whole, `${Math.round(performance.now() - one.began)} ms`);
      show(one.pane, form.dataset.by, `${frame.provider}, ${frame.model}`);
      ended(frame.id, "");
      account(one.pane, frame.request_id);
    }
  }

  /* The record is written a moment after the answer. Who may not see records sees none. */
  async function account(pane, requestId) {
    for (let tries = 0; tries < TRIES; tries++) {
      await wait(AGAIN_MS);
      const found = await rest("GET", `${form.dataset.requests}?request_id=${requestId}`).catch(() => null);
      if (!found) return;
      if (!found.results.length) continue;
      const row = found.results[0];
      show(pane, form.dataset.cost, row.cost === null ? form.dataset.unpriced : `${row.cost} ${row.currency}`.trim());
      return why(pane, await rest("GET", `${form.dataset.requests}/${requestId}/explain`).catch(() => null));
    }
  }

  function why(pane, explained) {
    if (!explained) return;
    const details = pane.querySelector("details");
    details.querySelector("tbody").replaceChildren(...explained.candidates.map((one) => {
      const row = document.createElement("tr");
      for (const text of [one.place ?? "–", one.alias, one.provider, one.reason]) row.insertCell().textContent = text;
      return row;
    }));
    details.hidden = false;
  }

  function show(pane, name, value) {
    const term = document.createElement("dt"), data = document.createElement("dd");
    term.textContent = name;
    data.textContent = value;
    pane.querySelector("dl").append(term, data);
  }

  function ended(id, error) {
    const one = running.get(id);
    running.delete(id);
    if (error) {
      const said = document.createElement("p");
      said.className = "llmc-play-error";
      said.textContent = error;
      one.pane.querySelector(".llmc-play-answer").append(said);
    }
    busy(running.size > 0);
  }

  function busy(is, what = "") {
    form.querySelector("[type=submit]").disabled = is;
    form.elements.stop.disabled = !running.size;
    state.textContent = what;
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    busy(true, form.dataset.connecting);
    try {
      const { value } = await keyFor(form.elements.team.value);
      await connected(value);
      panes.r.hidden = true;
      ask("l", form.elements.left.value);
      if (form.elements.right.value) ask("r", form.elements.right.value);
      busy(true);
    } catch (error) {
      busy(false, error.message);
    }
  });
  form.elements.stop.addEventListener("click", () => {
    for (const id of running.keys()) socket.send(JSON.stringify({ type: "cancel", id }));
  });
  form.elements.prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
})();
