// On paper nothing can be unfolded, and paper is white: open what is folded before printing, in the
// light theme, and put it back after.
(() => {
  const page = document.documentElement;
  let opened = [], theme;

  addEventListener("beforeprint", () => {
    theme = page.dataset.theme;
    page.dataset.theme = "light";
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const element of opened) element.open = true;
    for (const element of document.querySelectorAll(".toggle-hidden")) {
      opened.push(element);
      element.classList.remove("toggle-hidden");
    }
  });

  addEventListener("afterprint", () => {
    page.dataset.theme = theme;
    for (const element of opened) {
      if (element.tagName === "DETAILS") element.open = false;
      else element.classList.add("toggle-hidden");
    }
  });
})();
