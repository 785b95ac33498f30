{% include "drf_spectacular/swagger_ui.js" %}

// Swagger UI has dark colours and follows the system's wish only with its own top bar, which is not shown here
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const follow = () => {
  document.documentElement.classList.toggle("dark-mode", dark.matches);
  document.body.style.background = dark.matches ? "#1c2022" : "";
};
dark.addEventListener("change", follow);
follow();
