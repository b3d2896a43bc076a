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

/* Results as they come, by server-sent events: unlike a socket, they take the headers of the page. */
async function* live(params, headers) {
  const ending = new AbortController();
  try {
    const response = await fetch("/graphql", {
      method: "POST",
      headers: { ...headers, "content-type": "application/json", accept: "text/event-stream" },
      body: JSON.stringify(params),
      signal: ending.signal,
    });
    if (!response.headers.get("content-type").startsWith("text/event-stream")) {
      yield await response.json();
      return;
    }
    let text = "";
    for await (const piece of pieces(response.body.pipeThrough(new TextDecoderStream()))) {
      const events = (text + piece).split("\n\n");
      text = events.pop();
      for (const event of events) {
        const [name, data] = event.split("\ndata: ");
        if (name === "event: complete") return;
        if (name === "event: next") yield JSON.parse(data);
      }
    }
  } finally {
    ending.abort();
  }
}

async function* pieces(stream) {
  const reader = stream.getReader();
  for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
    yield piece.value;
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
