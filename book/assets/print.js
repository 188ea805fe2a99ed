// On paper nothing can be unfolded: open what is folded before printing, and fold it again after.
(() => {
  let opened = [];

  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const element of opened) element.open = true;
    for (const element of document.querySelectorAll(".toggle-hidden")) {
      opened.push(element);
      element.classList.remove("toggle-hidden");
    }
  });

  addEventListener("afterprint", () => {
    for (const element of opened) {
      if (element.tagName === "DETAILS") element.open = false;
      else element.classList.add("toggle-hidden");
    }
  });
})();
