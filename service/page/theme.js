// Light, dark, or as the system has it; kept in this browser.

import { find } from "./dom.js";

const CHOICES = ["auto", "light", "dark"];
const SIGNS = { auto: "◐", light: "☀", dark: "☾" };
const KEPT = "eigenlens-theme";

/** The button in the header, and the key for it. Tells "theme" on the document. */
export function startTheme() {
  let chosen = CHOICES.includes(kept()) ? kept() : "auto";
  const show = () => {
    document.documentElement.dataset.theme = chosen;
    const button = find("theme");
    button.textContent = SIGNS[chosen];
    button.ariaLabel = button.title = `Colours: ${chosen === "auto" ? "as the system has them" : chosen}`;
    document.dispatchEvent(new Event("theme"));
  };
  find("theme").addEventListener("click", () => {
    chosen = CHOICES[(CHOICES.indexOf(chosen) + 1) % CHOICES.length];
    try {
      localStorage.setItem(KEPT, chosen);
    } catch {
      // kept for this visit only
    }
    show();
  });
  show();
}

function kept() {
  try {
    return localStorage.getItem(KEPT);
  } catch {
    return null;
  }
}
