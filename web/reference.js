// The page at /rapidoc: reads api-docs/openapi.json, shows it, and sends requests that the reader asks for. Everything is put
// into the page as text, never as markup. Addresses are relative, so the page also works behind a prefix.
"use strict";

const SHOWN_BYTES = 200000; // of an answer's body
const METHODS = ["get", "put", "post", "delete"];
let spec = null;

function make(tag, attributes, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === true) e.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) e.setAttribute(name, value);
  }
  e.append(...children.filter((c) => c !== null && c !== undefined));
  return e;
}

function at(id) {
  return document.getElementById(id);
}

function resolve(schema) {
  if (!schema || !schema.$ref) return schema || {};
  return schema.$ref.split("/").slice(1).reduce((node, key) => (node || {})[key], spec) || {};
}

function nameOf(schema) {
  return schema && schema.$ref ? schema.$ref.split("/").pop() : null;
}

// --- schemas ---

function typeText(schema) {
  if (!schema) return "any";
  if (schema.$ref) return nameOf(schema);
  if (schema.oneOf) return schema.oneOf.map(typeText).join(" or ");
  if (schema.enum) return schema.enum.map((v) => JSON.stringify(v)).join(" | ");
  const types = [].concat(schema.type || "any");
  return types.map((t) => {
    if (t === "array") return "list of " + typeText(schema.items);
    if (t === "object" && schema.additionalProperties) return "map of " + typeText(schema.additionalProperties);
    return t === "string" && schema.format ? "string, " + schema.format : t;
  }).join(" or ");
}

function refsOf(schema, found) {
  if (!schema || typeof schema !== "object") return found;
  if (schema.$ref) {
    if (!found.includes(schema.$ref)) {
      found.push(schema.$ref);
      refsOf(resolve(schema), found);
    }
    return found;
  }
  for (const part of Object.values(schema)) {
    if (part && typeof part === "object") refsOf(part, found);
  }
  return found;
}

function table(caption, heads, rows) {
  return make("div", { class: "table", role: "region", tabindex: "0", "aria-label": caption },
    make("table", {},
      make("caption", {}, caption),
      make("thead", {}, make("tr", {}, ...heads.map((h) => make("th", { scope: "col" }, h)))),
      make("tbody", {}, ...rows.map((cells) => make("tr", {}, ...cells.map((c, i) => make(i ? "td" : "th", i ? {} : { scope: "row" }, c)))))));
}

function fieldTable(name, schema) {
  const fields = schema.properties ? schema : (schema.oneOf || []).find((s) => s.properties) || {};
  const required = fields.required || [];
  const rows = Object.entries(fields.properties || {}).map(([field, s]) => {
    const says = [s.description || resolve(s).description || ""];
    if ("default" in s) says.push("Default: " + JSON.stringify(s.default) + ".");
    return [make("code", {}, field), typeText(s), required.includes(field) ? "yes" : "no", says.join(" ").trim()];
  });
  return table(name, ["Field", "Type", "Required", "Meaning"], rows);
}

function schemaView(schema) {
  const box = make("div");
  const refs = refsOf(schema, []);
  if (!schema.$ref) box.append(make("p", {}, make("code", {}, typeText(schema)), schema.description ? ": " + schema.description : ""));
  for (const ref of refs) {
    const s = resolve({ $ref: ref });
    box.append(fieldTable(nameOf({ $ref: ref }) + (s.description ? ": " + s.description : ""), s));
  }
  return box;
}

function exampleOf(schema, depth) {
  const s = resolve(schema);
  if (schema.examples && schema.examples.length) return schema.examples[0];
  if ("default" in schema) return schema.default;
  if (s.oneOf) return exampleOf(s.oneOf[0], depth + 1);
  if (s.enum) return s.enum[0];
  const type = [].concat(s.type || "object")[0];
  if (type === "array") return depth < 6 ? [exampleOf(s.items || {}, depth + 1)] : [];
  if (type === "object") {
    const o = {};
    for (const [name, field] of Object.entries(depth < 6 ? s.properties || {} : {})) {
      if ((s.required || []).includes(name)) o[name] = exampleOf(field, depth + 1);
    }
    return o;
  }
  return type === "string" ? "" : type === "boolean" ? false : 0;
}

// --- trying ---

function authorization() {
  const token = at("login-token").value;
  const user = at("login-user").value;
  if (token) return "Bearer " + token;
  if (!user) return null;
  const bytes = new TextEncoder().encode(user + ":" + at("login-password").value);
  return "Basic " + btoa(String.fromCharCode(...bytes));
}

async function bodyText(response) {
  const type = response.headers.get("content-type") || "";
  const text = await response.text();
  if (type.includes("json") && text.length < SHOWN_BYTES) {
    try {
      return JSON.stringify(JSON.parse(text), null, 2);
    } catch {
      return text;
    }
  }
  if (text.length > SHOWN_BYTES) return text.slice(0, SHOWN_BYTES) + "\n... (" + text.length + " characters in all)";
  return text;
}

async function send(op, form, out) {
  const query = new URLSearchParams();
  const options = { method: op.method.toUpperCase(), headers: {} };
  for (const input of form.querySelectorAll("[data-query]")) {
    if (input.value !== "") query.set(input.dataset.query, input.value);
  }
  const body = form.querySelector("textarea");
  if (body) {
    options.body = body.value;
    options.headers["Content-Type"] = body.dataset.type;
  }
  for (const input of form.querySelectorAll("[data-header]")) {
    if (input.value !== "") options.headers[input.dataset.header] = input.value;
  }
  const login = authorization();
  if (login) {
    options.headers.Authorization = login;
    options.credentials = "omit"; // a refusal is shown here, not answered by the browser's own question
  }
  const url = op.path.slice(1) + (query.size ? "?" + query : "");
  const button = form.querySelector("button");
  button.disabled = true;
  out.replaceChildren(make("p", {}, "Waiting for the answer."));
  const begun = performance.now();
  try {
    const response = await fetch(url, options);
    const text = await bodyText(response);
    const ms = Math.round(performance.now() - begun);
    out.replaceChildren(
      make("p", {}, make("span", { class: response.ok ? "good" : "bad" }, response.status + " " + response.statusText), " in " + ms + " ms"),
      make("details", {}, make("summary", {}, "Headers of the answer"),
        make("pre", {}, [...response.headers].map(([k, v]) => k + ": " + v).join("\n"))),
      text ? make("pre", { tabindex: "0", "aria-label": "Body of the answer" }, text) : make("p", { class: "note" }, "Without a body."));
  } catch (e) {
    out.replaceChildren(make("p", { class: "bad" }, "No answer: " + e.message));
  } finally {
    button.disabled = false;
  }
}

function tryForm(op) {
  const form = make("form", { "aria-label": "Try " + op.method.toUpperCase() + " " + op.path });
  const out = make("div", { role: "status", "aria-live": "polite" });
  for (const p of op.parameters || []) {
    const id = "try-" + op.operationId + "-" + p.name;
    const input = make("input", { id, ["data-" + p.in]: p.name, required: p.required, autocomplete: "off", spellcheck: "false" });
    form.append(make("div", {}, make("label", { for: id }, p.name + (p.required ? " (required)" : "")), input));
  }
  if (op.requestBody) {
    const [type, media] = Object.entries(op.requestBody.content)[0];
    const id = "try-" + op.operationId + "-body";
    const text = type.includes("json") ? JSON.stringify(exampleOf(media.schema || {}, 0), null, 2) : "";
    const area = make("textarea", { id, "data-type": type, spellcheck: "false" });
    area.value = text;
    form.append(make("div", {}, make("label", { for: id }, "Body, " + type), area));
  }
  form.append(make("button", { type: "submit" }, "Send the request"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(op, form, out);
  });
  const note = op.method === "get" ? null : make("p", { class: "note" }, "This is sent to the running service and has its effect.");
  return make("details", { class: "try" }, make("summary", {}, "Try it"), note, form, out);
}

// --- the page ---

function answerRows(op) {
  return Object.entries(op.responses).map(([status, answer]) => {
    const kinds = Object.entries(answer.content || {}).map(([type, media]) => {
      const t = media.schema && type.includes("json") ? typeText(media.schema) : "";
      return type + (t ? ": " + t : "");
    });
    return [status, answer.description || "", kinds.join("; ")];
  });
}

function operationView(op) {
  const id = "op-" + op.operationId;
  const section = make("section", { id, "aria-labelledby": id + "-name" },
    make("h3", { id: id + "-name" }, make("span", { class: "method " + op.method }, op.method.toUpperCase()), " ",
      make("span", { class: "path" }, op.path)),
    make("p", {}, op.summary || ""),
    op.description ? make("p", {}, op.description) : null);
  for (const [place, caption] of [["query", "Parameters of the query"], ["header", "Fields of the header"]]) {
    const list = (op.parameters || []).filter((p) => p.in === place);
    if (list.length) {
      section.append(table(caption, ["Name", "Type", "Required", "Meaning"],
        list.map((p) => [make("code", {}, p.name), typeText(p.schema), p.required ? "yes" : "no", p.description || ""])));
    }
  }
  if (op.requestBody) {
    const [type, media] = Object.entries(op.requestBody.content)[0];
    section.append(make("h4", {}, "Body of the request, " + type), schemaView(media.schema || {}));
  }
  section.append(table("Answers", ["Status", "Meaning", "Body"], answerRows(op)));
  for (const answer of Object.values(op.responses)) {
    for (const media of Object.values(answer.content || {})) {
      if (refsOf(media.schema || {}, []).length) section.append(make("h4", {}, "Body of the answer"), schemaView(media.schema));
    }
  }
  section.append(tryForm(op));
  return section;
}

function operations() {
  const list = [];
  for (const [path, item] of Object.entries(spec.paths)) {
    for (const method of METHODS) {
      if (item[method]) list.push({ ...item[method], path, method });
    }
  }
  return list;
}

function show() {
  const groups = new Map();
  for (const op of operations()) {
    const tag = (op.tags || [])[0] || "other";
    groups.set(tag, [...(groups.get(tag) || []), op]);
  }
  at("title").textContent = spec.info.title + ": HTTP API";
  at("version").textContent = spec.info.version;
  at("about").textContent = spec.info.description || "";
  document.title = spec.info.title + ": HTTP API";
  at("state").remove();
  for (const [tag, ops] of [...groups].sort()) {
    at("main").append(make("h2", { id: "tag-" + tag }, tag), ...ops.map(operationView));
    at("index").append(make("div", { class: "group" }, make("h2", {}, tag),
      make("ul", {}, ...ops.map((op) => make("li", { "data-text": [op.method, op.path, op.summary].join(" ").toLowerCase() },
        make("a", { href: "#op-" + op.operationId }, make("span", { class: "method " + op.method }, op.method.toUpperCase()), " " + op.path))))));
  }
  if (location.hash) {
    const target = at(location.hash.slice(1));
    if (target) target.scrollIntoView();
  }
}

function filter() {
  const wanted = at("filter").value.trim().toLowerCase();
  let n = 0;
  for (const group of document.querySelectorAll(".group")) {
    let shown = 0;
    for (const item of group.querySelectorAll("li")) {
      item.hidden = !item.dataset.text.includes(wanted);
      shown += item.hidden ? 0 : 1;
    }
    group.hidden = shown === 0;
    n += shown;
  }
  at("found").textContent = wanted ? n + " found" : "";
}

async function start() {
  at("filter").addEventListener("input", filter);
  for (const id of ["login-basic", "login-bearer"]) at(id).addEventListener("submit", (event) => event.preventDefault());
  try {
    const response = await fetch("api-docs/openapi.json");
    if (!response.ok) throw new Error("status " + response.status);
    spec = await response.json();
  } catch (e) {
    at("state").textContent = "The description of the API cannot be read: " + e.message;
    return;
  }
  show();
}

start();
