"use strict";
(() => {
  const byId = (id) => document.getElementById(id);

  // Theme: the system's until the button is pressed, then what was chosen last.
  const root = document.documentElement, button = byId("theme");
  const systemDark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : systemDark.matches);
  const tell = () => { button.textContent = isDark() ? "Light theme" : "Dark theme"; };
  try {
    const kept = localStorage.getItem("invsolve-theme");
    if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  } catch { /* pages from a file may have no storage */ }
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("invsolve-theme", root.dataset.theme); } catch { /* as above */ }
    tell();
  });
  systemDark.addEventListener("change", tell);
  tell();
  button.hidden = false;

  // Columns: base64 of little-endian numbers; floats are the upper halves of float64.
  const data = JSON.parse(byId("data").textContent);
  function unpack(column) {
    const text = atob(column.data), bytes = new Uint8Array(text.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
    if (column.kind === "u1") return bytes;
    if (column.kind === "u2") return new Uint16Array(bytes.buffer);
    const words = new Uint32Array(bytes.buffer);
    if (column.kind === "u4") return words;
    const numbers = new Float64Array(column.kind === "u8" ? words.length / 2 : words.length);
    if (column.kind === "u8") {
      for (let i = 0; i < numbers.length; i++) numbers[i] = words[2 * i] + 4294967296 * words[2 * i + 1];
      return numbers;
    }
    const halves = new Uint32Array(numbers.buffer);
    for (let i = 0; i < words.length; i++) halves[2 * i + 1] = words[i];
    return numbers;
  }
  const { shown, rows, examples } = data;
  const columns = data.columns.map((column) => ({ ...column, values: unpack(column) }));
  const exampleOf = (row) => (examples ? examples[row % shown] : String(row % shown));

  function format(value) {  // as Python's %.4g
    if (Number.isNaN(value)) return "";
    if (!Number.isFinite(value)) return value > 0 ? "∞" : "-∞";
    const size = Math.abs(Number(value.toPrecision(4)));
    if (size === 0) return Object.is(value, -0) ? "-0" : "0";
    if (size >= 1e-4 && size < 1e4) return String(Number(value.toPrecision(4)));
    const [digits, exponent] = value.toExponential(3).split("e");
    const sign = exponent[0], power = exponent.slice(1).padStart(2, "0");
    return `${digits.includes(".") ? digits.replace(/\.?0+$/, "") : digits}e${sign}${power}`;
  }
  function cell(column, row) {
    const value = column.values[row % column.values.length];
    if (column.words) return column.words[value];
    return column.kind === "f8" ? format(value) : String(value);
  }

  // What is shown: rows that pass the filters, in order, a page at a time.
  const table = byId("rows"), perPage = Number(table.dataset.perPage), body = table.tBodies[0];
  const state = { text: "", wanted: new Map(), column: null, down: false, page: 0 };
  let order = Uint32Array.from({ length: rows }, (_, i) => i);

  function filtered() {
    const found = new Uint32Array(rows), text = state.text.trim().toLowerCase();
    let passing = null;
    if (text) {
      passing = new Uint8Array(shown);
      for (let i = 0; i < shown; i++) passing[i] = exampleOf(i).toLowerCase().includes(text) ? 1 : 0;
    }
    const tests = [...state.wanted].map(([i, code]) => [columns[i].values, code]);
    let n = 0;
    for (let row = 0; row < rows; row++) {
      if (passing && !passing[row % shown]) continue;
      if (tests.every(([values, code]) => values[row % values.length] === code)) found[n++] = row;
    }
    return found.subarray(0, n);
  }
  const kept = new Map();
  function keys(index) {  // a number for each row; NaN is missing
    if (kept.has(index)) return kept.get(index);
    const column = columns[index];
    let made;
    if (index < 0) {
      made = new Float64Array(shown);
      if (examples) {
        const places = Array.from(examples, (_, i) => i), collator = new Intl.Collator("en", { numeric: true });
        places.sort((a, b) => collator.compare(examples[a], examples[b]));
        places.forEach((place, rank) => { made[place] = rank; });
      } else {
        made.forEach((_, i) => { made[i] = i; });
      }
    } else if (column.words) {
      made = Float64Array.from(column.values, (code) => (column.words[code] === "" ? NaN : code));
    } else {
      made = column.values;
    }
    kept.set(index, made);
    return made;
  }
  function sorted(found) {
    if (state.column === null) return found;
    const by = keys(state.column), size = by.length, sign = state.down ? -1 : 1;
    return found.sort((a, b) => {
      const x = by[a % size], y = by[b % size];
      const missing = (x !== x) - (y !== y);  // last, whichever way
      if (missing) return missing;
      if (x < y) return -sign;
      if (x > y) return sign;
      return a - b;
    });
  }

  const many = new Intl.NumberFormat("en");
  const pages = byId("pages"), count = byId("count");
  function draw() {
    const last = Math.max(0, Math.ceil(order.length / perPage) - 1);
    state.page = Math.min(Math.max(state.page, 0), last);
    const from = state.page * perPage, here = order.subarray(from, from + perPage);
    body.replaceChildren(...Array.from(here, (row) => {
      const line = document.createElement("tr"), head = document.createElement("th");
      head.scope = "row";
      head.textContent = exampleOf(row);
      line.append(head);
      for (const column of columns) {
        const field = document.createElement("td");
        field.textContent = cell(column, row);
        if (!column.words) field.className = "number";
        line.append(field);
      }
      return line;
    }));
    const range = here.length ? `, ${many.format(from + 1)} to ${many.format(from + here.length)} shown` : "";
    count.textContent = `${many.format(order.length)} of ${many.format(rows)} rows${range}`;
    for (const [step, move] of moves) step.disabled = (move < 0 ? state.page === 0 : state.page === last);
    pages.hidden = last === 0;
  }
  function refresh() {
    order = sorted(filtered());
    state.page = 0;
    draw();
  }

  const moves = [["First", -Infinity], ["Previous", -1], ["Next", 1], ["Last", Infinity]].map(([label, move]) => {
    const step = document.createElement("button");
    step.type = "button";
    step.textContent = label;
    step.addEventListener("click", () => {
      state.page = move === -Infinity ? 0 : move === Infinity ? order.length : state.page + move;
      draw();
      table.parentElement.scrollTop = 0;
    });
    pages.append(step);
    return [step, move];
  });

  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, i) => {
    const sort = document.createElement("button");
    sort.type = "button";
    sort.append(...head.childNodes);
    head.append(sort);
    head.setAttribute("aria-sort", "none");
    sort.addEventListener("click", () => {
      state.down = state.column === i - 1 && !state.down;
      state.column = i - 1;
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      refresh();
    });
  });

  const filters = byId("filters");
  function labelled(text, control) {
    const label = document.createElement("label"), words = document.createElement("bdi");
    words.textContent = text;
    label.append(words, control);
    filters.append(label);
    return control;
  }
  const search = document.createElement("input");
  search.type = "search";
  search.addEventListener("input", () => { state.text = search.value; refresh(); });
  labelled("example contains", search);
  const selects = [];
  columns.forEach((column, i) => {
    if (!column.key) return;
    const select = document.createElement("select");
    select.name = column.key;
    const present = new Uint8Array(column.words.length);
    column.values.forEach((code) => { present[code] = 1; });
    select.append(new Option("all", ""));
    column.words.forEach((word, code) => { if (present[code] && word) select.append(new Option(word, String(code))); });
    select.addEventListener("change", () => {
      if (select.value === "") state.wanted.delete(i);
      else state.wanted.set(i, Number(select.value));
      refresh();
    });
    selects.push(labelled(column.label, select));
  });
  const reset = document.createElement("button");
  reset.type = "button";
  reset.textContent = "Clear";
  reset.addEventListener("click", () => {
    search.value = state.text = "";
    state.wanted.clear();
    selects.forEach((select) => { select.value = ""; });
    refresh();
  });
  filters.append(reset);
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.hidden = count.hidden = false;
  const cut = byId("cut");
  if (cut) cut.hidden = true;
  draw();
})();
