"use strict";

const SHOP = `# One operation reads one snapshot of all views. "extensions.consistency" below the
# data says which events it contains. Ctrl-Enter runs this.
query Shop {
  orders(first: 3, orderBy: [{ field: PLACED_AT, direction: DESC }]) {
    totalCount
    nodes {
      orderId
      status
      currency
      amount
      outstanding
      payments(first: 2) {
        nodes {
          paymentId
          status
          amount
        }
      }
    }
  }
  position {
    token
    lagMs
    caughtUp
  }
}
`;

const LIVE = `# A live query: the current result at once, then each changed one, with its position.
# The same button ends it.
subscription Live {
  orders(first: 3, orderBy: [{ field: PLACED_AT, direction: DESC }]) {
    nodes {
      orderId
      status
      outstanding
    }
  }
}
`;

const once = GraphiQL.createFetcher({ url: "/graphql" });

/* Whether the operation that runs is a subscription. */
function isLive(document, name) {
  const operations = (document?.definitions ?? []).filter((each) => each.operation);
  const chosen = operations.find((each) => !name || each.name?.value === name);
  return chosen?.operation === "subscription";
}

/* Results as they come, by server-sent events: unlike a socket, they take the headers of the page.
   Its end is asked for while the next result is awaited, so it ends the request and not the wait. */
function live(params, headers) {
  const ending = new AbortController();
  const found = results(params, headers, ending.signal);
  return {
    [Symbol.asyncIterator]() {
      return this;
    },
    next: () => found.next(),
    return: () => {
      ending.abort();
      return found.return();
    },
  };
}

async function* results(params, headers, signal) {
  try {
    const response = await fetch("/graphql", {
      method: "POST",
      headers: { ...headers, "content-type": "application/json", accept: "text/event-stream" },
      body: JSON.stringify(params),
      signal,
    });
    const type = response.headers.get("content-type") ?? "";
    if (type.startsWith("text/event-stream")) yield* events(response.body);
    else yield await response.json();
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
    const whole = (text + piece.value).split("\n\n");
    text = whole.pop();
    for (const event of whole) {
      const [name, data] = event.split("\ndata: ");
      if (name === "event: complete") return;
      if (name === "event: next") yield JSON.parse(data);
    }
  }
}

ReactDOM.createRoot(document.getElementById("ide")).render(
  React.createElement(GraphiQL, {
    fetcher: (params, options) =>
      isLive(options?.documentAST, params.operationName)
        ? live(params, options?.headers)
        : once(params, options),
    defaultTabs: [{ query: SHOP }, { query: LIVE }],
    defaultEditorToolsVisibility: true,
  }),
);
