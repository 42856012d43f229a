"use strict";
// Replaces the rows once a second; without scripts the page reloads itself.
const state = document.getElementById("state");
const running = state.textContent;
async function update() {
  let text;
  try {
    const response = await fetch(location.pathname + "?rows", { cache: "no-store" });
    if (!response.ok) throw new Error(response.statusText);
    text = await response.text();
  } catch {
    state.textContent = "no connection; if the run has ended, its page lies beside its results";
    setTimeout(update, 3000);
    return;
  }
  state.textContent = running;
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
