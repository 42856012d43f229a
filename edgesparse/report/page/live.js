"use strict";
// Replaces the rows once a second; without scripts the page reloads itself.
const state = document.getElementById("state");
async function update() {
  let text;
  try {
    text = await (await fetch(location.href, { cache: "no-store" })).text();
  } catch {
    state.textContent = "the run has ended; its page lies beside its results";
    return;
  }
  const page = new DOMParser().parseFromString(text, "text/html");
  const fresh = page.querySelector("main.live");
  if (fresh === null) {
    location.replace(location.pathname + "?final");
    return;
  }
  document.querySelector("main").replaceWith(fresh);
  setTimeout(update, 1000);
}
setTimeout(update, 1000);
