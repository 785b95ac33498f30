// Remote images are loaded only once a person asks for them: the sender would learn of the look.
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-preview]");
  if (!button) return;
  document.getElementById("preview").src = button.dataset.preview;
  button.disabled = true;
  button.textContent = "Remote images are shown";
});

// The preview as wide as a phone, and back.
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-narrow]");
  if (!button) return;
  const narrow = document.getElementById(button.dataset.narrow).classList.toggle("panel-phone");
  button.setAttribute("aria-pressed", String(narrow));
});

// What nothing takes back is asked about once more.
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-ask]");
  if (button && !confirm(button.dataset.ask)) event.preventDefault();
});

// A value into the clipboard; over http, where browsers keep that from pages, it is marked for the person to copy.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "Copied";
  } catch {
    const range = document.createRange();
    range.selectNodeContents(button.previousElementSibling);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    button.textContent = document.execCommand("copy") ? "Copied" : "Marked: copy it";
  }
});

// The theme marks no main part, and puts some thirty links of the menu before it.
window.addEventListener("load", () => {
  const main = document.getElementById("main") ?? document.getElementById("page");
  if (!main) return;
  main.role = "main";
  if (main.id !== "main") return;
  const skip = Object.assign(document.createElement("a"), { href: "#content", className: "panel-skip", textContent: "Skip the menu" });
  document.body.prepend(skip);
});

// The theme's fields that only a placeholder names, and the pictures that open a calendar, for those who hear the page.
window.addEventListener("load", () => setTimeout(() => {
  for (const field of document.querySelectorAll("input[placeholder]:not([type=hidden])")) {
    if (!field.labels.length && !field.ariaLabel) field.ariaLabel = field.placeholder;
  }
  // the menu is called the same
  for (const area of document.querySelectorAll("#main .simplebar-content-wrapper")) area.ariaLabel = "The list, scrollable";
  for (const link of document.querySelectorAll(".datetimeshortcuts a")) {
    const named = link.querySelector("[title]");
    if (named && !link.textContent.trim()) link.ariaLabel = named.title;
  }
  // Its menus open by a click on a picture that no key reaches; a backdrop has none, and stays as it is.
  const names = { dock_to_right: "Menu", more_vert: "More actions", unfold_more: "Account" };
  for (const opener of document.querySelectorAll("[x-on\\:click]")) {
    const picture = Object.keys(names).find((icon) => opener.textContent.trim().endsWith(icon));
    if (opener.tabIndex >= 0 || !(picture || opener.matches("a"))) continue;
    opener.tabIndex = 0;
    opener.role = "button";
    // with the words that are seen there, so that who speaks to the browser may say them
    const words = opener.textContent.replace(picture, "").replace(/\s+/g, " ").trim();
    if (picture) opener.ariaLabel = `${names[picture]} ${words}`.trim();
    opener.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      opener.click();
    });
  }
})); // after the calendars were made
