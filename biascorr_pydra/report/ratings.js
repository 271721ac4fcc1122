"use strict";
// Ratings of scans, kept in the browser: an item a scan, so that two open pages never overwrite each other's.
window.scanRatings = (() => {
  const WORDS = ["accept", "exclude"];
  const NONE = { rating: "", note: "", rated: "" };
  const unkept = new Map();  // what the browser would not keep
  let storage = null;
  try {
    storage = window.localStorage;
    storage.getItem("biascorr");
  } catch {
    storage = null;
  }
  const showers = new Map();  // by key, what shows a scan's rating
  const watchers = [];

  const clean = (value) => (value && typeof value === "object"
    ? { rating: WORDS.includes(value.rating) ? value.rating : "", note: String(value.note || ""), rated: String(value.rated || "") }
    : null);
  const keyOf = ({ store, scan }) => `biascorr:rating:${store}:${scan}`;
  const openKey = (store) => `biascorr:open:${store}`;
  // What the browser has; null where it has nothing, and the report's own rating counts.
  const mine = (target) => {
    const key = keyOf(target);
    try {
      return clean(JSON.parse(unkept.get(key) || (storage && storage.getItem(key)) || "null"));
    } catch {
      return null;
    }
  };
  const now = (target) => mine(target) || clean(target.file) || NONE;

  const changed = (key) => {
    for (const [own, all] of showers) if (key === null || key === own) for (const show of all) show();
    for (const watch of watchers) watch();
  };
  const write = (target, change) => {
    const key = keyOf(target);
    const text = JSON.stringify({ ...now(target), ...change, rated: `${new Date().toISOString().slice(0, 19)}Z` });
    try {
      storage.setItem(key, text);
      unkept.delete(key);
    } catch {
      unkept.set(key, text);
    }
    changed(key);
  };
  const forget = (targets) => {
    for (const target of targets) {
      unkept.delete(keyOf(target));
      if (storage) storage.removeItem(keyOf(target));
    }
    changed(null);
  };

  // Two buttons, and if `full` a field for a note.
  const control = (target, full) => {
    const box = document.createElement("span");
    box.className = "rate";
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", `Rating of ${target.name}`);
    const buttons = WORDS.map((word) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = word;
      button.textContent = word;
      button.addEventListener("click", () => write(target, { rating: now(target).rating === word ? "" : word }));
      box.append(button);
      return button;
    });
    const note = document.createElement(full ? "input" : "small");
    if (full) {
      note.type = "text";
      note.maxLength = 500;
      note.placeholder = "note";
      note.setAttribute("aria-label", `Note on ${target.name}`);
      note.addEventListener("input", () => write(target, { note: note.value.replace(/\s+/g, " ").trim() }));
    }
    box.append(note);
    const show = () => {
      const state = now(target);
      buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(state.rating === WORDS[i])));
      if (!full) note.textContent = state.note;
      else if (document.activeElement !== note) note.value = state.note;
    };
    const key = keyOf(target);
    showers.set(key, [...(showers.get(key) || []), show]);
    show();
    return box;
  };

  window.addEventListener("storage", (event) => changed(event.key));  // another page, or tab

  // --- a scan's page

  const here = document.getElementById("rating-data");
  if (here) {
    const target = JSON.parse(here.textContent);
    const place = document.getElementById("rating");
    const remark = document.createElement("small");
    place.append(control(target, true), remark);
    place.hidden = false;
    const tell = () => {
      let text = "Kept in this browser; the cohort’s page saves all ratings.";
      if (!storage) text = "This browser lets the page keep nothing: rate on the cohort’s page, and save the table there.";
      else if (storage.getItem(openKey(target.store)) === null) {
        text = "Kept in this browser. Some browsers keep each file’s apart; in this one the cohort’s page was not opened yet: "
          + "open it, and if this remark stays, rate there.";
      }
      remark.textContent = text;
    };
    watchers.push(tell);
    tell();
  }

  return {
    WORDS, mine, now, control, forget,
    keeps: () => storage !== null && unkept.size === 0,
    watch: (act) => watchers.push(act),
    opened: (stores) => {
      try {
        for (const store of stores) storage.setItem(openKey(store), "yes");
      } catch { /* nothing is kept, as the page says */ }
    },
  };
})();
