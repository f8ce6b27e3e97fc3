// The pages that mailed links lead to. The token is behind the `#`, which browsers tell no server; it is
// taken out of the address, so that it stays in no history.
"use strict";
(() => {
  const form = document.querySelector("form");
  const said = document.getElementById("said");
  const button = form.querySelector("button");
  let token = null;

  const say = (text) => {
    said.textContent = text;
    said.focus();
  };

  const read = () => {
    token = new URLSearchParams(location.hash.slice(1)).get("token");
    history.replaceState(null, "", location.pathname);
    form.hidden = !token;
    said.textContent = token ? "" : "Open this page with the link of the mail.";
  };

  const sentence = (problem) => {
    const errors = problem && Array.isArray(problem.errors) ? problem.errors : [];
    const all = errors.map((it) => it.msg).filter(Boolean);
    return all.length ? all.join(" ") : (problem && problem.detail) || "It did not work; try again.";
  };

  const send = async () => {
    const fields = form.elements;
    if (fields.namedItem("password").value !== fields.namedItem("again").value) {
      say("These are two passwords; type the same twice.");
      return;
    }
    const body = { token, password: fields.namedItem("password").value };
    if (fields.namedItem("name")) {
      body.name = fields.namedItem("name").value;
    }
    const answer = await fetch(form.dataset.path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
      credentials: "omit",
      cache: "no-store",
      referrerPolicy: "no-referrer",
    });
    if (answer.ok) {
      form.reset();
      form.hidden = true;
      token = null;
      say(form.dataset.done);
    } else {
      say(sentence(await answer.json().catch(() => null)));
    }
  };

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      await send();
    } catch {
      say("The server does not answer; try again.");
    } finally {
      button.disabled = false;
    }
  });
  addEventListener("hashchange", () => location.hash && read());
  read();
})();
