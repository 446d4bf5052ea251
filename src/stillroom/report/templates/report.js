"use strict";
// Marks in the contents the section that crosses the upper quarter of the window.
(() => {
  const links = new Map([...document.querySelectorAll(".contents a")].map(
    (link) => [document.getElementById(link.hash.slice(1)).closest("section"), link]));
  const crossing = new Set();
  const mark = (current) => {
    for (const [section, link] of links) {
      if (section === current) link.setAttribute("aria-current", "true"); else link.removeAttribute("aria-current");
    }
  };
  const watch = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) crossing[isIntersecting ? "add" : "delete"](target);
    const current = [...links.keys()].find((section) => crossing.has(section));
    if (current) mark(current);  // between two sections the last one stays marked
  }, { rootMargin: "-25% 0px -74% 0px" });
  mark([...links.keys()][0]);
  for (const section of links.keys()) watch.observe(section);
})();
