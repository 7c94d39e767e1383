// Where data comes from: blocks of this file, or the server that sent it. The rest of the page cannot tell.
//
// source.overview: what the start page shows; source.rows(): one of `row` for each unit, with its `address`;
// source.page(row): all of a unit; source.part(name): what else there is by name, null if it is not there;
// source.ask(name, question): what a server says to it, and no function where there is none.

const source = document.body.hasAttribute("data-served") ? served() : embedded();
source.overview = JSON.parse(document.getElementById("overview").textContent);

function embedded() {
  const whole = new Promise((resolve) => {
    if (document.readyState !== "loading") resolve();
    else document.addEventListener("DOMContentLoaded", resolve);
  });

  async function part(name) {
    await whole;
    const block = document.getElementById(`part-${name}`);
    return block ? decoded(block.textContent) : null;
  }

  const rows = once(() => part("rows"));
  const chunk = remembered(4, async (number) => unpacked(await part(`units-${number}`)));
  return { rows, part, page: async (row) => (await chunk(row.chunk))[row.address] };
}

function served() {
  const asked = async (path, how = {}) => {
    const answer = await fetch(path, {
      ...how,
      headers: { accept: "application/json", "content-type": "application/json" },
    }).catch(() => {
      throw new Error("nx-view no longer answers: start it again");
    });
    if (answer.status === 404) return null;
    if (!answer.ok) throw new Error(await answer.text());
    return answer.json();
  };
  return {
    rows: once(() => asked("rows")),
    part: (name) => asked(`parts/${encodeURIComponent(name)}`),
    ask: (name, question) =>
      asked(`answers/${encodeURIComponent(name)}`, { method: "POST", body: JSON.stringify(question) }),
    page: remembered(
      64,
      (row) => asked(`units/${encodeURIComponent(row.address)}`),
      (row) => row.address,
    ),
  };
}

async function decoded(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

// Puts texts back in the place of their numbers: see nxtools/view/pack.py.
function unpacked({ strings, texts, pages }) {
  const tokens = texts.map((text) => text.map((number) => strings[number]));
  for (const page of Object.values(pages)) {
    for (const group of page.groups) {
      for (const excerpt of group.excerpts) excerpt.tokens = tokens[excerpt.tokens];
    }
  }
  return pages;
}

function once(make) {
  let made;
  return () => (made ??= make());
}

// The last few answers are kept; a failure is not.
function remembered(size, make, key = (asked) => asked) {
  const kept = new Map();
  return (asked) => {
    const name = key(asked);
    if (!kept.has(name)) {
      const answer = make(asked);
      answer.catch(() => kept.delete(name));
      kept.set(name, answer);
      if (kept.size > size) kept.delete(kept.keys().next().value);
    }
    return kept.get(name);
  };
}
