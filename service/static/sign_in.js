// Asks for the page again, with the key, and shows it in place of this one.
(() => {
  const form = document.getElementById("sign-in");
  const field = document.getElementById("key");
  const problem = document.getElementById("problem");

  // The files of the page, in their order. Those that this page has loaded already aren't loaded again.
  function load(head) {
    for (const link of head.querySelectorAll("link[rel=stylesheet]")) document.head.append(link.cloneNode());
    for (const script of head.querySelectorAll("script[src]")) {
      if (document.querySelector('script[src="' + script.getAttribute("src") + '"]')) continue;
      const copy = document.createElement("script");
      copy.src = script.getAttribute("src");
      copy.async = false;
      document.head.append(copy);
    }
  }

  async function open() {
    const response = await fetch(location.pathname, { headers: withKey({}), cache: "no-store" });
    if (!response.ok) {
      const body = await response.json();
      throw new Error(body.error.message);
    }
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    document.title = page.title;
    document.body.replaceWith(document.adoptNode(page.body));
    load(page.head);
    listenToSignOut();
  }

  async function attempt() {
    const button = form.querySelector("button");
    button.disabled = true;
    problem.textContent = "";
    try {
      await open();
    } catch (error) {
      sessionStorage.removeItem(KEY);
      problem.textContent = error instanceof TypeError ? "The service does not answer. Is it still running?" : error.message;
      button.disabled = false;
      field.focus();
    }
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEY, field.value.trim());
    attempt();
  });
  if (sessionStorage.getItem(KEY)) attempt();
  else field.focus();
})();
